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

    prefix: [1, token, d] of the shared tokens; rest: [row, token, d] of the others.
    """

    layer: int
    prefix: torch.Tensor
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


def shared_prefix(rows: Sequence[Sequence[int]], own: int = 1) -> int:
    """Leading tokens that all rows share (template, system prompt), while each keeps `own` last tokens for itself.

    0 where so few are shared that a pass for them is not worth it.
    """
    shortest, longest = min(rows), max(rows)  # in the order of lists: if these two share a start, all rows do
    most = min(map(len, rows)) - own
    count = next((n for n in range(most) if shortest[n] != longest[n]), max(most, 0))
    return count if count >= _SHORTEST else 0


@torch.no_grad()
def forward(
    chat: ChatModel,
    ids: Sequence[Sequence[int]],
    interventions: Sequence[Intervention],
    shared: int = 0,
    keep: int = 1,
    use_cache: bool = False,
    start: Start | None = None,
) -> Pass:
    """Run the model over rows of token ids, each under its intervention.

    The batch is padded at the left as a whole. Its first `shared` columns hold nothing but padding and shared tokens,
    whose keys and values are computed once per distinct intervention and moved to where each row has them.

    Args:
        ids: token ids of each row.
        shared: leading tokens that all rows have in common, from `shared_prefix`.
        keep: last tokens whose logits are wanted.
        use_cache: whether to leave keys and values for further tokens.
        start: at a later layer, with what was recorded there under no intervention.
    """
    width = 0 if start is None else shared + start.rest.shape[1]
    inputs = left_pad(ids, chat.pad, chat.device, width)
    mask, positions = inputs["attention_mask"], inputs["position_ids"]
    cache = KeyValues(len(chat.stream.layers)) if use_cache or shared else None
    if shared:
        distinct = list(dict.fromkeys(interventions))
        number = {one: place for place, one in enumerate(distinct)}
        prefix = torch.tensor([list(ids[0][:shared])] * len(distinct), device=chat.device)
        with intervene(chat.stream, Rows(distinct)), _starting(chat, start, len(distinct)):
            chat.model(input_ids=prefix, past_key_values=cache, use_cache=True, logits_to_keep=1)
        rows = torch.tensor([number[one] for one in interventions])
        cache = cache.spread(rows, torch.tensor([mask.shape[1] - len(row) for row in ids]))
    with intervene(chat.stream, Rows(interventions)), _starting(chat, start), _whole_head_input(chat.model):
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
def _starting(chat: ChatModel, start: Start | None, prefixes: int | None = None) -> Iterator[None]:
    """At the layer of `start`, with the residual of the prefix (once per distinct row) or of the rest."""
    with ExitStack() as stack:
        if start is not None:
            residual = start.rest if prefixes is None else start.prefix.expand(prefixes, -1, -1)
            stack.enter_context(resumed(chat.stream.layers, start.layer, residual))
        yield
