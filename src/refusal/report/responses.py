"""Prompts, responses and verdicts as a page needs them: each text once, a letter a verdict."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from refusal.artifacts import read_jsonl
from refusal.combinations import parse
from refusal.judges.base import LABELS
from refusal.study import KINDS

_LETTERS = {label: label[0] for label in LABELS}
_NO_VERDICT = "-"

Rows = Mapping[str, Mapping[str, Any]]
"""Id -> row of a file."""


def gather(completions: Iterable[Path], judgements: Iterable[Path]) -> dict[str, Any]:
    """What was answered and how it was judged, by test set and combination.

    Args:
        completions: COMBINATION/completions/SET.jsonl. judgements: COMBINATION/judgements/JUDGE/SET.jsonl; those on
            responses that are not given are left out.
    Returns: `texts`, each once, and `sets`: set -> `prompts` [id, category, text] and `answers`: combination ->
        `response`, `reasoning`, `finish` and `tokens`, a value a prompt, and `verdicts`: judge -> `labels` (a letter a
        prompt: r, c, i, or - for none), `raw`, `reason`. A text is its number in `texts`; null: none, and of `raw` that
        it is the response itself.
    """
    answers: dict[str, dict[str, Rows]] = {}
    verdicts: dict[tuple[str, str], dict[str, Rows]] = {}
    for path in completions:
        rows = read_jsonl(path, ("id", "prompt", "response"))
        answers.setdefault(path.stem, {})[parse(path.parts[-3]).id] = {row["id"]: row for row in rows}
    for path in judgements:
        rows = read_jsonl(path, ("id", "verdict"))
        of = verdicts.setdefault((path.stem, parse(path.parts[-4]).id), {})
        of[path.parts[-2]] = {row["id"]: row for row in rows}
    texts: dict[str, int] = {}

    def number(text: str | None) -> int | None:
        return None if text is None else texts.setdefault(text, len(texts))

    sets = {}
    for name in sorted(answers, key=KINDS.index):
        by_combination = answers[name]
        prompts = {key: row for rows in by_combination.values() for key, row in rows.items()}
        sets[name] = {
            "prompts": [[key, row.get("category"), number(row["prompt"])] for key, row in prompts.items()],
            "answers": {
                combination: {
                    **_columns(rows, prompts, number),
                    "verdicts": {
                        judge: _judged(found, rows, prompts, number)
                        for judge, found in verdicts.get((name, combination), {}).items()
                    },
                }
                for combination, rows in by_combination.items()
            },
        }
    return {"texts": list(texts), "sets": sets}


def _columns(rows: Rows, prompts: Rows, number) -> dict[str, list]:
    listed = [rows.get(key, {}) for key in prompts]
    return {
        "response": [number(row.get("response")) for row in listed],
        "reasoning": [number(row.get("reasoning")) for row in listed],
        "finish": [row.get("finish_reason") for row in listed],
        "tokens": [row.get("n_tokens") for row in listed],
    }


def _judged(found: Rows, answered: Rows, prompts: Rows, number) -> dict[str, Any]:
    listed = [(found.get(key, {}), answered.get(key, {}).get("response")) for key in prompts]
    return {
        "labels": "".join(_LETTERS[row["verdict"]] if row else _NO_VERDICT for row, _ in listed),
        "raw": [None if row.get("raw") == response else number(row.get("raw")) for row, response in listed],
        "reason": [number(row.get("reason")) for row, _ in listed],
    }
