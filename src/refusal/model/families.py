"""Which modules write into the residual stream, found by their role in the layer, and checked by a sum."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import nn

from refusal.errors import UserError

_ATTENTION = ("self_attn", "attn", "attention", "self_attention")
_MLP = ("mlp", "feed_forward", "block_sparse_moe", "ffn")
_POST_ATTENTION = "post_attention_layernorm"
_POST_MLP = "post_feedforward_layernorm"


@dataclass(frozen=True)
class Stream:
    """The residual stream of a model.

    embedding: writes first; layers: decoder layers in order; writers: per layer, the modules whose outputs are added to
    the stream (attention, mlp; or the norms after them, where the family has those).
    """

    embedding: nn.Module
    layers: tuple[nn.Module, ...]
    writers: tuple[tuple[nn.Module, ...], ...]

    @property
    def device(self) -> torch.device:
        """Where token ids go; of weights that accelerate keeps elsewhere, where they are computed with."""
        placed = getattr(getattr(self.embedding, "_hf_hook", None), "execution_device", None)
        return torch.device(placed) if placed is not None else self.embedding.weight.device

    @property
    def all_writers(self) -> tuple[nn.Module, ...]:
        """Every module whose output goes into the stream, in order."""
        return (self.embedding, *(module for layer in self.writers for module in layer))


def find_stream(model: nn.Module) -> Stream:
    """Find the modules of a causal language model from transformers.

    Raises: UserError that says which module could not be placed.
    """
    name = type(model).__name__
    count = model.config.get_text_config().num_hidden_layers
    stacks = [
        (path, module)
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count and _child(module[0], _ATTENTION) is not None
    ]
    if not stacks:
        raise UserError(f"{name}: no list of {count} decoder layers with an attention was found: unsupported family")
    path, layers = stacks[0]
    writers = []
    for number, layer in enumerate(layers):
        attention, mlp = _child(layer, _ATTENTION), _child(layer, _MLP)
        if mlp is None:
            raise UserError(f"{name}: {path}.{number} has no mlp named {', '.join(_MLP)}: unsupported family")
        if hasattr(layer, _POST_MLP):
            # Gemma 2 and 3, OLMo 2: what a norm after the block gives is added to the stream, not the block's output
            writers.append((getattr(layer, _POST_ATTENTION), getattr(layer, _POST_MLP)))
        else:
            writers.append((attention, mlp))
    return Stream(model.get_input_embeddings(), tuple(layers), tuple(writers))


@torch.no_grad()
def check_stream(model: nn.Module, stream: Stream, token_ids: Sequence[int]) -> None:
    """Check on one short input that the stream is the embedding plus the writers' outputs, and nothing else.

    Raises: UserError that names the layer where the sum does not hold, so that no ablation is silently partial.
    """
    name = type(model).__name__
    before: dict[int, torch.Tensor] = {}
    after: dict[int, torch.Tensor] = {}
    written: dict[int, list[torch.Tensor]] = {number: [] for number in range(-1, len(stream.layers))}

    def keep(number):
        def hook(_module, args, kwargs, output):
            before[number] = args[0] if args else kwargs["hidden_states"]
            after[number] = first(output)

        return hook

    def collect(number):
        return lambda _module, _args, output: written[number].append(first(output))

    with ExitStack() as hooks:
        hooks.callback(stream.embedding.register_forward_hook(collect(-1)).remove)
        for number, layer in enumerate(stream.layers):
            hooks.callback(layer.register_forward_hook(keep(number), with_kwargs=True).remove)
            for writer in stream.writers[number]:
                hooks.callback(writer.register_forward_hook(collect(number)).remove)
        model(torch.tensor([list(token_ids)], device=stream.device), use_cache=False)
    # rounding of each addition: bf16 keeps 8 bits
    tolerance = 1e-4 if model.dtype == torch.float32 else 2e-2
    embedded = written[-1][0].double()
    entered = before[0].double().to(embedded.device)
    # some families scale the embedding; position embeddings and norms are no multiple of it
    expected = embedded * ((embedded * entered).sum() / embedded.square().sum())
    for number in range(len(stream.layers)):
        gap = _gap(before[number], expected)
        if not gap < tolerance:
            raise UserError(
                f"{name}: layer {number}: something besides the embedding and the layers before writes into its input"
                f" (relative gap {gap:.2g}): unsupported family"
            )
        gap = _gap(
            after[number],
            sum((part.double().to(before[number].device) for part in written[number]), start=before[number].double()),
        )
        if not gap < tolerance:
            raise UserError(
                f"{name}: layer {number}: its attention and mlp do not add up to what it writes"
                f" (relative gap {gap:.2g}): unsupported family"
            )
        expected = after[number].double()


def _gap(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference of a token, as a share of its norm: a token with massive activations hides no other."""
    found = found.double()
    return float(((found - expected.to(found.device)).norm(dim=-1) / found.norm(dim=-1)).max())


def first(output):
    """The hidden states of a module's output, which may be a tuple that starts with them."""
    return output[0] if isinstance(output, tuple) else output


def _child(layer: nn.Module, names: Sequence[str]) -> nn.Module | None:
    return next((getattr(layer, name) for name in names if isinstance(getattr(layer, name, None), nn.Module)), None)
