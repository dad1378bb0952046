"""Thresholds that a candidate must meet to be ranked."""

from dataclasses import dataclass

SWEPT = ("induce", "kl", "bypass")
"""A candidate's scores, cheapest first: a screened sweep asks for the next only of those that the last one left."""

FALLS = {"induce": "low induce", "kl": "high kl"}
LATE = "late layer"
"""What is said of a candidate that misses a threshold."""

NAN = "not a number"
"""What the note of a candidate begins with that has such a score (of an imported run): no threshold lets it in."""


@dataclass(frozen=True)
class Filters:
    """Thresholds a candidate must meet: kl and induce in nats; its layer below int(max_layer_share x layers)."""

    max_kl: float
    min_induce: float
    max_layer_share: float
    layers: int

    @property
    def layer_limit(self) -> int:
        """Candidates of this layer and above fall."""
        return int(self.max_layer_share * self.layers)

    def meets(self, score: str, value: float) -> bool:
        """Whether a score is within its threshold; bypass has none."""
        return {"induce": value >= self.min_induce, "kl": value <= self.max_kl, "bypass": True}[score]
