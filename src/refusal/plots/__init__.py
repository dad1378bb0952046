"""Figures of a study, from its tables alone: a module each, which says in words what there is to see.

Nothing here draws before it is called, so that rules can name the figures without loading matplotlib.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

NAMES = ("refusals", "matrix", "costs", "scores", "cosines", "promises", "agreement")
"""Of the figures of one study, in the order of reading; `refusal.plots.figures` has what draws each."""

FILES = (*(f"{name}.{ending}" for name in NAMES for ending in ("svg", "png")), "captions.json")
"""What is drawn of one study."""


def compare(tables: "Mapping[str, tuple[pd.DataFrame, str]]") -> "Figure":
    """Refusals without ablation, and under the best single and best pair on val, of several models.

    Args:
        tables: model -> its summary, and the judge whose verdicts count; where it judged nothing, the row says so.
    """
    from refusal.plots.side_by_side import draw

    return draw(tables)


def as_svg(figure: "Figure", name: str) -> str:
    """A figure as text of an SVG element: its text is text, in the colour of the page; ids begin with `name`."""
    from refusal.plots.files import svg

    return svg(figure, name)
