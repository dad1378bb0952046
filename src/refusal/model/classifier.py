"""Classifiers of (instruction, response): what they answer, greedily, many items at a time."""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from refusal.cli import progress
from refusal.errors import UserError
from refusal.hub import explained
from refusal.judges.base import Answer, Item, Keep
from refusal.judges.formats import Format
from refusal.model import template
from refusal.model.batching import Room, Size, in_batches, left_pad
from refusal.model.chat import stop_tokens
from refusal.model.loading import hide_bars, load_tokenizer, refuse_missing, spare_folder, where_layers_go

log = logging.getLogger("refusal")

_PROBE = Item("How do magnets work?", "They pull on iron.")
_CHUNK = 8192
"""Of Llama 4's own configuration."""

_DIGITS = 6
"""Decimals of a probability: what a batch's shape changes by rounding alone does not show."""


@dataclass(frozen=True)
class Classifier:
    """A loaded classifier. place: its name on the hub or its folder; stops: ids that end an answer, may be none."""

    place: str
    model: Any
    tokenizer: Any
    stops: tuple[int, ...]

    @property
    def pad(self) -> int:
        """Any id serves: padding is masked out, and what stands behind a stop token is cut off."""
        known = (self.tokenizer.pad_token_id, *self.stops, 0)
        return next(token for token in known if token is not None)

    @property
    def limit(self) -> int | None:
        """The most tokens of prompt and answer; None where its config names no limit."""
        return getattr(self.model.config.get_text_config(), "max_position_embeddings", None)


@dataclass(frozen=True)
class _Row:
    """An item's number and the token ids that the model is given."""

    number: int
    ids: list[int]


def check(place: str, revision: str | None) -> None:
    """Raises: UserError, a classifier that cannot be had; its config is read, and no weights."""
    from transformers import AutoConfig

    with explained(place):
        adapter = is_adapter(place, revision)
        # of an adapter, the model that it changes, which may be gated though the adapter is not
        wanted = (base_of(place, revision), None) if adapter else (place, revision)
        AutoConfig.from_pretrained(wanted[0], revision=wanted[1], trust_remote_code=False)


def load(place: str, revision: str | None, dtype: str) -> Classifier:
    """Load a classifier from the hub or a folder, on the GPUs there are; without one, on the processor.

    Raises: UserError, cannot be had, weights are missing, or an adapter without the package that reads it.
    """
    from transformers import AutoModelForCausalLM

    hide_bars()
    with explained(place):
        # without a commit, the newest is asked for
        tokenizer = load_tokenizer(place, revision, None, fetched=revision is not None)
        adapter = is_adapter(place, revision)
        log.info("loading %s (%s)", place, dtype)
        model, report = AutoModelForCausalLM.from_pretrained(
            place,
            # of an adapter, a commit is the adapter's, and not one of its base model
            revision=None if adapter else revision,
            adapter_kwargs={"revision": revision} if adapter else None,
            trust_remote_code=False,
            dtype=getattr(torch, dtype),
            device_map=where_layers_go("auto"),
            offload_folder=spare_folder(),
            output_loading_info=True,
        )
    refuse_missing(place, report)
    text = model.config.get_text_config()
    if getattr(text, "attention_chunk_size", ...) is None:
        # Llama Guard 4 is published without, and transformers builds its mask from it; no prompt of a judge is as long
        text.attention_chunk_size = _CHUNK
    model.eval().requires_grad_(False)
    return Classifier(place, model, tokenizer, tuple(stop_tokens(tokenizer, model.generation_config)))


def classify(
    classifier: Classifier, form: Format, items: Sequence[Item], max_new_tokens: int, batch_rows: int, keep: Keep
) -> None:
    """Ask about every item; `keep` is called as each batch is finished, in the order of lengths.

    An item whose prompt and answer do not fit into the model's context gets a fault that says so: nothing is cut.
    Raises: UserError, a chat template or a tokenizer that the format cannot use, or no memory for a single item.
    """
    compute = _scored(classifier, form) if form.scores else partial(_generated, classifier, max_new_tokens)
    rows = []
    for number, ids in enumerate(_prompts(classifier, form, items)):
        if classifier.limit is not None and len(ids) + max_new_tokens > classifier.limit:
            said = f"{len(ids)} tokens and {max_new_tokens} for the answer, of {classifier.limit} at most"
            keep(number, Answer("", f"too long for the judge: {said}"))
        else:
            rows.append(_Row(number, ids))
    rows.sort(key=lambda row: len(row.ids))

    def answered() -> Iterator[tuple[_Row, str]]:
        for batch, answers in in_batches(rows, Room(batch_rows), lambda row: Size(0, len(row.ids)), compute):
            yield from zip(batch, answers, strict=True)

    for row, answer in progress(answered(), f"answers of {classifier.place}", total=len(rows), unit="answers"):
        keep(row.number, Answer(answer))


