"""Tiny random models of several families with a byte tokenizer, built once a session and only read by tests."""

import importlib.util
import sys
from argparse import Namespace
from pathlib import Path

import pytest

from refusal.model.specimens import specimen

ROOT = Path(__file__).parents[2]

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
"""Its end-of-instruction tokens: <end>, a line break, <assistant>."""

SPECIAL = ["<pad>", "<bos>", "<eos>", "<end>", "<system>", "<user>", "<assistant>"]


def build_tokenizer(template=TEMPLATE):
    """A tokenizer of single bytes, and one merge, "!" with a line break, for text that runs into a template.

    Like many, it puts a <bos> before plain text, so a template that writes one shows whether it gets doubled.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    # "Ċ" is a line break in the alphabet of byte-level tokenizers
    tokens = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), "!Ċ"]
    inner = Tokenizer(models.BPE(vocab={token: number for number, token in enumerate(tokens)}, merges=[("!", "Ċ")]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(SPECIAL)
    inner.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        chat_template=template,
        clean_up_tokenization_spaces=False,
    )


def script(name):
    """A stage script as a module."""
    found = importlib.util.spec_from_file_location(f"stage_{name}", ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(found)
    sys.modules[found.name] = module
    found.loader.exec_module(module)
    return module


def describe(folder, output, **changes):
    """Run the model step on a folder; returns the identity file."""
    flags = {
        "folder": folder,
        "id": None,
        "revision": None,
        "dtype": "float32",
        "system_prompt": None,
        "chat_template": None,
        "template_options": {},
        "thinking": None,
        "think_block": None,
        "modules": None,
        "refusal_tokens": ["I", "S"],
        "proposed": None,
        "output": output,
    }
    script("model").main(Namespace(**{**flags, **changes}))
    return output


@pytest.fixture(scope="session")
def tokenizer():
    return build_tokenizer()


@pytest.fixture(scope="session")
def identity(tmp_path_factory):
    """A function: family -> model.json of a saved random model."""
    made = {}

    def build(family):
        if family not in made:
            from refusal.model.loading import hide_bars

            hide_bars()
            folder = tmp_path_factory.mktemp(family)
            specimen(family).save_pretrained(folder / "model")
            build_tokenizer().save_pretrained(folder / "model")
            made[family] = describe(folder / "model", folder / "model.json")
        return made[family]

    return build


@pytest.fixture(scope="session")
def chat_model(identity):
    """A function: family -> loaded ChatModel, shared, to be left as it is."""
    from refusal.model.loading import load

    loaded = {}

    def build(family):
        if family not in loaded:
            loaded[family] = load(identity(family))
        return loaded[family]

    return build


@pytest.fixture(scope="session")
def chat(chat_model):
    """The Llama, for all that does not differ by family."""
    return chat_model("Llama")
