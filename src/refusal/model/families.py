"""Which modules write into the residual stream: found by what is added to it or placed by hand, checked by a sum."""

import inspect
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from refusal.errors import UserError
from refusal.model.tracing import Trace, UntraceableError, entering, first, trace

_ASKED = ("attention_mask", "position_ids", "past_key_values", "logits_to_keep")
"""What every pass of the engine hands to a model."""

_NOTHING = 1e-30
"""A length below which a token is nothing."""

_ADDED = 1e-2
"""The number that a writer's output is added by, below which it is not added; families scale by 0.1 and more."""


@dataclass(frozen=True)
class Stream:
    """The residual stream of a model.

    embedding: of tokens. entry: modules whose outputs add up to resid_pre(0), the embedding and what joins it (learned
    positions), or a norm after it. layers: decoder layers in order. writers: per layer, the modules whose outputs are
    added to the stream (attention, mlp; or the norms after them, where the family has those). blocks: the same without
    such norms, where the published scripts act; empty where they were not found. in_tuples: whether layers return the
    stream in a tuple.
    """

    embedding: nn.Module
    entry: tuple[nn.Module, ...]
    layers: tuple[nn.Module, ...]
    writers: tuple[tuple[nn.Module, ...], ...]
    blocks: tuple[tuple[nn.Module, ...], ...]
    in_tuples: bool = False

    @property
    def device(self) -> torch.device:
        """Where token ids go."""
        return _device(self.embedding)

    @property
    def all_writers(self) -> tuple[nn.Module, ...]:
        """Every module whose output goes into the stream, in order."""
        return (*self.entry, *(module for layer in self.writers for module in layer))


def find_stream(model: nn.Module, token_ids: Sequence[int], placed: Mapping[str, Any] | None = None) -> Stream:
    """Find the modules of a causal language model from transformers, by one traced pass, and check them by another.

    Args:
        token_ids: a short input.
        placed: `layers` (a path), `writers` (names within a layer), `embedding` (paths): those placed by hand, by the
            key `modules` of the model file.
    Raises: UserError that says which module could not be placed, and which key places it.
    """
    _refuse_unfit(model)
    placed = placed or {}
    embedding = model.get_input_embeddings()
    traced = _traced(model, token_ids, _device(embedding), all_placed={"layers", "writers", "embedding"} <= set(placed))
    path, layers = _layers(model, traced, placed.get("layers"))
    if "embedding" in placed:
        entry = tuple(_at(model, one, f"modules.embedding: {one}", type(model).__name__) for one in placed["embedding"])
    else:
        entry = _entry(model, traced, layers[0])
    writers = tuple(
        tuple(_at(layer, one, f"modules.writers: {one}", f"{path}.{number}") for one in placed["writers"])
        if "writers" in placed
        else _writers(model, traced, layer, f"{path}.{number}")
        for number, layer in enumerate(layers)
    )
    blocks = tuple(
        tuple(_block(traced, writer, layer) for writer in inside) for layer, inside in zip(layers, writers, strict=True)
    )
    if any(block is None for inside in blocks for block in inside):
        blocks = ()
    found = Stream(embedding, entry, layers, writers, blocks)
    return replace(found, in_tuples=check_stream(model, found, token_ids))


def check_stream(model: nn.Module, stream: Stream, token_ids: Sequence[int]) -> bool:
    """Check on one short input that the stream is the sum of the writers' outputs, each times a number of its own.

    A number: some families scale the embedding or what a layer adds. A norm's output is no multiple of its input.
    Returns: whether layers return the stream in a tuple.
    Raises: UserError that names the layer where the sum does not hold, or the module that is not part of it, so that
        no ablation is silently partial or acts on something else.
    """
    name = type(model).__name__
    seen = _observe(model, stream, token_ids)
    # rounding of each addition: bf16 keeps 8 bits
    tolerance = 1e-4 if model.dtype in (torch.float32, torch.float64) else 2e-2
    if idle := [number for number in range(len(stream.layers)) if number not in seen.left]:
        raise UserError(f"{name}: layer {idle[0]} is not run: correct `modules.layers` in the model file")
    for number, writers in enumerate(stream.writers):
        entered, left = seen.entered[number], seen.left[number]
        if number == 0:
            gap, key, what = _misfit(model, seen, stream.entry, [], entered, tolerance), "embedding", "the embedding"
        else:
            gap, key, what = _fit([seen.left[number - 1]], entered)[1], "layers", "the layers before"
        if not gap < tolerance:
            raise UserError(
                f"{name}: layer {number}: something besides {what} writes into its input (relative gap {gap:.2g}): name"
                f" the modules by `modules.{key}` in the model file"
            )
        gap = _misfit(model, seen, writers, [entered], left, tolerance)
        if not gap < tolerance:
            raise UserError(
                f"{name}: layer {number}: its writers do not add up to what it writes (relative gap {gap:.2g}):"
                " correct `modules.writers` in the model file"
            )
    return all(seen.tuples)


