"""What the figures of a study are drawn from, and the phrases that several captions share."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from refusal.combinations import CONTROLS
from refusal.filters import Filters
from refusal.headline import roles
from refusal.measured import ADDED
from refusal.summary import judged_sets

UNKNOWN = "not measured"


@dataclass(frozen=True)
class Tables:
    """A study's tables.

    summary, ranking, cosines: of these stages; agreement: None where there is one judge; judge: whose verdicts are
    shown; filters: of the ranking.
    """

    summary: pd.DataFrame
    ranking: pd.DataFrame
    cosines: pd.DataFrame
    agreement: pd.DataFrame | None
    judge: str
    filters: Filters

    def rate(self, prompts: str = "harmful", verdict: str = "refusal") -> str:
        """The column of a rate."""
        return f"{prompts}_{self.judge}_{verdict}_rate"

    @cached_property
    def sets(self) -> list[str]:
        """Prompt sets that the judge has verdicts on."""
        return judged_sets(self.summary, self.judge)

    @cached_property
    def chosen(self) -> dict[str, str]:
        """`baseline`, `best_single`, `best_pair` -> combination, as far as there are such."""
        return roles(self.summary)

    @cached_property
    def picked(self) -> set[str]:
        """The combinations that val prompts chose."""
        return {name for role, name in self.chosen.items() if role != "baseline"}

    @cached_property
    def ablations(self) -> pd.DataFrame:
        """Rows of ablations of ranks, by size, then from the lowest bypass on val up."""
        rows = self.summary[self.summary.kind == "ablation"]
        return rows.sort_values(["k", "bypass"], kind="stable")

    @cached_property
    def ablated(self) -> pd.DataFrame:
        """Rows of what ablates something, or nothing: all but additions and subtractions."""
        return self.summary[~self.summary.kind.isin(ADDED)]

    @cached_property
    def controls(self) -> pd.DataFrame:
        """Rows of controls."""
        return self.summary[self.summary.kind.isin(CONTROLS)]

    def row(self, combination: str) -> pd.Series:
        """The row of a combination."""
        return self._by_name.loc[combination]

    @cached_property
    def _by_name(self) -> pd.DataFrame:
        return self.summary.set_index("combination", drop=False)

    def n(self, prompts: str = "harmful") -> str:
        """How many prompts of a set were judged: n = 100, or from the fewest to the most under a combination."""
        counts = self.summary[f"{prompts}_n"].dropna().astype(int)
        return f"n = {' to '.join(map(str, dict.fromkeys([counts.min(), counts.max()])))}"

    def said(self, combination: str, column: str) -> str:
        """A rate with its interval: 39% (95% 30% to 49%)."""
        row = self.row(combination)
        if pd.isna(row.get(column)):
            return UNKNOWN
        stem = column.removesuffix("_rate")
        return f"{row[column]:.0%} (95% {row[f'{stem}_low']:.0%} to {row[f'{stem}_high']:.0%})"

    def roles(self, column: str) -> str:
        """What baseline, best single and best pair have of a rate."""
        words = {
            "baseline": "without ablation",
            "best_single": "best single on val, {},",
            "best_pair": "best pair on val, {},",
        }
        return "; ".join(f"{words[role].format(name)} {self.said(name, column)}" for role, name in self.chosen.items())


def text(*sentences: object) -> str:
    """The sentences that there are; others are false."""
    return " ".join(filter(None, sentences))


def listed(names: Iterable[str], most: int = 8) -> str:
    """a, b and c; of more than `most`, the first ones and how many others."""
    names = list(names)
    if len(names) > most:
        names = [*names[: most - 1], f"{len(names) - most + 1} others"]
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def counted(number: int, one: str, many: str | None = None) -> str:
    """1 cell, 2 cells."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def ranged(shares: pd.Series) -> str:
    """39%, or 39% to 71%."""
    low, high = f"{shares.min():.0%}", f"{shares.max():.0%}"
    return low if low == high else f"{low} to {high}"


def places(ranking: pd.DataFrame, ranks: Iterable[int]) -> list[str]:
    """Ranks with position and layer of their candidates: 0 (-1, 3)."""
    known = ranking[ranking["rank"].notna()].set_index("rank")
    return [f"{rank} ({known.position[rank]}, {known.layer[rank]})".replace("-", "−") for rank in ranks]
