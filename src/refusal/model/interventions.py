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


@dataclass(frozen=True, eq=False)
class Intervention:
    """One row's intervention; both parts may be empty. Rows with the same object share what is computed once.

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
    """The interventions of a batch's rows, as padded tensors that hooks read, on each layer's own device."""

    def __init__(self, interventions: Sequence[Intervention]) -> None:
        distinct = list(dict.fromkeys(interventions))
        number = {one: place for place, one in enumerate(distinct)}
        self._which = torch.tensor([number[one] for one in interventions])
        k = max(len(one.read) for one in distinct)
        # an orthonormal basis is read and written by one tensor
        self._same = all(one.read is one.write for one in distinct)
        self.bases = _padded([one.read for one in distinct], k)[self._which] if k else None
        self._write = None if self._same or not k else _padded([one.write for one in distinct], k)[self._which]
        self.vectors: dict[int, torch.Tensor] = {}
        for layer in {one.layer for one in distinct if one.vector is not None}:
            added = [one.vector if one.layer == layer else np.zeros(one.read.shape[-1]) for one in distinct]
            self.vectors[layer] = torch.from_numpy(np.stack(added).astype(np.float32))[self._which]
        self._placed: dict[tuple[str, torch.device], torch.Tensor] = {}

    def ablate(self, x: torch.Tensor) -> torch.Tensor:
        """x [row, token, d] without its part along each row's basis; the product is fp32 whatever the model's dtype."""
        read = self._on(x.device, "read", self.bases)
        write = read if self._same else self._on(x.device, "write", self._write)
        wide = x.float()
        along = torch.bmm(wide, read.transpose(1, 2))
        return torch.baddbmm(wide, along, write, alpha=-1).to(x.dtype)

    def add(self, x: torch.Tensor, layer: int) -> torch.Tensor:
        """x [row, token, d] with each row's vector of this layer added."""
        return x + self._on(x.device, f"vector {layer}", self.vectors[layer])[:, None, :].to(x.dtype)

    def _on(self, device: torch.device, name: str, tensor: torch.Tensor) -> torch.Tensor:
        if (name, device) not in self._placed:
            self._placed[name, device] = tensor.to(device)
        return self._placed[name, device]


def _padded(parts: Sequence[np.ndarray], k: int) -> torch.Tensor:
    """[len(parts), k, d] fp32, rows that are missing zero."""
    made = torch.zeros(len(parts), k, parts[0].shape[-1])
    for number, part in enumerate(parts):
        made[number, : len(part)] = torch.from_numpy(np.asarray(part, dtype=np.float32))
    return made


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
        if rows.bases is not None:
            for module in stream.all_writers:
                hooks.callback(module.register_forward_hook(ablated).remove)
        for layer in rows.vectors:
            handle = stream.layers[layer].register_forward_pre_hook(added(layer), with_kwargs=True)
            hooks.callback(handle.remove)
        yield rows
