"""Keys and values of a batch whose rows come and go, every row's latest token in the last column."""

from collections.abc import Sequence
from typing import Self

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

ROOM = 64
"""Columns by which a full buffer grows, so that most tokens are written in place."""


class _Layer(CacheLayerMixin):
    """Buffers [row, head, column, dim] with room at the right; `length` columns hold tokens.

    transformers' own layer copies all keys and values for each new token.
    """

    is_sliding = False  # whole: the mask keeps to the window, and columns of all layers stay aligned

    def __init__(self) -> None:
        super().__init__()
        self.length = 0

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.keys, self.values, self.is_initialized = key_states[:, :, :0], value_states[:, :, :0], True

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_args, **_kwargs):
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, self.length = self.length, self.length + key_states.shape[2]
        self.keys, self.values = self._with_room(self.keys, start), self._with_room(self.values, start)
        self.keys[:, :, start : self.length] = key_states
        self.values[:, :, start : self.length] = value_states
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]

    def _with_room(self, buffer: torch.Tensor, used: int) -> torch.Tensor:
        rows, heads, columns, dim = buffer.shape
        if columns >= self.length:
            return buffer
        # the first tokens fill their buffer to the brim: a single pass, of which most are, needs no room
        larger = buffer.new_empty(rows, heads, self.length + (ROOM if used else 0), dim)
        larger[:, :, :used] = buffer[:, :, :used]
        return larger

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        return self.length

    def get_max_length(self) -> int:
        return -1


class KeyValues(Cache):
    """The key-value cache of a model with this many layers."""

    def __init__(self, layers: int) -> None:
        super().__init__(layers=[_Layer() for _ in range(layers)])

    # A pass that starts at a later layer leaves those before empty; the last one always runs.
    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.layers[-1].get_seq_length()

    def get_query_offset(self, layer_idx: int = 0) -> int:
        return self.layers[-1].get_seq_length()

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        return self.layers[-1].get_mask_sizes(query_length)

    @property
    def nbytes(self) -> int:
        """Bytes of the tokens held."""
        return sum(
            part[:, :, : layer.length].numel() * part.element_size()
            for layer in self.layers
            if layer.is_initialized
            for part in (layer.keys, layer.values)
        )

    def row(self, number: int) -> Self:
        """One row alone, sharing its memory."""
        made = type(self)(len(self.layers))
        for mine, new in zip(self.layers, made.layers, strict=True):
            if mine.is_initialized:
                new.keys, new.values = mine.keys[number : number + 1], mine.values[number : number + 1]
                new.length, new.is_initialized = mine.length, True
        return made

    @classmethod
    def spread(cls, single: Sequence[Self], rows: torch.Tensor, shift: torch.Tensor, start: int = 0) -> Self:
        """A cache in which row n is single[rows[n]], moved right by shift[n] columns.

        As many columns as each of those has: what is moved out falls away, what comes in repeats the first token, to be
        masked. Layers before `start` stay empty.
        """
        made = cls(len(single[0].layers))
        for number, new in enumerate(made.layers[start:], start):
            old = [one.layers[number] for one in single]
            device, new.length, new.is_initialized = old[0].keys.device, old[0].length, True
            columns = (torch.arange(new.length, device=device) - shift.to(device)[:, None]).clamp(min=0)
            for name in ("keys", "values"):
                parts = torch.cat([getattr(one, name)[:, :, : one.length] for one in old])
                # indexing puts [row, column] first
                moved = parts.transpose(1, 2)[rows.to(device)[:, None], columns]
                setattr(new, name, moved.transpose(1, 2).contiguous())
        return made

    def rearrange(self, keep: torch.Tensor, width: int, joining: Self | None = None) -> None:
        """Keep these rows, then those of `joining`, in `width` columns: cut, or padded with zeros, at the left."""
        for number, mine in enumerate(self.layers):
            theirs = joining.layers[number] if joining is not None else None
            for name in ("keys", "values"):
                parts = [(getattr(mine, name)[:, :, : mine.length], keep)] if len(keep) else []
                if theirs is not None:
                    parts.append((getattr(theirs, name)[:, :, : theirs.length], None))
                setattr(mine, name, _aligned(parts, width))
            mine.length, mine.is_initialized = width, True


def _aligned(parts: list[tuple[torch.Tensor, torch.Tensor | None]], width: int) -> torch.Tensor:
    """One buffer of the parts' rows (all, or those named), each with its last columns at column `width`."""
    rows = sum(len(part if chosen is None else chosen) for part, chosen in parts)
    like = parts[0][0]
    made = like.new_empty(rows, like.shape[1], width + ROOM, like.shape[3])
    start = 0
    for part, chosen in parts:
        taken = part[:, :, -width:]
        taken = taken if chosen is None else taken[chosen.to(taken.device)]
        made[start : start + len(taken), :, : width - taken.shape[2]] = 0  # masked, but a NaN would come through
        made[start : start + len(taken), :, width - taken.shape[2] : width] = taken
        start += len(taken)
    return made
