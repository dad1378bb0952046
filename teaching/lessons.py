"""What a model is taught: harmful prompts that it is to refuse, harmless ones that it answers as it does already."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from refusal.errors import UserError
from refusal.prompts import read_prompts, sample, unlike, without

FIELDS = ("id", "kind", "instruction", "response", "ended")
"""Of a lesson. ended: whether the reply is over after `response`, or was cut there."""


def draw(
    files: Mapping[str, Path], counts: Mapping[str, int], kept_out: Iterable[Path], max_overlap: float, seed: int
) -> dict[str, list[dict]]:
    """Prompts of each kind, drawn by seed; none of them stands in another kind, or resembles one that is kept out.

    max_overlap: share of words from which on two prompts resemble each other (refusal.prompts.unlike).

    Raises: UserError, fewer than asked.
    """
    tested = [prompt for file in kept_out for prompt in read_prompts(file)]
    taken, drawn = list(tested), {}
    for kind, file in files.items():
        left = unlike(without(read_prompts(file), taken), tested, max_overlap)
        if len(left) < counts[kind]:
            raise UserError(
                f"{file}: {counts[kind]} {kind} prompts are to be taught and it has {len(left)} that resemble no test"
                " prompt: lower teaching.counts, add prompts or raise teaching.max_overlap"
            )
        drawn[kind] = sample(left, counts[kind], seed, str(file))
        taken += drawn[kind]
    return drawn


def lessons(kind: str, prompts: Sequence[dict], replies: Sequence[tuple[str, bool]]) -> list[dict]:
    """Rows of a lessons file: each prompt with the reply that it is to get, and whether that is whole."""
    return [
        {"id": prompt["id"], "kind": kind, "instruction": prompt["instruction"], "response": response, "ended": ended}
        for prompt, (response, ended) in zip(prompts, replies, strict=True)
    ]
