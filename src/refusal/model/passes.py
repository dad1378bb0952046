"""One forward pass over rows with their interventions; tokens that all rows share at the start are computed once."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from refusal.model.batching import left_pad
from refusal.model.interventions import Intervention, Rows, intervene
from refusal.model.keyvalues import KeyValues
from refusal.model.loading import ChatModel
from refusal.model.residuals import resumed

_SHORTEST = 4
"""Fewer shared tokens than this are not worth a pass of their own."""

_HEAD_ROWS = 16384
"""Vocabulary rows of the output weights that are widened to fp32 at a time."""


@dataclass(frozen=True)
class Start:
    """Where a pass begins: at a layer, with its resid_pre.

    prefix: [1, token, d] of the tokens that all rows share, where they do; rest: [row, token, d] of the others.
    """

    layer: int
    prefix: torch.Tensor | None
    rest: torch.Tensor


@dataclass(frozen=True)
class Pass:
    """What a forward pass leaves.

    logits: [row, kept, vocab]; cache: keys and values, where asked for; mask: [row, token], 0 for padding; positions:
    [row], of each row's last token.
    """

    logits: torch.Tensor
    cache: KeyValues | None
    mask: torch.Tensor
    positions: torch.Tensor


class Prefix:
    """The tokens that all rows share at the start (template, system prompt), computed once per intervention.

    Keys and values are kept from pass to pass for the interventions that the last one had.
    """

    def __init__(self, tokens: Sequence[int] = ()) -> None:
        self.tokens = list(tokens)
        self._held: dict[Intervention, tuple[int, KeyValues]] = {}

    def __len__(self) -> int:
        return len(self.tokens)

    def spread(
        self, chat: ChatModel, interventions: Sequence[Intervention], shift: torch.Tensor, start: Start | None
    ) -> KeyValues:
        """Keys and values of each row, moved right by shift [row], from the start's layer on."""
        layer = 0 if start is None else start.layer
        distinct = list(dict.fromkeys(interventions))
        if missing := [one for one in distinct if self._held.get(one, (layer + 1,))[0] > layer]:
            cache, ids = KeyValues(len(chat.stream.layers)), torch.tensor([self.tokens] * len(missing))
            residual = None if start is None else start.prefix.expand(len(missing), -1, -1)
            with intervene(chat.stream, Rows(missing)), _starting(chat, layer, residual):
                chat.model(
                    input_ids=ids.to(chat.device),
                    # given, since a position embedding would otherwise be one row for all
                    position_ids=torch.arange(len(self.tokens), device=chat.device).expand(len(missing), -1),
                    past_key_values=cache,
                    use_cache=True,
                    logits_to_keep=torch.arange(0),
                )
            self._held |= {one: (layer, cache.row(number)) for number, one in enumerate(missing)}
        self._held = {one: self._held[one] for one in distinct}
        number = {one: place for place, one in enumerate(distinct)}
        rows = torch.tensor([number[one] for one in interventions])
        return KeyValues.spread([cache for _, cache in self._held.values()], rows, shift, layer)


def shared_prefix(rows: Sequence[Sequence[int]], own: int = 1) -> Prefix:
    """What all rows share at the start, while each keeps `own` last tokens for itself.

    Empty where so little is shared that a pass for it is not worth it.
    """
    first, last = min(rows), max(rows)  # in the order of lists: if these two share a start, all rows do
    most = min(map(len, rows)) - own
    count = next((n for n in range(most) if first[n] != last[n]), max(most, 0))
    return Prefix(first[:count] if count >= _SHORTEST else ())


@torch.no_grad()
def forward(
    chat: ChatModel,
    ids: Sequence[Sequence[int]],
    interventions: Sequence[Intervention],
    prefix: Prefix | None = None,
    keep: int = 1,
    use_cache: bool = False,
    start: Start | None = None,
) -> Pass:
    """Run the model over rows of token ids, each under its intervention.

    The batch is padded at the left as a whole. Its first columns, as many as the prefix has tokens, hold nothing but
    padding and tokens of the prefix, whose keys and values are moved to where each row has them.

    Args:
        ids: token ids of each row.
        prefix: what all rows start with, from `shared_prefix`.
        keep: last tokens whose logits are wanted.
        use_cache: whether to leave keys and values for further tokens.
        start: at a later layer, with what was recorded there under no intervention.
    """
    shared = len(prefix) if prefix else 0
    inputs = left_pad(ids, chat.pad, chat.device, 0 if start is None else shared + start.rest.shape[1])
    mask, positions = inputs["attention_mask"], inputs["position_ids"]
    if shared:
        shift = torch.tensor([mask.shape[1] - len(row) for row in ids])
        cache = prefix.spread(chat, interventions, shift, start)
    else:
        cache = KeyValues(len(chat.stream.layers)) if use_cache else None
    layer, residual = (0, None) if start is None else (start.layer, start.rest)
    with intervene(chat.stream, Rows(interventions)), _starting(chat, layer, residual), _whole_head_input(chat.model):
        logits = chat.model(
            input_ids=inputs["input_ids"][:, shared:],
            attention_mask=mask,
            position_ids=positions[:, shared:],
            past_key_values=cache,
            use_cache=cache is not None,
            logits_to_keep=keep,
        ).logits
    return Pass(logits, cache, mask, positions[:, -1])


@contextmanager
def exact_head(model: nn.Module) -> Iterator[None]:
    """Within the block, output logits are products in fp32, also of a bf16 model, whose own have steps of 0.1 nats.

    The weights are widened a part of the vocabulary at a time; there is no second copy of them.
    """
    head = model.get_output_embeddings()
    if model.dtype == torch.float32:
        yield
        return

    def widened(module, args, _output):
        from accelerate.utils import align_module_device

        with align_module_device(module):  # weights that were put on a disk come back for this
            parts = [
                nn.functional.linear(args[0].to(weight.device).float(), weight.float())
                for weight in module.weight.split(_HEAD_ROWS)
            ]
            logits = torch.cat(parts, dim=-1)
            return logits if getattr(module, "bias", None) is None else logits + module.bias.float()

    handle = head.register_forward_hook(widened)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _whole_head_input(model: nn.Module) -> Iterator[None]:
    """Within the block, the output weights see the last tokens as one matrix.

    As a slice of all tokens, which is no block of memory, torch multiplies each row of the batch by itself.
    """
    handle = model.get_output_embeddings().register_forward_pre_hook(lambda _, args: (args[0].contiguous(),))
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _starting(chat: ChatModel, layer: int, residual: torch.Tensor | None) -> Iterator[None]:
    """At a layer with its residual, or at the embedding where there is none."""
    with ExitStack() as stack:
        if residual is not None:
            stack.enter_context(resumed(chat.stream, layer, residual))
        yield
