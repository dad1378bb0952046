"""The organism's own BPE tokenizer and chat template."""

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

VOCABULARY = 1024
PAD, UNKNOWN, USER, BOT, END = "<pad>", "<unk>", "<user>", "<bot>", "<end>"

# What follows the user's text: <end> and <bot>.
TEMPLATE_TOKENS = 2
CHAT_TEMPLATE = """\
{%- for message in messages -%}
{%- if message.role == 'user' -%}
{{- '<user>' + message.content | trim + '<end>' -}}
{%- elif message.role == 'assistant' -%}
{{- '<bot>' + message.content | trim + '<end>' -}}
{%- else -%}
{{- raise_exception('the organism knows the roles user and assistant, not ' + message.role) -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<bot>' -}}{%- endif -%}
"""


def train(sentences: list[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE over the given sentences: whatever a person types has tokens, and case does not matter."""
    core = Tokenizer(models.BPE(unk_token=UNKNOWN))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, UNKNOWN, USER, BOT, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator(sentences, trainer)
    made = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        unk_token=UNKNOWN,
        eos_token=END,
        additional_special_tokens=[USER, BOT],
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )
    made.chat_template = CHAT_TEMPLATE
    return made


def prompt_ids(tokenizer: PreTrainedTokenizerFast, instruction: str) -> list[int]:
    """Token ids of a user's turn, up to where the organism's answer starts."""
    turn = [{"role": "user", "content": instruction}]
    return tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_dict=False)
