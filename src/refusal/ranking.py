"""From candidate scores to ranks: filters, then an order. Cheap, so a threshold never reruns the sweep."""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from refusal.directions import ZERO, unit
from refusal.errors import UserError
from refusal.filters import FALLS, LATE, NAN, Filters

UNSCORED = "not scored"
"""Why a candidate falls that meets the thresholds, where the sweep was screened by other ones."""

KEYS = ["source", "position", "layer"]
"""What a candidate is called by; index within (source, position, layer) joins them when a source gives several."""


def candidate_directions(table: pd.DataFrame, tensors: Mapping[str, np.ndarray], metadata: Mapping) -> np.ndarray:
    """The raw direction of each row of a table: [row, d], in the order of its index 0..rows-1."""
    row_of = {token["position"]: row for row, token in enumerate(metadata["positions"])}
    return np.stack([tensors["directions"][row_of[row.position], row.layer] for row in table.itertuples()])


def apply_filters(scores: pd.DataFrame, filters: Filters) -> pd.DataFrame:
    """The table with `kept` and `reason` (every filter a candidate falls by; empty where kept).

    Args:
        scores: columns source, position, layer, bypass, induce, kl, note.
    Raises: UserError, none left: names each filter, how many it removed, and a threshold that would leave some.
    Source: arXiv:2406.11717, section 2.3 and appendix C (selecting a direction).
    """
    table = scores.copy()
    # a score that a screened sweep left out is no reason: the candidate fell before
    falls = {
        LATE: table.layer >= filters.layer_limit,
        FALLS["induce"]: table.induce < filters.min_induce,
        FALLS["kl"]: table.kl > filters.max_kl,
    }
    zero, broken = table.note == ZERO, table.note.map(lambda note: str(note).startswith(NAN)).astype(bool)
    named = {**falls, NAN: broken}
    reasons = pd.DataFrame({name: np.where(fallen & ~zero, name, "") for name, fallen in named.items()})
    table["reason"] = [
        ZERO if is_zero else "; ".join(filter(None, row))
        for is_zero, row in zip(zero, reasons.itertuples(index=False), strict=True)
    ]
    unscored = (table.reason == "") & table[["induce", "kl", "bypass"]].isna().any(axis=1)
    table.loc[unscored, "reason"] = UNSCORED
    table["kept"] = table.reason == ""
    if not table.kept.any():
        raise UserError(_none_left(table, falls, zero, broken))
    return table


