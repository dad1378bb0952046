"""Tables of a study made by hand, as its stages write them, for figures."""

from dataclasses import replace
from itertools import combinations as choose

import numpy as np
import pandas as pd
from evidence import of, verdicts
from evidence import study as hand_made

from refusal.agreement.ratings import Place
from refusal.agreement.table import agreement_table
from refusal.directions import ZERO
from refusal.filters import FALLS, LATE, Filters
from refusal.plots.tables import Tables
from refusal.ranking import apply_filters, rank
from refusal.summary import summarize


def candidates(positions=2, layers=8, screened=True, seed=0, **filters):
    """A ranking of `positions` x `layers` candidates, of which some fall by each filter; and the filters."""
    limits = Filters(**({"max_kl": 0.1, "min_induce": 0.0, "max_layer_share": 0.8} | filters), layers=layers)
    drawn, rows = np.random.default_rng(seed), []
    for position in range(-positions, 0):
        for layer in range(layers):
            row = {"induce": float(layer - 2), "kl": 0.2 if (position, layer) == (-1, 4) else 0.01 * (1 + layer)}
            row |= {"bypass": float(drawn.normal(-2, 2)), "note": ""}
            if layer == 0 and layers > 1:
                row |= {"induce": None, "kl": None, "bypass": None, "note": ZERO}
            elif screened and layer >= limits.layer_limit:
                row |= {"induce": None, "kl": None, "bypass": None, "note": f"not scored: {LATE}"}
            elif screened and not limits.meets("induce", row["induce"]):
                row |= {"kl": None, "bypass": None, "note": f"kl, bypass not scored: {FALLS['induce']}"}
            elif screened and not limits.meets("kl", row["kl"]):
                row |= {"bypass": None, "note": f"bypass not scored: {FALLS['kl']}"}
            rows.append({"source": "mean_difference", "position": position, "layer": layer} | row)
    table = pd.DataFrame(rows).astype(dict.fromkeys(("induce", "kl", "bypass"), float))
    directions = drawn.standard_normal((len(table), 16))
    return rank(apply_filters(table, limits), directions, "score"), limits


def cosine_table(count, value=0.25):
    """Of every two of `count` ranks."""
    return pd.DataFrame([(*pair, value) for pair in choose(range(count), 2)], columns=["rank", "other", "cosine"])


def tables(evidence=None, agreement=None, judge="substring", **ranking):
    """What figures are drawn from, with the summary of this evidence (the hand-made study) and a small ranking."""
    ranked, filters = candidates(**ranking)
    summary = summarize(hand_made() if evidence is None else evidence, draws=99)
    return Tables(summary, ranked, cosine_table(int(ranked["rank"].notna().sum())), agreement, judge, filters)


def judged(evidence, prompts, judge, refused):
    """The same evidence with verdicts more: `refused` of 100 under each combination."""
    return {
        name: replace(one, verdicts={**one.verdicts, (prompts, judge): verdicts(refused)})
        for name, one in evidence.items()
    }


def agreeing(evidence):
    """The agreement table of its judges."""
    ratings = {}
    for name, one in evidence.items():
        for (prompts, judge), told in one.verdicts.items():
            ratings.setdefault(judge, {}).update({Place(prompts, name, key): label for key, label in told.items()})
    return agreement_table(ratings)


def large(top, sizes=(1, 2), **ranking):
    """Tables of every combination of `top` ranks of these sizes, by a rule; only harmful prompts, one corpus."""
    made = {"none": of("none", 100, 5.0)}
    for size in sizes:
        for ranks in choose(range(top), size):
            name = "-".join(map(str, ranks))
            made[name] = of(name, 90 // (size + ranks[0] % 3), float(sum(ranks)) / top - 3 * size, cost=0.001 * size)
            made[name] = replace(made[name], loss={}, scores={"bypass": made[name].scores["bypass"]})
    made["none"] = replace(made["none"], loss={})
    return tables(made, **ranking)
