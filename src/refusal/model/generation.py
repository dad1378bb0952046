"""Decoding of combinations x prompts: rows leave as they finish, and waiting ones take their places."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from refusal.cli import progress
from refusal.model.batching import OutOfMemoryError, Room, memory_errors
from refusal.model.interventions import Intervention, Rows, intervene
from refusal.model.keyvalues import KeyValues
from refusal.model.loading import ChatModel
from refusal.model.memory import footprint
from refusal.model.passes import Prefix, forward, shared_prefix
from refusal.model.sampling import Sampling, drawn, likeliest

Choose = Callable[[torch.Tensor, Sequence["_Row"]], torch.Tensor]
"""Logits [row, vocab] and their rows -> token ids [row], which are also written down in the rows."""

_COMPACT = 0.125
"""Finished rows leave the batch, and waiting ones enter, once they are this share of it: it copies keys and values."""


@dataclass(frozen=True)
class Completion:
    """A response: token ids without the stop token; the stop token that ended it, or None where the length did."""

    tokens: list[int]
    stop_token: int | None


@dataclass(eq=False)
class _Row:
    """A response in the making. draws: a uniform number [max_new_tokens] for each token, where it is sampled."""

    name: str
    number: int
    ids: list[int]
    intervention: Intervention
    draws: np.ndarray | None
    tokens: list[int] = field(default_factory=list)
    stop_token: int | None = None
    ended: bool = False


def complete(
    chat: ChatModel,
    prompts: Sequence[list[int]],
    interventions: Mapping[str, Intervention],
    max_new_tokens: int,
    room: Room,
    done: Callable[[str, list[Completion]], None],
    sampling: Sampling | None = None,
    seeds: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Responses of every prompt under every intervention; greedy, unless sampling is asked for.

    Rows of one intervention stand together, so it is finished, and handed to `done`, before later ones are. The
    model's own sampling settings and penalties are ignored; a stop token of the model ends a row.

    Args:
        prompts: token ids.
        interventions: combination id -> what is done.
        done: called with the id and its completions in the order of the prompts.
        seeds: combination id -> of each prompt, what its draws are seeded with, beside the seed of `sampling`.
    """
    order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
    rows = _rows(prompts, order, interventions, max_new_tokens, sampling, seeds)
    finished: dict[str, dict[int, Completion]] = {name: {} for name in interventions}
    what = f"completions ({len(interventions)} combinations x {len(prompts)} prompts)"
    steps = _decode(chat, rows, max_new_tokens, room, sampling)
    responses = (row for step in steps for row in step if row.ended)
    for row in progress(responses, what, total=len(rows), unit="responses"):
        found = finished[row.name]
        found[row.number] = Completion(row.tokens, row.stop_token)
        if len(found) == len(prompts):
            done(row.name, [found.pop(number) for number in range(len(prompts))])


def growing(
    chat: ChatModel,
    prompt: list[int],
    interventions: Mapping[str, Intervention],
    max_new_tokens: int,
    room: Room,
    sampling: Sampling | None = None,
    seeds: Mapping[str, str] | None = None,
) -> Iterator[dict[str, Completion]]:
    """The responses of `complete` to one prompt while they grow: after each step, what there is of every one.

    They grow together where there is room. Where memory runs out, those that have not ended start over: the same again.
    """
    each = {name: [seed] for name, seed in seeds.items()} if seeds else None
    rows = _rows([prompt], [0], interventions, max_new_tokens, sampling, each)
    for _ in _decode(chat, rows, max_new_tokens, room, sampling):
        yield {row.name: Completion(list(row.tokens), row.stop_token) for row in rows}


def _rows(
    prompts: Sequence[list[int]],
    order: Sequence[int],
    interventions: Mapping[str, Intervention],
    max_new_tokens: int,
    sampling: Sampling | None,
    seeds: Mapping[str, Sequence[str]] | None,
) -> list[_Row]:
    return [
        _Row(
            name,
            number,
            prompts[number],
            intervention,
            sampling.draws(seeds[name][number], max_new_tokens) if sampling else None,
        )
        for name, intervention in interventions.items()
        for number in order
    ]


@dataclass
class _Batch:
    """Rows that are decoded together, the last column of the cache each row's newest token but one.

    mask: [row, column]; positions: [row], of the newest token; newest: [row], chosen and not yet in the cache.
    """

    rows: list[_Row]
    interventions: Rows
    cache: KeyValues
    mask: torch.Tensor
    positions: torch.Tensor
    newest: torch.Tensor