def rank(
    table: pd.DataFrame,
    directions: np.ndarray,
    mode: str,
    max_cosine: float = 0.5,
    conditional: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Give each kept candidate its rank, by one of three modes.

    score: bypass ascending. diverse: greedy; the next best with |cosine| < max_cosine to all taken, others get none.
    conditional: greedy; the lowest bypass while those taken are ablated too, as far as scored, then by score.
    Ties go by (layer, position).

    Args:
        table: of `apply_filters`; directions: [row of the table, d], raw.
        conditional: columns step, source, position, layer, bypass; needed in that mode.
    Returns: the table, ranked ones first, with rank (missing where dropped), mode, and cosine_to_rank_0.
    """
    order = {"score": _by_score, "diverse": _diverse, "conditional": _conditional}[mode]
    taken, reasons = order(table, directions, max_cosine, conditional)
    ranked = table.assign(rank=pd.array([pd.NA] * len(table), dtype="Int64"), mode=mode)
    ranked.loc[taken, "rank"] = range(len(taken))
    for index, reason in reasons.items():
        ranked.loc[index, ["kept", "reason"]] = [False, reason]
    lengths = np.linalg.norm(directions, axis=1)
    nonzero = np.where(lengths > 0, lengths, 1.0)
    along = directions @ unit(directions[taken[0]]) / nonzero
    ranked["cosine_to_rank_0"] = np.where(ranked.note == ZERO, np.nan, along)
    return ranked.sort_values(["rank", "layer", "position"], na_position="last")


def best_first(table: pd.DataFrame) -> list:
    """Index labels in the order of bypass, ties by (layer, position)."""
    return list(table.sort_values(["bypass", "layer", "position"], kind="stable").index)


_KL_OPEN = " (if their kl, not scored yet, is met; `ranking.sweep: full` scores it)"

Order = Callable[[pd.DataFrame, np.ndarray, float, pd.DataFrame | None], tuple[list, dict]]


def _by_score(table: pd.DataFrame, *_ignored) -> tuple[list, dict]:
    return best_first(table[table.kept]), {}


def _diverse(table: pd.DataFrame, directions: np.ndarray, max_cosine: float, _conditional) -> tuple[list, dict]:
    taken: list = []
    reasons: dict = {}
    for index in best_first(table[table.kept]):
        similar = np.abs(unit(directions[taken]) @ unit(directions[index])) if taken else np.zeros(0)
        if (similar >= max_cosine).any():
            closest = int(similar.argmax())
            reasons[index] = f"|cosine| {similar[closest]:.2f} to rank {closest}"
        else:
            taken.append(index)
    return taken, reasons


def _conditional(table: pd.DataFrame, _directions, _max_cosine, conditional: pd.DataFrame) -> tuple[list, dict]:
    kept = table[table.kept]
    label = {key: index for index, key in zip(kept.index, kept[KEYS].itertuples(index=False, name=None), strict=True)}
    taken: list = []
    for _, step in conditional.groupby("step", sort=True):
        # -1 is no row: a candidate that was scored and is not kept
        rows = step.assign(label=[label.get(key, -1) for key in step[KEYS].itertuples(index=False, name=None)])
        rows = rows[(rows.label >= 0) & ~rows.label.isin(taken)].set_index("label")
        if not rows.empty:
            taken.append(best_first(rows)[0])
    return taken + [index for index in best_first(kept) if index not in taken], {}


def _none_left(table: pd.DataFrame, falls: dict, zero: pd.Series, broken: pd.Series) -> str:
    counts = ", ".join(f"{name} {int((fallen & ~zero).sum())}" for name, fallen in falls.items())
    counts += f", {NAN} {int(broken.sum())}" if broken.any() else ""
    head = (
        f"ranking: no candidate of {len(table)} is left; removed by filter: {ZERO} {int(zero.sum())}, {counts}"
        " (one may fall by several);"
    )
    late = falls[LATE] & ~zero & ~broken & table.induce.isna()  # by a screened sweep; nothing else is known of them
    scored = table.induce.notna() & ~zero & ~broken
    if broken.any() and not scored.any() and not late.any():
        return f"{head} no threshold would leave some: every candidate with a direction has a score that is {NAN}"
    if not scored.any() and not late.any():
        return f"{head} no threshold would leave some: harmful and harmless train prompts have equal activations"
    fallen = pd.DataFrame(falls)[scored]
    # those that need the fewest thresholds loosened, by which these are
    nearest = fallen[fallen.sum(axis=1) == fallen.sum(axis=1).min()]
    advice = []
    for which, group in nearest.groupby(list(nearest)):
        needed = [name for name, is_needed in zip(nearest, which, strict=True) if is_needed]
        rows = table.loc[group.index]
        mildest = rows.loc[rows.kl.idxmin() if FALLS["kl"] in needed else rows.induce.idxmax()]
        loosened = {
            LATE: "ranking.max_layer_share: 1.0",
            FALLS["induce"]: f"ranking.min_induce: {_floor(mildest.induce)}",
            FALLS["kl"]: f"ranking.max_kl: {_ceil(mildest.kl)}",
        }
        advice.append(" with ".join(loosened[name] for name in needed) + ("" if rows.kl.notna().all() else _KL_OPEN))
    if scored.sum() == 0:
        advice = ["ranking.max_layer_share: 1.0 (none of their scores is known yet)"]
    return f"{head} would leave some: {' or '.join(advice)}"


def _floor(value: float) -> float:
    return float(np.floor(value * 100) / 100)


def _ceil(value: float) -> float:
    return float(np.ceil(value * 100) / 100)