@dataclass(frozen=True)
class _Seen:
    """One pass: what entered and left each layer, what each writer gave, and which layers return tuples."""

    entered: dict[int, torch.Tensor] = field(default_factory=dict)
    left: dict[int, torch.Tensor] = field(default_factory=dict)
    written: dict[nn.Module, torch.Tensor] = field(default_factory=dict)
    tuples: list[bool] = field(default_factory=list)


@torch.no_grad()
def _observe(model: nn.Module, stream: Stream, token_ids: Sequence[int]) -> _Seen:
    seen = _Seen()

    def enter(number):
        def hook(_module, args, kwargs):
            seen.entered[number] = _copied(entering(args, kwargs))

        return hook

    def leave(number):
        def hook(_module, _args, output):
            seen.left[number] = _copied(first(output))
            seen.tuples.append(isinstance(output, tuple))

        return hook

    def write(module, _args, output):
        seen.written[module] = _copied(first(output))

    with ExitStack() as hooks:
        for writer in stream.all_writers:
            hooks.callback(writer.register_forward_hook(write).remove)
        for number, layer in enumerate(stream.layers):
            hooks.callback(layer.register_forward_pre_hook(enter(number), with_kwargs=True).remove)
            hooks.callback(layer.register_forward_hook(leave(number)).remove)
        model(torch.tensor([list(token_ids)], device=stream.device), use_cache=False)
    return seen


def _misfit(
    model: nn.Module,
    seen: _Seen,
    modules: Sequence[nn.Module],
    others: Sequence[torch.Tensor],
    whole: torch.Tensor,
    tolerance: float,
) -> float:
    """The gap of a sum of modules' outputs and others.

    Raises: UserError, a module that gave nothing that could be added, or was not added where the sum holds.
    """
    path = {module: where for where, module in model.named_modules()}
    name, key = type(model).__name__, "writers" if others else "embedding"
    for module in modules:
        if module not in seen.written or seen.written[module].shape[-1] != whole.shape[-1]:
            raise UserError(
                f"{name}: {path[module]} gives no vectors of the stream's width {whole.shape[-1]}: correct"
                f" `modules.{key}` in the model file"
            )
    outputs = [seen.written[module] for module in modules]
    numbers, gap = _fit([*others, *outputs], whole)
    for module, output, times in zip(modules, outputs, numbers[len(others) :], strict=True):
        if gap < tolerance and output.any() and abs(times) < _ADDED:
            raise UserError(
                f"{name}: {path[module]} is not added to the residual stream: leave it out of `modules.{key}` in the"
                " model file"
            )
    return gap


def _device(embedding: nn.Module) -> torch.device:
    """Where an embedding's input goes; of weights that accelerate keeps elsewhere, where they are computed with."""
    placed = getattr(getattr(embedding, "_hf_hook", None), "execution_device", None)
    return torch.device(placed) if placed is not None else embedding.weight.device


def _refuse_unfit(model: nn.Module) -> None:
    """Raises: UserError, the model cannot be run the way the engine runs models."""
    name = type(model).__name__
    if getattr(model, "_is_stateful", False):
        raise UserError(
            f"{name}: its layers keep a recurrent state, which cannot be padded at the left nor shared by prompts:"
            " unsupported family"
        )
    if missing := [one for one in _ASKED if one not in inspect.signature(model.forward).parameters]:
        raise UserError(f"{name}: its forward takes no {', '.join(missing)}: unsupported family")


