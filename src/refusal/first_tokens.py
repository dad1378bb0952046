"""Which tokens start a model's refusals: those that start far more replies to harmful prompts than to harmless ones."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from refusal.errors import UserError

if TYPE_CHECKING:
    import numpy as np

MIN_CONTRAST = 0.1
"""Least difference of mean probabilities: a tenth more of the replies to harmful prompts.

At 0.05, SmolLM2-135M, which hardly refuses, has the token "To" (9.6% against 2.2%), which starts no refusal.
"""

MIN_RATIO = 2.0
"""Least ratio of the two: a token that starts many replies of any kind is no sign of a refusal."""

MOST = 8
"""Tokens at most; the published lists of refusal tokens have one to three."""

SHOWN = 20
"""Contrasts that are kept beside those chosen."""

HALF = 0.5
"""Share of replies to harmful prompts below which the chosen tokens are to be doubted."""


@dataclass(frozen=True)
class FirstToken:
    """A token as the first of a reply: its mean probability over harmful and over harmless prompts."""

    id: int
    string: str
    harmful: float
    harmless: float

    @property
    def contrast(self) -> float:
        """Harmful minus harmless."""
        return self.harmful - self.harmless

    @property
    def words(self) -> str:
        """For a log."""
        return f'"{self.string}" {self.harmful:.1%} of replies to harmful prompts, {self.harmless:.1%} to harmless'

    def row(self) -> dict[str, Any]:
        """For a file."""
        return asdict(self) | {"contrast": self.contrast}


def strongest(harmful: "np.ndarray", harmless: "np.ndarray") -> list[int]:
    """Ids with the largest contrasts, largest first, ties by id; at most SHOWN.

    Args: mean probabilities [vocab] each.
    """
    contrast = harmful - harmless
    return sorted(range(len(contrast)), key=lambda token: (-contrast[token], token))[:SHOWN]


def propose(table: Sequence[FirstToken], where: str) -> list[FirstToken]:
    """The tokens of a table that start refusals, in its order.

    Raises: UserError, none does, with the strongest ones.
    """
    chosen = [one for one in table if one.contrast >= MIN_CONTRAST and one.harmful >= MIN_RATIO * one.harmless][:MOST]
    if not chosen:
        raise UserError(
            f"{where}: no token starts clearly more replies to harmful prompts than to harmless ones (strongest:"
            f" {'; '.join(one.words for one in table[:3])}): perhaps it hardly refuses; read some replies, and name"
            " `refusal_tokens` in the model file by hand"
        )
    return chosen
