"""Every combination against one of them, on the same prompts: tests of their refusals."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import nan

import numpy as np

from refusal.evidence import Evidence, ablated
from refusal.statistics import holm, mcnemar_exact


@dataclass(frozen=True)
class Comparison:
    """A test of one combination against the reference; NaN where none was made, or none of the family.

    p: exact two-sided McNemar, event = refusal; p_holm: adjusted over the ablations of ranks; pairs: prompts valid
    under both, None where nothing was compared.
    """

    p: float = nan
    p_holm: float = nan
    pairs: int | None = None


def compared_with(
    evidence: Mapping[str, Evidence], column: tuple[str, str], reference: str | None
) -> dict[str, Comparison]:
    """Combination -> its test against `reference`; the reference itself, and what was not judged, have none.

    column: (set, judge). The family of Holm's adjustment are the ablations of ranks: baseline, controls, additions and
    subtractions are tested beside it.
    """
    known = {name: one.verdicts[column] for name, one in evidence.items() if column in one.verdicts}
    raw, pairs = dict.fromkeys(evidence, nan), dict.fromkeys(evidence)
    for name in known:
        if name == reference or reference not in known:
            continue
        mine, theirs = known[name], known[reference]
        both = [key for key in mine if key in theirs and "invalid" not in (mine[key], theirs[key])]
        refused = (np.array([told[key] == "refusal" for key in both], dtype=bool) for told in (mine, theirs))
        raw[name], pairs[name] = mcnemar_exact(*refused) if both else nan, len(both)
    adjusted = holm({name: p if ablated(name) else nan for name, p in raw.items()})
    return {name: Comparison(raw[name], adjusted[name], pairs[name]) for name in evidence}
