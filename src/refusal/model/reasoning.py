"""Models that reason before they answer: how each is asked for scores and for responses, and where an answer starts.

A refusal starts where the answer does. So scores and directions are read after a think block that is empty, and of a
response what was reasoned is kept apart from the answer.
"""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from refusal.errors import UserError
from refusal.model import template
from refusal.model.chat import PLAIN, Rendering, written

NO_BLOCK = "none"
"""For `think_block`: the model does not reason, whatever its template names."""


@dataclass(frozen=True)
class ThinkBlock:
    """The text around what a model reasons.

    opening, closing: how it begins and ends; what follows is the answer. empty: a block in which nothing is reasoned,
    up to where the answer starts.
    """

    opening: str
    closing: str
    empty: str


_TAGGED = (
    ThinkBlock("<think>", "</think>", "<think>\n\n</think>\n\n"),
    ThinkBlock("[THINK]", "[/THINK]", "[THINK][/THINK]"),
)
"""Tags around the reasoning. Templates of models that do not reason may name them too, to strip them."""

KNOWN = (
    *_TAGGED,
    # the harmony format of gpt-oss: messages of several channels, of which the last is the answer
    ThinkBlock(
        "<|channel|>",
        "<|channel|>final<|message|>",
        "<|channel|>analysis<|message|><|end|><|start|>assistant<|channel|>final<|message|>",
    ),
)
"""Blocks that are read off a chat template which names their closing."""

_SWITCHES = ("enable_thinking", "thinking")
"""Variables by which templates let a model reason or not."""


@dataclass(frozen=True)
class Asking:
    """How a model is asked.

    scored: for scores, directions and corpora; answered: for responses. block: of a model whose responses may hold
    reasoning, else None; opened: whether the template itself opens the block.
    """

    scored: Rendering = PLAIN
    answered: Rendering = PLAIN
    block: ThinkBlock | None = None
    opened: bool = False

    def record(self) -> dict[str, Any] | None:
        """As plain data, for model.json; None where the template is asked as it is, which leaves no key there."""
        return None if self == AS_IT_IS else asdict(self)


AS_IT_IS = Asking()
"""The template as it is, for a model that does not reason."""


def from_record(record: Mapping[str, Any] | None) -> Asking:
    """What `Asking.record` gave."""
    if record is None:
        return AS_IT_IS
    return Asking(
        scored=Rendering(**record["scored"]),
        answered=Rendering(**record["answered"]),
        block=ThinkBlock(**record["block"]) if record["block"] else None,
        opened=record["opened"],
    )


def asking(
    tokenizer: Any,
    system_prompt: str | None,
    options: Mapping[str, Any],
    thinking: bool | None,
    think_block: Mapping[str, str] | str | None,
) -> Asking:
    """How a model is to be asked, read off its chat template.

    Args:
        options: variables for the template.
        thinking: True: responses are reasoned; False: they too start after an empty think block; None: as the template
            does by itself.
        think_block: opening, closing and empty, for a template that does not name them; NO_BLOCK for none.
    Raises: UserError, options that the template does not read, `thinking` of a model that has no way to, or a template
        off which it cannot be read whether the model reasons.
    """
    template.check_options(tokenizer, options)
    natural = Rendering(options)
    block = _block(tokenizer, think_block)
    if block is None:
        if thinking is not None:
            raise UserError(
                f"thinking: {str(thinking).lower()}: the chat template names no think block: give its markers by"
                " `think_block`, or leave `thinking` out"
            )
        return Asking(natural, natural)

    def text(rendering: Rendering) -> str:
        return written(tokenizer, system_prompt, rendering)

    # a variable of that name may be the template's own affair, so it must change what is written
    read = [name for name in _SWITCHES if name in template.options(tokenizer)]
    switches = (name for name in read if len({text(Rendering({**options, name: on})) for on in (True, False)}) == 2)
    switch = next(switches, None)
    if switch in options and thinking is not None:
        raise UserError(f"template_options: {switch}: `thinking` sets it: leave one of them out")
    told = switch or think_block is not None or thinking is not None or block not in _TAGGED
    if not told and not text(natural).rstrip().endswith((block.opening, block.closing)):
        raise UserError(
            f"the chat template names {block.closing}, and neither starts a reply with it nor has a switch for it, so"
            " whether the model reasons cannot be told: set `thinking: true`, or `think_block: none` if it does not"
        )
    quiet = Rendering({**options, switch: False}) if switch else natural
    scored = Rendering(quiet.options, "" if _starts_answer(text(quiet), block, switch) else _rest(text(quiet), block))
    if thinking is False:
        return Asking(scored, scored)
    answered = Rendering({**options, switch: True}) if switch and thinking else natural
    if text(answered) == text(scored):
        if thinking:
            raise UserError(
                "thinking: true: the chat template starts the answer by itself: name a template that lets the model"
                " reason by `chat_template`, or leave `thinking` out"
            )
        return Asking(scored, scored)
    return Asking(scored, answered, block, opened=text(answered).rstrip().endswith(block.opening))


def split(tokenizer: Any, tokens: list[int], asked: Asking) -> tuple[str | None, str]:
    """What a reply reasons, and its answer.

    The end of the block is found in the text, special tokens included, wherever the tokenizer cuts it.

    Args:
        tokens: ids of the reply, without the stop token.
    Returns: reasoning, markers and the space after them included (None where there is none), and the answer, special
        tokens left out; the answer is empty where the reply ended within its reasoning.
    """
    if asked.block is None:
        return None, tokenizer.decode(tokens, skip_special_tokens=True)
    opening, closing = asked.block.opening, asked.block.closing

    def head(count: int) -> str:
        return tokenizer.decode(tokens[:count], skip_special_tokens=False)

    whole = head(len(tokens))
    if closing in whole:
        # the first token with which the closing is whole; what else is in it belongs to the answer
        count = bisect_left(range(len(tokens) + 1), True, key=lambda count: closing in head(count))
        reasoning, _, rest = head(count).partition(closing)
        after = rest + tokenizer.decode(tokens[count:], skip_special_tokens=True)
        answer = after.lstrip()
        return reasoning + closing + after[: len(after) - len(answer)], answer
    begun = whole.lstrip()
    if asked.opened or begun.startswith(opening) or (begun and opening.startswith(begun)):
        return whole, ""
    return None, tokenizer.decode(tokens, skip_special_tokens=True)


def _block(tokenizer: Any, think_block: Mapping[str, str] | str | None) -> ThinkBlock | None:
    if think_block == NO_BLOCK:
        return None
    if think_block is not None:
        return ThinkBlock(**think_block)
    text = template.source(tokenizer)
    return next((block for block in KNOWN if block.closing in text), None)


def _starts_answer(text: str, block: ThinkBlock, switch: str | None) -> bool:
    """Whether the answer starts where a rendering ends.

    It does after a block that is closed, and where a template whose switch is off leaves the block out.
    """
    end = text.rstrip()
    return end.endswith(block.closing) or (switch is not None and not end.endswith(block.opening))


def _rest(text: str, block: ThinkBlock) -> str:
    """What of an empty block is still to be written after a text that may have begun it."""
    begun = max(length for length in range(len(block.empty) + 1) if text.endswith(block.empty[:length]))
    return block.empty[begun:]