def _traced(model: nn.Module, token_ids: Sequence[int], device: torch.device, all_placed: bool) -> Trace:
    """The traced pass; an empty trace where that fails and nothing needs it."""
    try:
        return trace(model, token_ids, device)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # an operation that autograd has no rule for
        if all_placed:
            return Trace()
        said = " ".join(str(error).split())[:200]
        raise UserError(
            f"{type(model).__name__}: its modules cannot be found by themselves ({said}): name them by"
            " `modules.layers`, `modules.writers` and `modules.embedding` in the model file"
        ) from error


def _layers(model: nn.Module, traced: Trace, path: str | None) -> tuple[str, tuple[nn.Module, ...]]:
    """The list of decoder layers: each is given what the one before it gave."""
    name = type(model).__name__
    if path is not None:
        placed = _at(model, path, f"modules.layers: {path}", name)
        if not isinstance(placed, nn.ModuleList) or not len(placed):
            raise UserError(f"{name}: modules.layers: {path} is no list of modules: name the list of decoder layers")
        if traced.received and not all(layer in traced.received and layer in traced.returned for layer in placed):
            raise UserError(f"{name}: modules.layers: {path} is not run on text: name the list of decoder layers")
        return path, tuple(placed)
    count = model.config.get_text_config().num_hidden_layers

    def passes_through(layers: nn.ModuleList) -> bool:
        return all(one in traced.received and one in traced.returned for one in layers) and all(
            traced.passes_on(traced.returned[one], traced.received[next_]) for one, next_ in pairwise(layers)
        )

    for where, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count and passes_through(module):
            return where, tuple(module)
    raise UserError(
        f"{name}: no list of {count} decoder layers was found that the residual stream passes through, one after"
        " another: name it by `modules.layers` in the model file"
    )


def _entry(model: nn.Module, traced: Trace, layer: nn.Module) -> tuple[nn.Module, ...]:
    try:
        return tuple(traced.summands(traced.received[layer], None, model))
    except UntraceableError as error:
        raise UserError(
            f"{type(model).__name__}: what enters the first layer is no sum of modules' outputs ({error}):"
            " name the modules by `modules.embedding` in the model file"
        ) from None


def _writers(model: nn.Module, traced: Trace, layer: nn.Module, path: str) -> tuple[nn.Module, ...]:
    try:
        return tuple(traced.summands(traced.returned[layer], traced.received[layer], layer))
    except UntraceableError as error:
        raise UserError(
            f"{type(model).__name__}: {path}: part of what it adds to the residual stream is no module's output"
            f" ({error}): name the modules within a layer by `modules.writers` in the model file"
        ) from None


def _block(traced: Trace, writer: nn.Module, layer: nn.Module) -> nn.Module | None:
    """The attention or mlp itself: a writer that multiplies by no matrix is a norm after one. None: not found."""
    if any(weight.dim() > 1 for weight in writer.parameters()):
        return writer
    if writer not in traced.received:
        return None
    try:
        return traced.summands(traced.received[writer], None, layer)[0]
    except UntraceableError:  # what the norm is given is more than a module's output
        return None


def _at(root: nn.Module, path: str, key: str, where: str) -> nn.Module:
    try:
        return root.get_submodule(path)
    except AttributeError:
        known = [name for name, _ in root.named_modules() if name and name.count(".") <= path.count(".")]
        raise UserError(f"{where}: {key}: no such module; it has {', '.join(known[:12])}") from None


def _copied(hidden: torch.Tensor) -> torch.Tensor:
    return hidden.detach().double().cpu().clone()


def _fit(parts: Sequence[torch.Tensor], whole: torch.Tensor) -> tuple[list[float], float]:
    """The numbers by which the parts' sum comes nearest to the whole, and the largest gap of a token.

    Each token is measured by the longest of its parts and the whole, which its rounding goes by: so one with massive
    activations (arXiv:2402.17762) neither decides the numbers alone nor hides the others.
    """
    if not parts:
        return [], float("inf")
    every = torch.stack([*(part.expand_as(whole) for part in parts), whole])
    lengths = every.norm(dim=-1, keepdim=True).amax(0).clamp(min=_NOTHING)  # a padding token's embedding may be zero
    *scaled, target = (one.reshape(-1) for one in every / lengths)
    stacked = torch.stack(scaled, dim=1)
    numbers = torch.linalg.lstsq(stacked, target[:, None]).solution
    left = (target[:, None] - stacked @ numbers).reshape(whole.shape)
    return numbers.flatten().tolist(), float(left.norm(dim=-1).max())
