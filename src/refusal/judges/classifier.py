"""A judge that is a small model trained to classify (instruction, response), run here through transformers.

`refusal.judges.formats` says how each family of classifiers is asked and read, and what its verdicts mean: those of
wildguard and qwen3guard are about refusals, those of llama_guard, harmbench and strongreject about harmful compliance
alone, whose other side is called refusal.

Answers are greedy, and kept by what decides them: the format's prompt, the model, its revision and dtype, and how long
an answer may be. How they are read, the threshold included, may change without asking again.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from refusal.artifacts import sha256
from refusal.errors import UserError
from refusal.identity import folder_key
from refusal.judges.base import Answer, Item, Judge, Keep, Verdict
from refusal.judges.formats import FORMATS, Format

NEEDS = "gpu"

_DTYPES = ("bfloat16", "float16", "float32")


def make(settings: Mapping[str, Any]) -> Judge:
    """A judge from its settings.

    Args:
        settings:
            format: of FORMATS.
            model: name on the hub, or a folder; with tokenizer, and chat template if the format asks through it.
            revision: commit on the hub, or None for the newest; None for a folder.
            dtype: of _DTYPES.
            max_new_tokens: most tokens of an answer; 1 where it is not generated (strongreject).
            batch_rows: most items at a time; changes no answer.
            threshold: of the score that compliance begins with, from 0 to 1; None where the answer is no score.
    Returns: a judge; its verdicts' `raw` is the model's answer.
    Raises: UserError, a missing or unusable setting.
    """
    name = _one_of(settings, "format", tuple(FORMATS))
    form = FORMATS[name]
    model = _setting(settings, "model")
    if not isinstance(model, str) or not model.strip():
        raise UserError(f"classifier judge: model: {model!r}: give a name on the hub, or a folder")
    folder = Path(model)
    revision = _setting(settings, "revision")
    if revision is not None and (not isinstance(revision, str) or folder.is_dir()):
        raise UserError(f"classifier judge: revision: {revision!r}: give a commit on the hub; null for a folder")
    dtype = _one_of(settings, "dtype", _DTYPES)
    max_new_tokens, batch_rows = _count(settings, "max_new_tokens"), _count(settings, "batch_rows")
    if form.scores and max_new_tokens != 1:
        raise UserError(f"classifier judge: max_new_tokens: {max_new_tokens}: {name} answers with one token: set 1")
    threshold = _threshold(settings, name, form)

    asked = {
        "kind": "classifier",
        "format": name,
        "prompt": form.prompt,
        "model": _content(folder) if folder.is_dir() else f"{model}@{revision}",
        "dtype": dtype,
        "max_new_tokens": max_new_tokens,
    }

    def ask(items: Sequence[Item], keep: Keep) -> None:
        room = _room()
        classifier = room.load(model, revision, dtype)
        room.classify(classifier, form, items, max_new_tokens, batch_rows, keep)

    reading = {"format": name, "threshold": threshold}
    return Judge(
        "classifier",
        NEEDS,
        reading,
        partial(_read, form, threshold),
        ask,
        asked,
        check=lambda: _room().check(model, revision),
    )


def _room() -> ModuleType:
    """Where the model is run.

    By its name as text, for two reasons: nothing outside the torch room imports it, and whoever reads imports from the
    syntax tree finds none. The room's code decides answers, not how they are read; were it part of the judgements' code
    version, an edit of any of it would judge everything again, by all judges.
    """
    return import_module("refusal.model.classifier")


def _read(form: Format, threshold: float | None, _item: Item, answer: Answer) -> Verdict:
    found = form.read(answer.raw, threshold)
    if found is None:
        return Verdict("invalid", answer.raw, f"the judge's answer cannot be read: expected {form.expected}")
    label, reason = found
    return Verdict(label, answer.raw, reason)


def _content(folder: Path) -> dict[str, str]:
    """Name -> sha256 of what a model is loaded from: no path, so that a moved folder asks nothing again."""
    weights = {file.name: sha256(file) for pattern in ("adapter_model*", "*.bin") for file in folder.glob(pattern)}
    return dict(sorted((folder_key(folder) | weights).items()))


def _threshold(settings: Mapping[str, Any], name: str, form: Format) -> float | None:
    given = _setting(settings, "threshold")
    if not form.scores:
        if given is not None:
            raise UserError(f"classifier judge: threshold: {given!r}: {name} gives no score: set null")
        return None
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 <= given <= 1:
        raise UserError(f"classifier judge: threshold: {given!r}: {name} gives a score: set a number from 0 to 1")
    return given


def _count(settings: Mapping[str, Any], key: str) -> int:
    given = _setting(settings, key)
    if not isinstance(given, int) or isinstance(given, bool) or given < 1:
        raise UserError(f"classifier judge: {key}: {given!r}: give a whole number above 0")
    return given


def _one_of(settings: Mapping[str, Any], key: str, known: tuple[str, ...]) -> str:
    given = _setting(settings, key)
    if given not in known:
        raise UserError(f"classifier judge: unknown {key} {given!r}: known ones are {', '.join(known)}")
    return given


def _setting(settings: Mapping[str, Any], key: str) -> Any:
    if key not in settings:
        raise UserError(f"classifier judge: no '{key}' in its settings: add it to the judge's file in config/judges/")
    return settings[key]
