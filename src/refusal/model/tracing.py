"""Of which modules' outputs an activation is the sum: read off autograd's graph of one forward pass.

Roles are found by what is computed, so neither names nor shapes of modules matter.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.autograd.graph import Node, saved_tensors_hooks

_SAME = ("View", "UnsafeView", "ReshapeAlias", "Alias", "Clone", "ToCopy", "Squeeze", "Unsqueeze", "Expand")
"""Operations that hand on the numbers they are given, in another shape, dtype or place."""

_ADDITIONS = ("Add", "Sub")
_SCALINGS = ("Mul", "Div")


class UntraceableError(Exception):
    """Some part of a sum is no module's output; the message is the operation that gave it instead."""


@dataclass(frozen=True)
class Trace:
    """Where each module stands in the graph of a forward pass.

    received: module -> node of the hidden states it was given; returned: module -> node of those it gave;
    makers: node -> modules that gave it, in the order in which they finished, so inner ones first.
    """

    received: dict[nn.Module, Node] = field(default_factory=dict)
    returned: dict[nn.Module, Node] = field(default_factory=dict)
    makers: dict[Node, list[nn.Module]] = field(default_factory=dict)

    def passes_on(self, start: Node, end: Node) -> bool:
        """Whether `end` is `start`, but for shape, dtype and place."""
        while end is not start and _is(end, _SAME):
            end = _inputs(end)[0]
        return end is start

    def summands(self, end: Node, start: Node | None, within: nn.Module) -> list[nn.Module]:
        """The modules inside `within` whose outputs, possibly scaled by a number, are added to `start` to give `end`.

        start: None where nothing was there before (the embedding). Of modules that give the same, the outermost one.
        Raises: UntraceableError, some part is no output of a module that has weights, or `start` is not in the sum.
        """
        inside = set(within.modules()) - {within}
        carried: dict[Node, bool] = {}

        def carries(node: Node) -> bool:
            if node is start:
                return True
            if node not in carried:
                carried[node] = any(carries(part) for part in _parts(node))
            return carried[node]

        def expand(node: Node) -> Iterator[nn.Module]:
            if node is start:
                return
            if not carries(node) and (maker := self._maker(node, inside)) is not None:
                yield maker
                return
            parts = _parts(node)
            if not parts:
                raise UntraceableError(node.name())
            for part in parts:
                yield from expand(part)

        if start is not None and not carries(end):
            raise UntraceableError("its input does not come through as it is")
        return list(expand(end))

    def _maker(self, node: Node, inside: set[nn.Module]) -> nn.Module | None:
        """The outermost module that gave this node, of those that hold the innermost one; none without weights."""
        makers = [one for one in self.makers.get(node, ()) if one in inside and any(True for _ in one.parameters())]
        if not makers:
            return None
        innermost = makers[0]
        return [one for one in makers if any(part is innermost for part in one.modules())][-1]


def trace(model: nn.Module, token_ids: Sequence[int], device: torch.device) -> Trace:
    """Run the model once over one short row and note every module's place in the graph. No backward pass is run."""
    found = Trace()

    def given(module: nn.Module, args: tuple, kwargs: Mapping) -> None:
        hidden = next((one for one in (*args, *kwargs.values()) if _is_hidden(one)), None)
        if hidden is not None and hidden.grad_fn is not None:
            found.received.setdefault(module, hidden.grad_fn)

    def gave(module: nn.Module, _args: tuple, output):
        hidden = first(output)
        if not _is_hidden(hidden):
            return None
        changed = None
        if hidden.grad_fn is None:  # an embedding, whose weights are frozen: the graph begins here
            with torch.enable_grad():  # some are called where their caller has switched it off
                hidden = hidden.detach().requires_grad_().clone()
            changed = with_first(output, hidden)
        found.returned.setdefault(module, hidden.grad_fn)
        found.makers.setdefault(hidden.grad_fn, []).append(module)
        return changed

    with ExitStack() as stack:
        for module in model.modules():
            stack.callback(module.register_forward_pre_hook(given, with_kwargs=True).remove)
            stack.callback(module.register_forward_hook(gave).remove)
        # the graph would hold every weight that is used, also those that accelerate brings in for one layer
        stack.enter_context(saved_tensors_hooks(lambda saved: saved if saved.numel() == 1 else None, _unpacked))
        stack.enter_context(torch.enable_grad())
        model(torch.tensor([list(token_ids)], device=device), use_cache=False)
    return found


def first(output):
    """The hidden states of a module's output, which may be a tuple that starts with them."""
    return output[0] if isinstance(output, tuple) else output


def with_first(output, hidden: torch.Tensor):
    """The output with other hidden states."""
    return (hidden, *output[1:]) if isinstance(output, tuple) else hidden


def entering(args: tuple, kwargs: Mapping) -> torch.Tensor:
    """The hidden states that a decoder layer is called with, by place or by name."""
    return args[0] if args else kwargs["hidden_states"]


def with_entering(args: tuple, kwargs: Mapping, hidden: torch.Tensor) -> tuple[tuple, Mapping]:
    """The call with other hidden states."""
    return ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})


def _is_hidden(value) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _parts(node: Node) -> list[Node]:
    """What a node is a sum of, or a number times, or the same as; none where it is something else."""
    inputs = _inputs(node)
    if _is(node, _ADDITIONS) or (_is(node, _SAME) and inputs):
        return inputs
    if _is(node, _SCALINGS) and len(inputs) == 1:
        factors = [getattr(node, name, None) for name in ("_saved_self", "_saved_other")]
        if any(factor is not None and factor.numel() == 1 for factor in factors):
            return inputs
    return []


def _inputs(node: Node) -> list[Node]:
    return [inner for inner, _ in node.next_functions if inner is not None]


def _is(node: Node, kinds: Sequence[str]) -> bool:
    return node.name().rstrip("0123456789").removesuffix("Backward") in kinds


def _unpacked(saved: torch.Tensor | None) -> torch.Tensor:
    return torch.empty(0) if saved is None else saved
