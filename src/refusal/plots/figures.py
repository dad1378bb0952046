"""Which function draws which figure of a study."""

from collections.abc import Callable

from refusal.plots import agreement, cosines, costs, matrix, promises, refusals, scores
from refusal.plots.style import Drawn
from refusal.plots.tables import Tables

FIGURES: dict[str, Callable[[Tables], Drawn]] = {
    "refusals": refusals.draw,
    "matrix": matrix.draw,
    "costs": costs.draw,
    "scores": scores.draw,
    "cosines": cosines.draw,
    "promises": promises.draw,
    "agreement": agreement.draw,
}
"""Name, as in `refusal.plots.NAMES` -> what draws it."""
