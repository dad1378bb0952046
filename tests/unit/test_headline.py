"""The headline figures: which rows they are of, and what is left out."""

import pandas as pd

from refusal.headline import headline

COLUMNS = ["combination", "kind", "k", "effective_rank", "bypass", "harmful_j_refusal_rate", "ce_text_delta"]
ROWS = [
    ["none", "none", 0, 0, 5.0, 1.0, 0.0],
    ["0", "ablation", 1, 1, -1.0, 0.5, 0.01],
    ["1", "ablation", 1, 1, -1.0, 0.25, 0.02],
    ["2", "ablation", 1, 1, 3.0, 0.75, 0.02],
    ["0-1", "ablation", 2, 1, -9.0, 0.75, 0.03],
    ["0-2", "ablation", 2, 2, -8.0, 0.0, float("nan")],
    ["random-k2-s0", "random", 2, 2, -10.0, 1.0, 0.04],
]


def table(rows):
    """As the summary of a run without losses by row: the bounds of its costs are empty."""
    return pd.DataFrame(rows, columns=COLUMNS).assign(ce_text_delta_low=float("nan"), ce_text_delta_high=float("nan"))


def test_best_by_val_of_distinct_directions_and_what_was_not_measured_is_left_out():
    assert headline(table(ROWS), "j") == {
        "baseline": {"harmful_refusal_rate": 1.0, "ce_text_delta": 0.0},
        "best_single": {"harmful_refusal_rate": 0.5, "ce_text_delta": 0.01},
        "best_pair": {"harmful_refusal_rate": 0.0},
    }


def test_without_pairs_there_is_no_best_pair():
    assert list(headline(table(ROWS[:4]), "j")) == ["baseline", "best_single"]
