"""What is done to the residual stream, per row of a batch: ablation of a basis, addition of a vector."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from refusal.artifacts import read_tensors
from refusal.directions import sequential_write, unit
from refusal.errors import UserError
from refusal.model.families import Stream
from refusal.model.tracing import entering, first, with_entering, with_first

Places = Literal["writes", "published"]
"""Where a projection acts: on every write into the stream; or where the published hooks are, on each layer's input and
on the outputs of attention and mlp (before a norm that follows them)."""


@dataclass(frozen=True, eq=False)
class Intervention:
    """One row's intervention; both parts may be empty. Rows with the same object share what is computed once.

    read, write: [k, d]: x <- x - (x read^T) write. For an orthonormal basis Q both are Q.
    vector: [d], added to resid_pre(layer) at all positions.
    places: where the projection acts.
    """

    read: np.ndarray
    write: np.ndarray
    vector: np.ndarray | None = None
    layer: int | None = None
    places: Places = "writes"


def none(d: int) -> Intervention:
    """Nothing is done: the baseline."""
    return Intervention(np.zeros((0, d)), np.zeros((0, d)))


def ablation(basis: np.ndarray) -> Intervention:
    """Ablate the span of an orthonormal basis Q [k, d]."""
    return Intervention(basis, basis)


def sequential(directions: np.ndarray) -> Intervention:
    """Project out directions [k, d] one after another, as hooks of the published scripts do that are stacked.

    Unit vectors in the order given, not made orthogonal. The hooks act on each layer's input as well as on what is
    written, so the product of projections is repeated from layer to layer.
    Source: direction ablation hooks of andyrdt/refusal_direction, a set of them for each direction.
    """
    units = unit(directions)
    return Intervention(units, sequential_write(units), places="published")


def addition(vector: np.ndarray, layer: int) -> Intervention:
    """Add a vector [d], raw length, to resid_pre(layer)."""
    empty = np.zeros((0, vector.shape[-1]))
    return Intervention(empty, empty, vector, layer)


def read_intervention(path: Path) -> Intervention:
    """The intervention that a combination's basis.safetensors holds."""
    return from_tensors(*read_tensors(path))


def from_tensors(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> Intervention:
    """The same of tensors that no file holds (`refusal.bases.Ranked.tensors`)."""
    if metadata["kind"] == "addition":
        return addition(tensors["vector"], metadata["layer"])
    if metadata["ablation"] == "sequential":
        return sequential(tensors["basis"])
    return ablation(tensors["basis"])


class Rows:
    """The interventions of a batch's rows, as padded tensors that hooks read, on each layer's own device."""

    def __init__(self, interventions: Sequence[Intervention]) -> None:
        distinct = list(dict.fromkeys(interventions))
        number = {one: place for place, one in enumerate(distinct)}
        which = torch.tensor([number[one] for one in interventions])
        self.projections = {
            places: _Projection(distinct, places, which)
            for places in dict.fromkeys(one.places for one in distinct if len(one.read))
        }
        self.vectors: dict[int, _Placed] = {}
        for layer in {one.layer for one in distinct if one.vector is not None}:
            added = [one.vector if one.layer == layer else np.zeros(one.read.shape[-1]) for one in distinct]
            self.vectors[layer] = _Placed(torch.from_numpy(np.stack(added)), which)

    def ablate(self, x: torch.Tensor, places: Places = "writes") -> torch.Tensor:
        """x [row, token, d] without its part along each row's basis; x of one row stands for all.

        The product is fp32 or better, whatever the model's dtype.
        """
        return self.projections[places](x)

    def add(self, x: torch.Tensor, layer: int) -> torch.Tensor:
        """x [row, token, d] with each row's vector of this layer added."""
        return x + self.vectors[layer].like(x, x.dtype)[:, None, :]


class _Projection:
    """x <- x - (x read^T) write for each row; rows whose projection acts elsewhere have none here."""

    def __init__(self, distinct: Sequence[Intervention], places: Places, which: torch.Tensor) -> None:
        here = [one.places == places for one in distinct]
        k = max(len(one.read) for one, acts in zip(distinct, here, strict=True) if acts)
        read, write = (
            [getattr(one, name) if acts else getattr(one, name)[:0] for one, acts in zip(distinct, here, strict=True)]
            for name in ("read", "write")
        )
        self._read = _Placed(_padded(read, k), which)
        # an orthonormal basis is read and written by one tensor
        same = all(one.read is one.write for one, acts in zip(distinct, here, strict=True) if acts)
        self._write = self._read if same else _Placed(_padded(write, k), which)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        exact = torch.promote_types(x.dtype, torch.float32)
        read, write = self._read.like(x, exact), self._write.like(x, exact)
        # some experts hand on the tokens of all rows as one list
        wide = x.to(exact).expand(len(read), -1, -1) if x.dim() == 3 else x.to(exact).unflatten(0, (len(read), -1))
        along = torch.bmm(wide, read.transpose(1, 2))
        found = torch.baddbmm(wide, along, write, alpha=-1).to(x.dtype)
        return found if x.dim() == 3 else found.flatten(0, 1)


class _Placed:
    """A tensor's rows, spread over those of a batch where and as they are asked for; kept there."""

    def __init__(self, tensor: torch.Tensor, which: torch.Tensor) -> None:
        self._tensor, self._which = tensor, which
        self._copies: dict[tuple[torch.device, torch.dtype], torch.Tensor] = {}

    def like(self, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """For each row of the batch, on the device of x, in a dtype."""
        if (x.device, dtype) not in self._copies:
            self._copies[x.device, dtype] = self._tensor.to(x.device, dtype)[self._which.to(x.device)]
        return self._copies[x.device, dtype]


def _padded(parts: Sequence[np.ndarray], k: int) -> torch.Tensor:
    """[len(parts), k, d] fp64, rows that are missing zero."""
    made = torch.zeros(len(parts), k, parts[0].shape[-1], dtype=torch.float64)
    for number, part in enumerate(parts):
        made[number, : len(part)] = torch.from_numpy(np.asarray(part, dtype=np.float64))
    return made


@contextmanager
def intervene(stream: Stream, rows: Rows) -> Iterator[Rows]:
    """Within the block, every forward pass of the model does to each row what `rows` says.

    Raises: UserError, places of the published hooks that were not found.
    """
    if "published" in rows.projections and not stream.blocks:
        raise UserError(
            "`ablation: sequential` acts on attention and mlp before the norms that follow them, which were not found"
            " in this model: use `ablation: span`"
        )

    def ablated(places):
        return lambda _module, _args, output: with_first(output, rows.ablate(first(output), places))

    def changed(change):
        return lambda _module, args, kwargs: with_entering(args, kwargs, change(entering(args, kwargs)))

    with ExitStack() as hooks:  # also undoes a half-done registration

        def before(layer, change):
            handle = layer.register_forward_pre_hook(changed(change), with_kwargs=True)
            hooks.callback(handle.remove)

        def after(module, places):
            hooks.callback(module.register_forward_hook(ablated(places)).remove)

        if "writes" in rows.projections:
            for module in stream.all_writers:
                after(module, "writes")
        if "published" in rows.projections:
            for layer, blocks in zip(stream.layers, stream.blocks, strict=True):
                before(layer, lambda x: rows.ablate(x, "published"))
                for module in blocks:
                    after(module, "published")
        for layer in rows.vectors:
            before(stream.layers[layer], lambda x, layer=layer: rows.add(x, layer))
        yield rows
