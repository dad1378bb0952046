"""Prompt files: read, sample by seed, keep the splits apart."""

import random
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from refusal.artifacts import read_json, read_jsonl
from refusal.errors import UserError


def read_prompts(path: Path) -> list[dict]:
    """Prompts of a file: .jsonl with an object a line, or .json with a list of objects.

    Returns: rows with `id` (the file's own, or NAME-ROW), `category` (or None), `instruction`.
    Raises: UserError that names the file and row: no instruction, not text, empty, or an id used twice.
    """
    path = Path(path)
    rows = read_jsonl(path) if path.suffix == ".jsonl" else read_json(path)
    if not isinstance(rows, list) or not rows:
        raise UserError(f"{path}: holds no prompts: it needs objects with an `instruction`")
    prompts, seen = [], set()
    for number, row in enumerate(rows, 1):
        where = f"{path}: {'line' if path.suffix == '.jsonl' else 'entry'} {number}"
        if not isinstance(row, dict) or "instruction" not in row:
            raise UserError(f"{where} has no `instruction`: every prompt needs one")
        instruction = row["instruction"]
        if not isinstance(instruction, str) or not instruction.strip():
            raise UserError(f"{where}: `instruction` is empty or no text: mend or remove it")
        name = str(row.get("id", f"{path.stem}-{number}"))
        if name in seen:
            raise UserError(f"{where}: id {name} is used twice: ids tell prompts apart")
        seen.add(name)
        prompts.append({"id": name, "category": row.get("category"), "instruction": instruction})
    return prompts


def sample(prompts: Sequence[dict], count: int, seed: int, where: str) -> list[dict]:
    """Draw `count` prompts without repetition; the same seed draws the same.

    Raises: UserError, fewer than asked.
    """
    return random.Random(seed).sample(list(_enough(prompts, count, where)), count)


IN_TURN = ("harmful_train", "harmless_train", "harmful_val", "harmless_val")
"""The order in which the published scripts draw; harmless test prompts are the next."""


def sample_in_turn(sets: Sequence[tuple[Sequence[dict], int, str]], seed: int) -> list[list[dict]]:
    """Draw from several sets one after another, all from one random stream, as the published scripts do.

    So each draw depends on the sizes and counts of those before it.

    Args:
        sets: prompts, how many of them, and where they are from, in the order of the draws.
    Raises: UserError, fewer than asked.
    Source: load_and_sample_datasets and run_pipeline of andyrdt/refusal_direction.
    """
    stream = random.Random(seed)
    return [stream.sample(list(_enough(prompts, count, where)), count) for prompts, count, where in sets]


def without(prompts: Sequence[dict], others: Iterable[dict]) -> list[dict]:
    """Prompts whose instruction (case and spaces aside) is in none of `others`: what was tested was not trained on."""
    taken = {_plain(other["instruction"]) for other in others}
    return [prompt for prompt in prompts if _plain(prompt["instruction"]) not in taken]


def unlike(prompts: Sequence[dict], others: Iterable[dict], most: float) -> list[dict]:
    """Prompts that reword none of `others`: the words shared with it are less than `most` of all of both.

    The same deed in other words, or at greater length, stays.

    Shares: of two sets of words (case, order and repetition aside), common ones by all (Jaccard 1901); 1 with `most` 1
    leaves out the same words alone.
    """
    known = [_words(other["instruction"]) for other in others]

    def shares(words: frozenset[str], other: frozenset[str]) -> bool:
        # sets of such different sizes share less, whatever is in them; most pairs end here
        if min(len(words), len(other)) < most * max(len(words), len(other)):
            return False
        common = len(words & other)
        return common >= most * (len(words) + len(other) - common)

    return [
        prompt
        for prompt, words in ((prompt, _words(prompt["instruction"])) for prompt in prompts)
        if not any(shares(words, other) for other in known)
    ]


def keep_by_score(prompts: Sequence[dict], scores: Sequence[float], kind: str, where: str) -> list[dict]:
    """Harmful prompts that the model refuses (score > 0), harmless ones that it answers (score < 0).

    Raises: UserError, none left.
    Source: the published scripts of arXiv:2406.11717 filter train and val by the refusal metric.
    """
    sign = 1 if kind == "harmful" else -1
    kept = [prompt for prompt, score in zip(prompts, scores, strict=True) if sign * score > 0]
    if not kept:
        does = "refuses none of" if kind == "harmful" else "refuses all of"
        raise UserError(
            f"{where}: the model {does} the {len(prompts)} {kind} prompts (refusal score, mean"
            f" {sum(scores) / len(scores):.2f} nats): check refusal_tokens, or set"
            " prompts.filter_by_refusal_score: false"
        )
    return kept


def _enough(prompts: Sequence[dict], count: int, where: str) -> Sequence[dict]:
    if len(prompts) < count:
        raise UserError(
            f"{where}: {count} prompts are asked for and it has {len(prompts)}: lower prompts.counts or add prompts"
        )
    return prompts


def _plain(instruction: str) -> str:
    return " ".join(instruction.casefold().split())


def _words(instruction: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", instruction.casefold()))
