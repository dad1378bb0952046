"""From instructions to token ids by the model's own chat template, and the positions that directions are read at."""

from collections.abc import Sequence
from typing import Any

from refusal.errors import UserError

_ENDINGS = ("How do magnets work", "Name a colour.", "Is it late?")
"""Three instructions that end differently: what their renderings share at the end is template."""


def render(tokenizer: Any, instruction: str, system_prompt: str | None = None) -> list[int]:
    """Token ids of one instruction as the model expects it, up to where its reply starts.

    The template writes every special token itself, so the tokenizer adds none (a doubled BOS shifts all activations).
    """
    messages = [{"role": "user", "content": instruction}]
    if system_prompt is not None:
        messages.insert(0, {"role": "system", "content": system_prompt})
    return tokenize_chat(tokenizer, messages)


def tokenize_chat(tokenizer: Any, messages: Sequence[dict[str, str]]) -> list[int]:
    """Token ids of a conversation, up to where the model's next reply starts.

    Raises: UserError, no chat template, or one that refuses the roles.
    """
    from jinja2 import TemplateError

    if tokenizer.chat_template is None:
        raise UserError("the tokenizer has no chat template: name a file with one by `chat_template` in the model file")
    try:
        text = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
    except TemplateError as error:
        raise UserError(f"the chat template refuses this conversation ({error}): change `system_prompt`") from None
    return tokenizer(text, add_special_tokens=False).input_ids


def end_of_instruction(tokenizer: Any, system_prompt: str | None = None) -> list[int]:
    """The n template tokens after the user's text: positions -n..-1.

    Found as the longest common suffix of renderings whose instructions end differently; the shortest pair counts.
    Raises: UserError, nothing in common.
    """
    first, *others = (render(tokenizer, ending, system_prompt) for ending in _ENDINGS)
    n = min(_common_suffix(first, other) for other in [*others, others[0]])
    if n == 0:
        raise UserError("the chat template puts nothing after the instruction: there is no position to read at")
    return first[-n:]


def encode(
    tokenizer: Any, prompts: Sequence[dict], system_prompt: str | None, suffix: Sequence[int]
) -> list[list[int]]:
    """Token ids of each prompt; every one ends with the end-of-instruction tokens.

    Raises: UserError that names the prompt whose text runs into the template.
    """
    rows = [render(tokenizer, prompt["instruction"], system_prompt) for prompt in prompts]
    for prompt, row in zip(prompts, rows, strict=True):
        if row[-len(suffix) :] != list(suffix):
            raise UserError(
                f"prompt {prompt['id']}: its end merges with the chat template's tokens: reword or remove it"
            )
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


def _common_suffix(first: Sequence[int], second: Sequence[int]) -> int:
    n = 0
    while n < min(len(first), len(second)) and first[-1 - n] == second[-1 - n]:
        n += 1
    return n
