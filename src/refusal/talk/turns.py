"""What is said in a chat: messages, the replies to them under one combination or several, their refusal scores."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Ending = Literal["stop", "length", "context", "stopped"]
"""By a stop token; at the longest reply asked for; because the model's context is full; by the person."""


@dataclass(frozen=True)
class Reply:
    """What the model says under one combination, so far.

    reasoning: what stands before the answer, markers included; response: the answer. ending: None while it grows.
    """

    combination: str
    reasoning: str | None
    response: str
    tokens: tuple[int, ...]
    stop_token: int | None
    ending: Ending | None


@dataclass(frozen=True)
class Turn:
    """A message and the replies to it, of which the last goes into the history.

    scores: combination id -> refusal score of the conversation up to where the answer starts, in nats; empty where it
    was not asked for.
    """

    prompt: str
    scores: Mapping[str, float]
    replies: tuple[Reply, ...]

    @property
    def kept(self) -> Reply:
        """The reply that goes into the history."""
        return self.replies[-1]


def rows(turn: Turn, number: int) -> list[dict[str, Any]]:
    """A turn as rows of JSONL, one a reply, with the fields of the study's completions and those of a chat."""
    return [
        {
            "turn": number,
            "combination": reply.combination,
            "in_history": reply is turn.kept,
            "prompt": turn.prompt,
            "reasoning": reply.reasoning,
            "response": reply.response,
            "n_tokens": len(reply.tokens),
            "finish_reason": reply.ending,
            "stop_token": reply.stop_token,
            "token_ids": list(reply.tokens),
            "refusal_score": turn.scores.get(reply.combination),
        }
        for reply in turn.replies
    ]
