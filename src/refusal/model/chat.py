"""From instructions to token ids by the model's own chat template, and the positions that directions are read at."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from refusal.errors import UserError
from refusal.model import template

log = logging.getLogger("refusal")

_ENDINGS = ("How do magnets work", "Name a colour.", "Is it late?")
"""Three instructions that end differently: what their renderings share at the end is template."""


@dataclass(frozen=True)
class Rendering:
    """How the chat template is asked.

    options: variables handed to it; appended: text behind what it writes, such as what closes a think block.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    appended: str = ""


PLAIN = Rendering()
"""The template as it is."""


def render(
    tokenizer: Any, instruction: str, system_prompt: str | None = None, rendering: Rendering = PLAIN
) -> list[int]:
    """Token ids of one instruction as the model expects it, up to where its reply starts.

    The template writes every special token itself, so the tokenizer adds none (a doubled BOS shifts all activations).
    """
    return tokenize_chat(tokenizer, _conversation(instruction, system_prompt), rendering)


def tokenize_chat(tokenizer: Any, messages: Sequence[dict[str, str]], rendering: Rendering = PLAIN) -> list[int]:
    """Token ids of a conversation, up to where the model's next reply starts.

    Special tokens that stand in a message's text are read as such, as the tokenizer does.
    Raises: UserError, no chat template, or one that refuses the roles.
    """
    return tokenizer(_written(tokenizer, messages, rendering), add_special_tokens=False).input_ids


def written(tokenizer: Any, system_prompt: str | None, rendering: Rendering = PLAIN) -> str:
    """The text of some instruction up to where the reply starts: how it ends is the template's doing."""
    return _written(tokenizer, _conversation(_ENDINGS[0], system_prompt), rendering)


def end_of_instruction(tokenizer: Any, system_prompt: str | None = None, rendering: Rendering = PLAIN) -> list[int]:
    """The n template tokens after the user's text: positions -n..-1.

    Found as the longest common suffix of renderings whose instructions end differently; the shortest pair counts.
    Raises: UserError, nothing in common.
    """
    first, *others = (render(tokenizer, ending, system_prompt, rendering) for ending in _ENDINGS)
    n = min(_common_suffix(first, other) for other in [*others, others[0]])
    if n == 0:
        raise UserError("the chat template puts nothing after the instruction: there is no position to read at")
    return first[-n:]


def encode(
    tokenizer: Any,
    prompts: Sequence[dict],
    system_prompt: str | None,
    suffix: Sequence[int],
    rendering: Rendering = PLAIN,
) -> list[list[int]]:
    """Token ids of each prompt; every one ends with the end-of-instruction tokens.

    Raises: UserError that names the prompt whose text runs into the template.
    """
    rows = [render(tokenizer, prompt["instruction"], system_prompt, rendering) for prompt in prompts]
    for prompt, row in zip(prompts, rows, strict=True):
        if row[-len(suffix) :] != list(suffix):
            raise UserError(
                f"prompt {prompt['id']}: its end merges with the chat template's tokens: reword or remove it"
            )
    special = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    if marked := [prompt["id"] for prompt in prompts if any(token in prompt["instruction"] for token in special)]:
        log.warning("special tokens in the text of %d prompts are read as such, first in %s", len(marked), marked[0])
    return rows


def single_token(tokenizer: Any, string: str) -> int:
    """The id of a string that is one token, as the model would start its reply with it.

    Raises: UserError, several tokens.
    """
    ids = tokenizer.encode(string, add_special_tokens=False)
    if len(ids) != 1:
        parts = tokenizer.convert_ids_to_tokens(ids)
        raise UserError(f'refusal token "{string}" is {len(ids)} tokens here {parts}: give the first of them alone')
    return ids[0]


def stop_tokens(tokenizer: Any, generation_config: Any) -> list[int]:
    """Ids that end a reply: those of the generation config and the tokenizer's end of sequence."""
    named = generation_config.eos_token_id if generation_config is not None else None
    ids = [named] if isinstance(named, int) else list(named or ())
    if tokenizer.eos_token_id is not None:
        ids.append(tokenizer.eos_token_id)
    return sorted(set(ids))


def _conversation(instruction: str, system_prompt: str | None) -> list[dict[str, str]]:
    messages = [{"role": "user", "content": instruction}]
    if system_prompt is not None:
        messages.insert(0, {"role": "system", "content": system_prompt})
    return messages


def _written(tokenizer: Any, messages: Sequence[dict[str, str]], rendering: Rendering) -> str:
    """The conversation as text.

    Raises: UserError, no chat template, none that Jinja can read, or one that refuses the conversation.
    """
    from jinja2 import TemplateError, TemplateSyntaxError

    chat_template = template.source(tokenizer)
    try:
        text = tokenizer.apply_chat_template(
            list(messages),
            chat_template=chat_template,
            tokenize=False,
            add_generation_prompt=True,
            **rendering.options,
        )
    except TemplateSyntaxError as error:
        raise template.invalid(error) from None
    except (TemplateError, TypeError) as error:  # a TypeError is an option of a kind that it does not expect
        keys = ["system_prompt"] * (messages[0]["role"] == "system") + ["template_options"] * bool(rendering.options)
        remedy = f"change {' or '.join(f'`{key}`' for key in keys or ['chat_template'])}"
        raise UserError(f"the chat template refuses this conversation ({error}): {remedy}") from None
    return text + rendering.appended


def _common_suffix(first: Sequence[int], second: Sequence[int]) -> int:
    n = 0
    while n < min(len(first), len(second)) and first[-1 - n] == second[-1 - n]:
        n += 1
    return n
