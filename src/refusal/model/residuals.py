"""The residual stream at the layers' inputs: recorded in a pass, and put back to start another pass at a layer."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from refusal.model.families import Stream
from refusal.model.tracing import entering, with_entering


@contextmanager
def recorded(stream: Stream, last: int | None = None) -> Iterator[list[torch.Tensor]]:
    """Yield a list that each forward pass appends to: resid_pre [row, token, d] of every layer in order.

    last: only so many last tokens; None for all.
    """
    kept: list[torch.Tensor] = []
    keep = slice(None) if last is None else slice(-last, None)

    def record(_module, args, kwargs):
        kept.append(entering(args, kwargs)[:, keep].detach())

    with ExitStack() as hooks:
        for layer in stream.layers:
            hooks.callback(layer.register_forward_pre_hook(record, with_kwargs=True).remove)
        yield kept


@contextmanager
def resumed(stream: Stream, start: int, residual: torch.Tensor) -> Iterator[None]:
    """Within the block, a forward pass computes no layer before `start`, which gets `residual` as its input.

    residual: [row, token, d], the resid_pre of that layer; rows and tokens are those of the pass.
    Pre-hooks of layers still run, so what is added to an input is added to the residual.
    """

    def enter(_module, args, kwargs):
        return with_entering(args, kwargs, residual.to(entering(args, kwargs).device))

    with ExitStack() as undo:
        for layer in stream.layers[:start]:
            undo.callback(_restore, layer, vars(layer).get("forward"))
            layer.forward = _skip_in_tuple if stream.in_tuples else _skip
        handle = stream.layers[start].register_forward_pre_hook(enter, with_kwargs=True, prepend=True)
        undo.callback(handle.remove)
        yield


def _skip(hidden_states: torch.Tensor, *_args, **_kwargs) -> torch.Tensor:
    return hidden_states


def _skip_in_tuple(hidden_states: torch.Tensor, *_args, **_kwargs) -> tuple[torch.Tensor]:
    return (hidden_states,)


def _restore(layer: nn.Module, forward) -> None:
    """A layer that accelerate dispatched has a `forward` of its own, others have their class's."""
    if forward is None:
        del layer.forward
    else:
        layer.forward = forward
