"""Ablate and add directions while the organism runs, each row of the batch its own, with gradients."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Intervention:
    """What is done to each row.

    basis: [row, k, d], orthonormal or zero rows, taken out of every write into the residual stream.
    vector: [row, d], added to resid_pre of `layer` at all positions.
    layer: [row], the layer of the addition.
    """

    basis: Tensor
    vector: Tensor
    layer: Tensor


@contextmanager
def intervene(model: nn.Module, intervention: Intervention) -> Iterator[None]:
    """Ablation x <- x - (x Q^T) Q on embedding, attention and MLP outputs; addition at the layers' inputs."""

    def ablate(_module, _inputs, output):
        if isinstance(output, tuple):
            return _without(output[0], intervention.basis), *output[1:]
        return _without(output, intervention.basis)

    def addition(layer):
        def add(_module, inputs):
            here = (intervention.layer == layer).unsqueeze(1)
            return inputs[0] + (intervention.vector * here).unsqueeze(1), *inputs[1:]

        return add

    with ExitStack() as hooks:
        decoder = model.model
        writers = [decoder.embed_tokens, *(part for layer in decoder.layers for part in (layer.self_attn, layer.mlp))]
        for module in writers:
            hooks.callback(module.register_forward_hook(ablate).remove)
        for number, layer in enumerate(decoder.layers):
            hooks.callback(layer.register_forward_pre_hook(addition(number)).remove)
        yield


def _without(x: Tensor, basis: Tensor) -> Tensor:
    return x - torch.bmm(torch.bmm(x, basis.transpose(1, 2)), basis)