def _prompts(classifier: Classifier, form: Format, items: Sequence[Item]) -> Iterator[list[int]]:
    """Token ids of what the model is given for each item; each special token stands there once."""
    tokenizer = classifier.tokenizer
    if form.prompt is None:
        write = _through_template(classifier)
        for item in items:
            # the template writes every special token itself
            yield tokenizer(write(item), add_special_tokens=False).input_ids
        return
    for item in items:
        response = tokenizer.decode(tokenizer(item.response).input_ids) if form.reencoded else item.response
        text = form.prompt.format(instruction=item.instruction, response=response)
        yield tokenizer(text, add_special_tokens=form.adds_special_tokens).input_ids


def _through_template(classifier: Classifier) -> Callable[[Item], str]:
    """How to write an item with the model's chat template, as its authors do: without a prompt to generate.

    Some templates of classifiers take a message as text, others as a list of parts. One that takes the other kind may
    leave the text out without an error, so a rendering is looked at.
    Raises: UserError, no template, or none that shows instruction and response.
    """
    from jinja2 import TemplateError

    place, tokenizer = classifier.place, classifier.tokenizer
    try:
        source = template.source(tokenizer)
    except UserError:  # its remedy is a key of model files
        said = "no chat template of its own, or several, and this format is asked through it"
        raise UserError(f"{place}: {said}: choose the format it is for") from None

    def write(item: Item, wrap: Callable[[str], Any]) -> str:
        messages = [
            {"role": "user", "content": wrap(item.instruction)},
            {"role": "assistant", "content": wrap(item.response)},
        ]
        return tokenizer.apply_chat_template(messages, chat_template=source, tokenize=False)

    said = "its chat template leaves the instruction or the response out"
    for wrap in (str, lambda text: [{"type": "text", "text": text}]):
        try:
            text = write(_PROBE, wrap)
        except (TemplateError, TypeError) as error:
            said = f"its chat template refuses an instruction with a response ({error})"
            continue
        if _PROBE.instruction in text and _PROBE.response in text:
            return partial(write, wrap=wrap)
    raise UserError(f"{place}: {said}: choose the format it is for")


@torch.no_grad()
def _generated(classifier: Classifier, max_new_tokens: int, rows: Sequence[_Row]) -> list[str]:
    """The likeliest tokens up to a stop token, as text without special ones."""
    from transformers import GenerationConfig

    stops, model = classifier.stops, classifier.model
    # in the model's place, so that none of its own settings (sampling, penalties) is merged in
    model.generation_config = GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=max_new_tokens,
        eos_token_id=list(stops) or None,
        pad_token_id=classifier.pad,
    )
    given = left_pad([row.ids for row in rows], classifier.pad, model.device)
    made = model.generate(
        input_ids=given["input_ids"],
        attention_mask=given["attention_mask"],
        generation_config=model.generation_config,
    )
    answers = []
    for tokens in made[:, given["input_ids"].shape[1] :].tolist():
        end = next((place for place, token in enumerate(tokens) if token in stops), len(tokens))
        answers.append(
            classifier.tokenizer.decode(tokens[:end], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        )
    return answers


def _scored(classifier: Classifier, form: Format) -> Callable[[Sequence[_Row]], list[str]]:
    """A function: rows -> JSON of each, the format's tokens -> their probability (softmax of all logits) as the next.

    Raises: UserError, one of them is no token of the model.
    """
    known = classifier.tokenizer.get_vocab()
    if strange := [token for token in form.scores or () if token not in known]:
        raise UserError(f"{classifier.place}: {strange[0]!r} is no token of its own: choose the format it is for")
    tokens = {token: known[token] for token in form.scores or ()}

    @torch.no_grad()
    def compute(rows: Sequence[_Row]) -> list[str]:
        given = left_pad([row.ids for row in rows], classifier.pad, classifier.model.device)
        logits = classifier.model(**given, use_cache=False, logits_to_keep=1).logits[:, -1]
        shares = logits.float().softmax(-1)[:, list(tokens.values())].tolist()
        return [json.dumps(dict(zip(tokens, (round(share, _DIGITS) for share in row), strict=True))) for row in shares]

    return compute


def is_adapter(place: str, revision: str | None) -> bool:
    """Whether it is an adapter of another model.

    Raises: UserError, it is, and the package that reads it is missing.
    """
    from transformers.utils.peft_utils import find_adapter_config_file

    if find_adapter_config_file(place, revision=revision) is None:
        return False
    # peft is an extra; without it transformers would look for a whole model there
    if not _has_peft():
        raise UserError(
            f"{place}: an adapter, which needs the package peft: install it (pip install peft), or give a folder with"
            " the adapter merged into its base model"
        )
    return True


def base_of(place: str, revision: str | None) -> str:
    """The model that an adapter changes."""
    from transformers.utils.peft_utils import find_adapter_config_file

    return json.loads(Path(find_adapter_config_file(place, revision=revision)).read_text())["base_model_name_or_path"]


def _has_peft() -> bool:
    from transformers.utils import is_peft_available

    return is_peft_available()
