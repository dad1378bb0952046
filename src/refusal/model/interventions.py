"""What is done to the residual stream, per row of a batch: ablation of a basis, addition of a vector."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from refusal.artifacts import read_tensors
from refusal.directions import sequential_write
from refusal.model.families import Stream


@dataclass(frozen=True)
class Intervention:
    """One row's intervention; both parts may be empty.

    read, write: [k, d]: x <- x - (x read^T) write at every write into the stream.
    For an orthonormal basis Q both are Q.
    vector: [d], added to resid_pre(layer) at all positions.
    """

    read: np.ndarray
    write: np.ndarray
    vector: np.ndarray | None = None
    layer: int | None = None


def none(d: int) -> Intervention:
    """Nothing is done: the baseline."""
    return Intervention(np.zeros((0, d)), np.zeros((0, d)))


def ablation(basis: np.ndarray) -> Intervention:
    """Ablate the span of an orthonormal basis Q [k, d]."""
    return Intervention(basis, basis)


def addition(vector: np.ndarray, layer: int) -> Intervention:
    """Add a vector [d], raw length, to resid_pre(layer)."""
    empty = np.zeros((0, vector.shape[-1]))
    return Intervention(empty, empty, vector, layer)


def read_intervention(path: Path) -> Intervention:
    """The intervention that a combination's basis.safetensors holds."""
    tensors, metadata = read_tensors(path)
    if metadata["kind"] == "addition":
        return addition(tensors["vector"], metadata["layer"])
    if metadata["ablation"] == "sequential":
        return Intervention(tensors["basis"], sequential_write(tensors["basis"]))
    return ablation(tensors["basis"])


class Rows:
    """The interventions of a batch's rows, as padded tensors that hooks read.

    It changes while a batch decodes: `select` keeps the rows that go on.
    """

    def __init__(self, interventions: Sequence[Intervention]) -> None:
        width = interventions[0].read.shape[-1]
        k = max(len(one.read) for one in interventions)
        self.read = torch.zeros(len(interventions), k, width)
        self.write = torch.zeros(len(interventions), k, width)
        self.vectors: dict[int, torch.Tensor] = {}
        for row, one in enumerate(interventions):
            self.read[row, : len(one.read)] = torch.from_numpy(np.asarray(one.read, dtype=np.float32))
            self.write[row, : len(one.write)] = torch.from_numpy(np.asarray(one.write, dtype=np.float32))
            if one.vector is not None:
                added = self.vectors.setdefault(one.layer, torch.zeros(len(interventions), width))
                added[row] = torch.from_numpy(np.asarray(one.vector, dtype=np.float32))

    def select(self, rows: torch.Tensor) -> None:
        """Keep these rows, in this order."""
        self.read, self.write = self.read[rows.to(self.read.device)], self.write[rows.to(self.write.device)]
        self.vectors = {layer: added[rows.to(added.device)] for layer, added in self.vectors.items()}

    def ablate(self, x: torch.Tensor) -> torch.Tensor:
        """x [row, token, d] without its part along each row's basis; the product is fp32 whatever the model's dtype."""
        if self.read.device != x.device:
            self.read, self.write = self.read.to(x.device), self.write.to(x.device)
        along = torch.matmul(x.float(), self.read.transpose(1, 2))
        return (x - torch.matmul(along, self.write)).to(x.dtype)

    def add(self, x: torch.Tensor, layer: int) -> torch.Tensor:
        """x [row, token, d] with each row's vector of this layer added."""
        added = self.vectors[layer] = self.vectors[layer].to(x.device)
        return x + added[:, None, :].to(x.dtype)


@contextmanager
def intervene(stream: Stream, rows: Rows) -> Iterator[Rows]:
    """Within the block, every forward pass of the model does to each row what `rows` says."""

    def ablated(_module, _args, output):
        if isinstance(output, tuple):
            return (rows.ablate(output[0]), *output[1:])
        return rows.ablate(output)

    def added(layer):
        def hook(_module, args, kwargs):
            if args:
                return (rows.add(args[0], layer), *args[1:]), kwargs
            return args, kwargs | {"hidden_states": rows.add(kwargs["hidden_states"], layer)}

        return hook

    with ExitStack() as hooks:  # also undoes a half-done registration
        if rows.read.shape[1]:
            for module in stream.all_writers:
                hooks.callback(module.register_forward_hook(ablated).remove)
        for layer in rows.vectors:
            handle = stream.layers[layer].register_forward_pre_hook(added(layer), with_kwargs=True)
            hooks.callback(handle.remove)
        yield rows
