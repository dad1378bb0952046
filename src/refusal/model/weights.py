"""Ablation as projected weights: equal to the hooks, if what writes into the stream cannot write along a basis.

For verification only: a projected model stays in memory and is never saved.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from refusal.errors import UserError
from refusal.model.families import Stream
from refusal.model.interventions import Rows, ablation, intervene
from refusal.model.tracing import entering, first, with_first

_INSIDE = 1e-2
"""A change of the output counts as one along the basis if less than this share of it lies elsewhere."""

_PROBE_ROWS, _PROBE_TOKENS = 4, 64
"""Enough tokens that every expert of a mixture gets some."""


@dataclass(frozen=True)
class Agreement:
    """Ablation by hooks beside ablation by weights, on the same rows.

    difference: largest |difference| of their logits; effect: largest |difference| that ablation makes; leftover:
    largest |cosine| of the stream, at any layer's input or behind the last, to a direction of the basis; matrices:
    paths of writers that needed a matrix of their own behind them (norms: their weight is a diagonal, which no
    projection leaves one).
    """

    difference: float
    effect: float
    leftover: float
    matrices: tuple[str, ...]


class Projected(nn.Module):
    """A module, then the projection as one more matrix of weights: diag(w) (I - Q^T Q) behind a norm's weight w."""

    def __init__(self, inner: nn.Module, projection: torch.Tensor) -> None:
        super().__init__()
        self.inner = inner
        self.matrix = nn.Parameter(projection, requires_grad=False)

    def forward(self, *args, **kwargs):
        output = self.inner(*args, **kwargs)
        return with_first(output, first(output) @ self.matrix)


@torch.no_grad()
def agreement(model: nn.Module, stream: Stream, basis: np.ndarray, rows: Sequence[Sequence[int]]) -> Agreement:
    """Ablate by hooks, then by weights, and compare, in fp64. The model is changed: its dtype and its weights.

    Args:
        basis: orthonormal Q [k, d].
        rows: token ids of prompts, of any lengths.
    Source: arXiv:2406.11717, section 4.1 and appendix E (weight orthogonalization is equal to ablation).
    """
    model.double()
    model.set_experts_implementation("eager")  # the grouped products of experts know no fp64

    def logits() -> list[torch.Tensor]:
        # a row at a time: with nothing padded there is nothing else that could differ
        return [model(torch.tensor([list(row)], device=stream.device), use_cache=False).logits for row in rows]

    plain = logits()
    with intervene(stream, Rows([ablation(basis)])):
        hooked = logits()
    matrices = project_weights(model, stream, basis)
    units, seen = torch.from_numpy(np.asarray(basis)).to(stream.device), [0.0]

    def look(hidden):
        cosines = hidden @ units.T.to(hidden.device) / hidden.norm(dim=-1, keepdim=True).clamp(min=1e-30)
        seen.append(float(cosines.abs().max()))

    with ExitStack() as hooks:
        for layer in stream.layers:
            before = layer.register_forward_pre_hook(
                lambda _, args, kwargs: look(entering(args, kwargs)), with_kwargs=True
            )
            hooks.callback(before.remove)
        hooks.callback(stream.layers[-1].register_forward_hook(lambda _, args, output: look(first(output))).remove)
        projected = logits()
    return Agreement(_largest(hooked, projected), _largest(hooked, plain), max(seen), tuple(matrices))


@torch.no_grad()
def project_weights(model: nn.Module, stream: Stream, basis: np.ndarray) -> list[str]:
    """Change every writer's weights, and biases, so that it writes nothing along the basis.

    Which weights those are is found by what they do, not by name: projecting one along one of its axes changes the
    writer's output along the basis and nowhere else just if that axis is what the weight writes along.
    Returns: paths of the writers that got a matrix behind them.
    Raises: UserError, experts that no probe token reaches.
    """
    Q = torch.from_numpy(np.asarray(basis)).to(stream.device)
    vocabulary = model.get_input_embeddings().weight.shape[0]
    generator = torch.Generator().manual_seed(0)
    probe = torch.randint(vocabulary, (_PROBE_ROWS, _PROBE_TOKENS), generator=generator)
    calls: dict[nn.Module, tuple[tuple, dict]] = {}
    with ExitStack() as hooks:
        for writer in stream.all_writers:
            hooks.callback(
                writer.register_forward_pre_hook(
                    lambda module, args, kwargs: calls.setdefault(module, _kept(args, kwargs)), with_kwargs=True
                ).remove
            )
        model(probe.to(stream.device), use_cache=False)
    path = {module: where for where, module in model.named_modules()}
    behind = []
    for writer in stream.all_writers:
        args, kwargs = calls[writer]
        before = first(writer(*args, **kwargs))
        _project_inside(writer, path[writer], Q, before, lambda w=writer, a=args, k=kwargs: first(w(*a, **k)))
        along = first(writer(*args, **kwargs)).to(Q.dtype) @ Q.T
        if float(along.norm()) > _INSIDE * float((before.to(Q.dtype) @ Q.T).norm()):
            identity = torch.eye(Q.shape[1], dtype=Q.dtype, device=Q.device)
            parent, _, name = path[writer].rpartition(".")
            setattr(model.get_submodule(parent), name, Projected(writer, (identity - Q.T @ Q).to(before)))
            behind.append(path[writer])
    return behind


def _project_inside(writer: nn.Module, where: str, Q: torch.Tensor, before: torch.Tensor, run) -> None:
    """Replace those weights of a writer, along those axes, that its output is written along."""
    for owner_path, owner in list(writer.named_modules()):
        for name, weight in list(owner.named_parameters(recurse=False)):
            for axis in (axis for axis, size in enumerate(weight.shape) if size == Q.shape[1]):
                projected = _without(weight, Q, axis)
                if torch.equal(projected, weight):
                    continue  # a bias of zeros
                _set(owner, name, projected)
                after = run()
                change = (after - before).to(Q.dtype)
                size = float(change.norm())
                if size == 0:
                    weight_path = ".".join(filter(None, (where, owner_path, name)))
                    raise UserError(
                        f"{weight_path}: no token of the probe reaches it, so what it writes along cannot be told: the"
                        " comparison needs a model all of whose experts are used"
                    )
                if float((change - change @ Q.T @ Q).norm()) < _INSIDE * size:
                    before, weight = after, projected
                else:
                    _set(owner, name, weight)


def _set(owner: nn.Module, name: str, weight: torch.Tensor) -> None:
    """A parameter of its own: a tied one stays as it is elsewhere."""
    owner._parameters[name] = nn.Parameter(weight, requires_grad=False)


def _without(weight: torch.Tensor, Q: torch.Tensor, axis: int) -> torch.Tensor:
    moved = weight.detach().movedim(axis, -1).to(Q.dtype)
    return (moved - moved @ Q.T @ Q).movedim(-1, axis).to(weight.dtype).contiguous()


def _kept(args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """Copies: some layers write into what they were given."""

    def copied(value):
        return value.clone() if isinstance(value, torch.Tensor) else value

    return tuple(map(copied, args)), {name: copied(value) for name, value in kwargs.items()}


def _largest(ours: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor]) -> float:
    return max(float((one - other).abs().max()) for one, other in zip(ours, theirs, strict=True))
