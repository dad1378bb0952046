"""What a study has left for talking to its model: found by its name or by the model's place, with all its ranks."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isnan, nan
from pathlib import Path
from typing import Any

from refusal.artifacts import read_json, read_table, sha256
from refusal.bases import Ranked
from refusal.checking import read_yaml
from refusal.combinations import BASELINE, Combination, parse
from refusal.errors import UserError
from refusal.provenance import ROOT, sidecar
from refusal.study import names

_MODEL, _TOP, _BASIS = "model.json", "top_directions.safetensors", f"combinations/{BASELINE}/basis.safetensors"
"""What is needed, in the order in which it is made; the spec of the last has the study's choices."""


@dataclass(frozen=True)
class Finished:
    """A study whose ranks are known.

    name: of the model; model: its identity file; sampling: of the study's completions, None for greedy ones.
    """

    name: str
    model: Path
    ranked: Ranked
    sampling: Mapping[str, Any] | None

    @property
    def described(self) -> str:
        """In a line: how many ranks there are, how they are ablated, how replies are chosen."""
        drawn = ", ".join(f"{name} {value:g}" for name, value in (self.sampling or {}).items() if name != "seed")
        return (
            f"{self.name}: ranks 0-{len(self.ranked.candidates) - 1}, ablation {self.ranked.ablation},"
            f" {f'sampled ({drawn})' if drawn else 'greedy'}"
        )

    def combination(self, text: str) -> Combination:
        """The combination that a person names.

        Raises: UserError, none, or of ranks that are not there.
        """
        named = parse(text)
        try:
            self.ranked.check(named)
        except UserError as error:
            raise UserError(f"{error}: name other ranks") from None
        return named


def of_model(name: str, results: Path = Path("results"), root: Path = ROOT) -> Finished:
    """The study of a model, by the name of its file in config/models.

    Raises: UserError, an unknown model, or a study that is not so far, or not with the model that is there now.
    """
    folder = results / name
    if not (folder / _MODEL).exists():
        known = names(root / "config" / "models")
        if name not in known:
            there = _described(results)
            raise UserError(
                f"unknown model '{name}': {results}/ has {', '.join(there) or 'none'};"
                f" config/models/ has {', '.join(known)}"
            )
    for file in (_MODEL, _TOP, _BASIS):
        if not (folder / file).exists():
            raise UserError(f"{folder / file}: not made yet: run {_command(name)}")
    for file, role, source in ((_TOP, "model", _MODEL), (_BASIS, "top_directions", _TOP)):
        there = sha256(folder / source)
        if _made_from(folder / file).get(role, there) != there:
            raise UserError(
                f"{folder / file}: made from an older {folder / source} than the one there now: run {_command(name)}"
            )
    choices = read_json(sidecar(folder / _BASIS))["parameters"]
    directions = folder / "directions.safetensors"
    ranked = Ranked(folder / _TOP, directions if directions.exists() else None, choices["ablation"], choices["seed"])
    return Finished(name, folder / _MODEL, ranked, _sampling(folder))


def of_place(place: str, results: Path = Path("results"), root: Path = ROOT) -> Finished:
    """The study of a model, by where the model is: its id on the hub or the folder of its weights; or of its results.

    Raises: UserError, no study of it or several, or one that is not so far.
    """
    if Path(place).resolve().parent == results.resolve():
        return of_model(Path(place).resolve().name, results, root)
    loaded = {name: read_json(results / name / _MODEL)["load"] for name in _described(results)}
    found = sorted(name for name, one in loaded.items() if _is_at(place, one.get("id"), one.get("folder")))
    if not found:
        files = {name: read_yaml(root / "config" / "models" / f"{name}.yaml") for name in names(root / "config/models")}
        found = [name for name, one in files.items() if _is_at(place, one.get("id"), one.get("path"))]
    if not found:
        known = ", ".join(loaded) or "none yet"
        raise UserError(
            f"{place}: no study in {results}/ is of a model there: name one by --model ({known}), or write its file by"
            f" make new-model, then run {_command('NAME')}"
        )
    if len(found) > 1:
        raise UserError(f"{place}: several studies of it: choose one by --model {' or --model '.join(found)}")
    return of_model(found[0], results, root)


@dataclass(frozen=True)
class Figures:
    """What a study has measured. basis: by which judge, on how many prompts; of: combination -> figure -> words."""

    basis: str
    of: Mapping[str, Mapping[str, str]]


def figures(study: Finished) -> Figures:
    """Shares of refusals on each test set, by the summary's first judge, and costs; with 95% intervals.

    Empty where it has no summary yet, or one of other ranks than those that are there now.
    """
    path = study.model.with_name("summary.csv")
    if not path.exists():
        return Figures("", {})
    # a role is the file's place, from the model's name on
    files = {path.parents[1] / role: used for role, used in _made_from(path).items()}
    if any(file.name == "basis.safetensors" and sha256(file) != used for file, used in files.items() if file.exists()):
        return Figures("", {})
    from refusal.summary import corpus_of, cost_columns  # pandas with it, which a terminal needs none of

    table = read_table(path)
    judge, rates, asked = "", {}, {}
    for name in [column.removesuffix("_n") for column in table if re.fullmatch(r"[a-z]+_n", column)]:
        end = re.compile(rf"{name}_(.+)_refusal_rate")
        if judged := next(filter(None, map(end.fullmatch, table)), None):
            judge = judge or judged[1]
            rates[f"{name} refused"] = judged[0], ".0%"
            asked[name] = f"{table[f'{name}_n'].max():.0f}"
    costs = {f"CE {corpus_of(column)}": (column, "+z.3f") for column in cost_columns(table)}
    shown = {**rates, **costs, "bypass": ("bypass", "z.2f"), "KL": ("kl", "z.3f")}
    alike = len(set(asked.values())) == 1
    numbers = [next(iter(asked.values()))] if alike else [f"{number} {name}" for name, number in asked.items()]
    return Figures(
        f"refused: by {judge}, n = {', '.join(numbers)}" if judge else "",
        {
            row["combination"]: {words: _with_interval(row, column, form) for words, (column, form) in shown.items()}
            for _, row in table.iterrows()
        },
    )


def _with_interval(row: Mapping[str, Any], column: str, form: str) -> str:
    """A figure of the summary and its 95% interval, where it has one."""
    if isnan(row[column]):
        return ""
    low, high = (row.get(f"{column.removesuffix('_rate')}_{end}", nan) for end in ("low", "high"))
    said = format(row[column], form)
    return said if isnan(low) else f"{said} ({format(low, form)} to {format(high, form)})"


def _command(name: str) -> str:
    return f"snakemake --cores 1 results/{name}/{_BASIS}"


def _described(results: Path) -> list[str]:
    return sorted(path.parent.name for path in results.glob(f"*/{_MODEL}"))


def _made_from(path: Path) -> dict[str, str]:
    """Role -> hash of what a file was made from; of a file without a spec, nothing."""
    record = sidecar(path)
    return {role: used["sha256"] for role, used in read_json(record)["inputs"].items()} if record.exists() else {}


def _is_at(place: str, hub: str | None, folder: str | None) -> bool:
    return place == hub or (folder is not None and Path(place).resolve() == Path(folder).resolve())


def _sampling(folder: Path) -> Mapping[str, Any] | None:
    """How the study's completions were decoded; greedy where there are none yet."""
    for record in sorted((folder / "combinations" / BASELINE / "completions").glob("*.spec.json")):
        decoding = read_json(record)["parameters"]["decoding"]
        return None if decoding == "greedy" else decoding
    return None