@torch.no_grad()
def _decode(
    chat: ChatModel, rows: Sequence[_Row], max_new_tokens: int, room: Room, sampling: Sampling | None
) -> Iterator[list[_Row]]:
    """Yield, after each step, the rows that took part in it; each row that ends does so in one of them."""
    prefix, needs, stops = shared_prefix([row.ids for row in rows]), footprint(chat), set(chat.stop_tokens)

    def choose(logits: torch.Tensor, of: Sequence[_Row]) -> torch.Tensor:
        if sampling is None:
            chosen = likeliest(logits)
        else:
            # a row that has ended goes on until it leaves; what is chosen for it is not looked at
            uniform = [row.draws[min(len(row.tokens), max_new_tokens - 1)] for row in of]
            chosen = drawn(logits, sampling, torch.tensor(uniform, device=logits.device))
        for row, token in zip(of, chosen.tolist(), strict=True):
            if row.ended:
                continue
            if token in stops:
                row.stop_token, row.ended = token, True
            else:
                row.tokens.append(token)
                row.ended = len(row.tokens) == max_new_tokens
        return chosen

    waiting, batch = deque(rows), None
    while waiting or batch is not None:
        going = [row for row in batch.rows if not row.ended] if batch else []
        joining: list[_Row] = []
        try:
            with memory_errors():
                if going and len(going) > (1 - _COMPACT) * len(batch.rows):
                    _step(chat, batch, choose)
                else:
                    # those that have ended are gone before others need their memory
                    batch = _left(batch) if going else None
                    sizes = (needs.decoded(len(row.ids), max_new_tokens) for row in (*going, *waiting))
                    joining = [waiting.popleft() for _ in range(room.fitting(sizes) - len(going))]
                    joining.sort(key=lambda row: len(row.ids))
                    for part in room.split(joining, lambda row: needs.row(len(row.ids), len(prefix))):
                        entered = _entered(chat, part, prefix, choose)
                        batch = _together(batch, entered) if batch else entered
        except OutOfMemoryError:
            batch = None
            lost = [row for row in (*going, *joining) if not row.ended]
            for row in reversed(lost):  # they start over; what has ended is kept
                row.tokens.clear()
                waiting.appendleft(row)
            room.shrink(len(lost))
        yield [*going, *joining]


def _step(chat: ChatModel, batch: _Batch, choose: Choose) -> None:
    """One token for every row."""
    batch.mask = torch.nn.functional.pad(batch.mask, (0, 1), value=1)
    with intervene(chat.stream, batch.interventions):
        logits = chat.model(
            input_ids=batch.newest[:, None],
            attention_mask=batch.mask,
            position_ids=batch.positions[:, None],
            past_key_values=batch.cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
    batch.newest = choose(logits[:, -1], batch.rows)
    batch.positions = batch.positions + 1


def _left(batch: _Batch) -> _Batch:
    """The batch without the rows that have ended, and no wider than those that go on need."""
    keep = [number for number, row in enumerate(batch.rows) if not row.ended]
    rows, kept = [batch.rows[number] for number in keep], torch.tensor(keep, device=batch.mask.device)
    mask = batch.mask[kept]
    width = int(mask.sum(1).max())
    batch.cache.rearrange(kept, width)
    return _Batch(rows, _interventions(rows), batch.cache, mask[:, -width:], batch.positions[kept], batch.newest[kept])


def _entered(chat: ChatModel, rows: list[_Row], prefix: Prefix, choose: Choose) -> _Batch:
    """Rows that begin, each with its first token."""
    done = forward(chat, [row.ids for row in rows], [row.intervention for row in rows], prefix, use_cache=True)
    newest = choose(done.logits[:, -1], rows)
    return _Batch(rows, _interventions(rows), done.cache, done.mask, done.positions + 1, newest)


def _together(first: _Batch, second: _Batch) -> _Batch:
    """The rows of both, those of the first before the others."""
    rows = first.rows + second.rows
    width = max(first.mask.shape[1], second.mask.shape[1])
    first.cache.rearrange(torch.arange(len(first.rows)), width, second.cache)
    mask = torch.cat([torch.nn.functional.pad(one.mask, (width - one.mask.shape[1], 0)) for one in (first, second)])
    positions, newest = (torch.cat([getattr(one, name) for one in (first, second)]) for name in ("positions", "newest"))
    return _Batch(rows, _interventions(rows), first.cache, mask, positions, newest)


def _interventions(rows: Sequence[_Row]) -> Rows:
    return Rows([row.intervention for row in rows])
