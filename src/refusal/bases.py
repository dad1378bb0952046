"""What any combination does, from the ranks that a study has kept: arrays and the facts about them."""

from pathlib import Path
from typing import Any

import numpy as np

from refusal.artifacts import read_tensors
from refusal.combinations import Combination
from refusal.directions import intervention_tensors
from refusal.errors import UserError

Tensors = tuple[dict[str, np.ndarray], dict[str, Any]]


class Ranked:
    """The raw directions of a study, by rank, and how they are ablated.

    top_directions, directions: files of the ranking and directions steps, the latter for controls of shuffled labels;
    ablation: `span` or `sequential`; seed: of the random controls.
    """

    def __init__(self, top_directions: Path, directions: Path | None, ablation: str, seed: int) -> None:
        tensors, metadata = read_tensors(top_directions)
        self.ablation, self._seed = ablation, seed
        self.candidates: list[dict[str, Any]] = metadata["candidates"]
        self._path, self._top, self._directions = top_directions, tensors["directions"], directions

    def check(self, combination: Combination) -> None:
        """Raises: UserError, ranks that are not there, or as many directions as the stream is wide.

        The remedy is the caller's to say.
        """
        count, width = len(self.candidates), self._top.shape[1]
        if combination.size >= width:
            raise UserError(f'"{combination.id}": leaves nothing of the residual stream, which is {width} wide')
        if combination.ranks and max(combination.ranks) >= count:
            raise UserError(f'"{combination.id}": {self._path} keeps {count} candidates (ranks 0-{count - 1})')

    def tensors(self, combination: Combination) -> Tensors:
        """What basis.safetensors holds of a combination, as `directions.intervention_tensors`, with its candidates.

        Raises: UserError, a control of shuffled labels whose draw is not there.
        """
        shuffled = self._shuffled(combination.seed) if combination.kind == "shuffled" else None
        arrays, facts = intervention_tensors(combination, self._top, self.ablation, self._seed, shuffled)
        source = {"source": "shuffled_labels"} if combination.kind == "shuffled" else {}
        facts["candidates"] = [self.candidates[rank] | source for rank in combination.ranks]
        if facts["kind"] == "addition":
            facts["layer"] = facts["candidates"][0]["layer"]
        return arrays, facts

    def _shuffled(self, draw: int) -> np.ndarray:
        """[draw, rank, d]: mean differences with shuffled labels at the ranks' places, so many draws or more."""
        drawn = read_tensors(self._directions)[0].get("shuffled", ()) if self._directions else ()
        if len(drawn) <= draw:
            raise UserError(
                f"{self._directions or '--directions'}: holds {len(drawn)} draws of shuffled labels, and {1 + draw} are"
                " asked for: run the activations step with as many (controls.shuffled_draws)"
            )
        # positions are below 0, the last at the end
        return drawn[:, [one["position"] for one in self.candidates], [one["layer"] for one in self.candidates]]
