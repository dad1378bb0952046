"""A conversation with a model: its turns, replies as they grow, the refusal score of each turn."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from refusal.cache import held
from refusal.errors import UserError
from refusal.model.batching import Room, in_batches
from refusal.model.chat import Rendering, tokenize_chat
from refusal.model.generation import Completion, growing
from refusal.model.interventions import Intervention, from_tensors
from refusal.model.loading import ChatModel, load
from refusal.model.memory import footprint, room
from refusal.model.sampling import Sampling
from refusal.model.scores import check_finite, last_logits, refusal_score
from refusal.talk.finished import Finished
from refusal.talk.turns import Ending, Reply, Turn

_ROWS = 2
"""Replies that grow together: the baseline's and another."""


@dataclass(frozen=True)
class Version:
    """The model under one combination. content: what of it decides a draw, where replies are sampled."""

    id: str
    intervention: Intervention
    content: str


class Opened:
    """A study's model, loaded, to begin conversations with."""

    def __init__(self, study: Finished, device_map: str = "auto") -> None:
        self._study, self._versions = study, {}
        self._chat = load(study.model, device_map)
        self._room = room(self._chat, _ROWS)
        self._sampling = Sampling(**study.sampling) if study.sampling else None

    def conversation(self, max_new_tokens: int) -> "Conversation":
        """A new one; of one model, one at a time may grow."""
        return Conversation(self._chat, self._room, max_new_tokens, self._sampling)

    def version(self, text: str) -> Version:
        """The model under the combination that a person names.

        Raises: UserError, none, or of ranks that are not there.
        """
        combination = self._study.combination(text)
        if combination.id not in self._versions:
            tensors, facts = self._study.ranked.tensors(combination)
            self._versions[combination.id] = Version(combination.id, from_tensors(tensors, facts), held(tensors, facts))
        return self._versions[combination.id]


class Conversation:
    """Turns with a model, rendered as the study renders its prompts.

    max_new_tokens: of a reply; sampling: as in the study's completions, None for greedy replies.
    """

    def __init__(self, chat: ChatModel, room: Room, max_new_tokens: int, sampling: Sampling | None = None) -> None:
        self.turns: list[Turn] = []
        self._chat, self._room, self._max_new_tokens, self._sampling = chat, room, max_new_tokens, sampling
        self._stopping = False

    def stop(self) -> None:
        """End the replies that grow now after the step they are in; what was said stays."""
        self._stopping = True

    def ask(self, prompt: str, versions: Sequence[Version], scored: bool = False) -> Iterator[Turn]:
        """Say something, and yield the turn while its replies grow, the last time with their endings.

        All versions reply to the same history, and the last one's reply goes into it; where that is empty, the turn
        leaves nothing.
        Raises: UserError, no room in the model's context; the conversation stays as it was.
        """
        self._stopping = False
        chat, messages = self._chat, self._messages(prompt)
        ids = self._ids(messages, chat.asking.answered)
        new = min(self._max_new_tokens, self._left(ids))
        turn = Turn(prompt, self._scores(messages, versions) if scored else {}, ())
        if scored:
            yield turn
        said = "\n".join(message["content"] for message in messages if message["role"] != "system")
        steps = growing(
            chat,
            ids,
            {one.id: one.intervention for one in versions},
            new,
            self._room,
            self._sampling,
            {one.id: f"{one.content}\n{said}" for one in versions},
        )
        for found in steps:
            turn = Turn(prompt, turn.scores, tuple(self._reply(one.id, found[one.id], new) for one in versions))
            if self._stopping or all(reply.ending for reply in turn.replies):
                break
            yield turn
        ended = tuple(
            reply if reply.ending else self._reply(reply.combination, found[reply.combination], new, "stopped")
            for reply in turn.replies
        )
        turn = Turn(prompt, turn.scores, ended)
        if turn.kept.response:
            self.turns.append(turn)
        yield turn

    def _messages(self, prompt: str) -> list[dict[str, str]]:
        system = self._chat.system_prompt
        messages = [] if system is None else [{"role": "system", "content": system}]
        for turn in self.turns:
            messages.append({"role": "user", "content": turn.prompt})
            messages.append({"role": "assistant", "content": turn.kept.response})
        return [*messages, {"role": "user", "content": prompt}]

    def _ids(self, messages: Sequence[dict[str, str]], rendering: Rendering) -> list[int]:
        return tokenize_chat(self._chat.tokenizer, messages, rendering)

    def _left(self, ids: list[int]) -> int:
        """Tokens that a reply may have; without a bound in the model's config, any number."""
        context = getattr(self._chat.model.config.get_text_config(), "max_position_embeddings", None)
        if context is None:
            return self._max_new_tokens
        if len(ids) >= context:
            raise UserError(
                f"with this message the conversation has {len(ids)} tokens, and the model reads {context}: say less,"
                " undo or reset"
            )
        return context - len(ids)

    def _scores(self, messages: Sequence[dict[str, str]], versions: Sequence[Version]) -> dict[str, float]:
        chat, ids = self._chat, self._ids(messages, self._chat.asking.scored)
        size = footprint(chat).row(len(ids))
        batches = in_batches(
            versions,
            self._room,
            lambda _: size,
            lambda some: refusal_score(
                last_logits(chat, [(ids, one.intervention) for one in some]), chat.refusal_tokens
            ),
        )
        scores = {}
        for some, found in batches:
            for one, score in zip(some, found.cpu().numpy(), strict=True):
                check_finite(one.id, {"refusal_score": score[None]})
                scores[one.id] = float(score)
        return scores

    def _reply(self, name: str, found: Completion, new: int, ending: Ending | None = None) -> Reply:
        if found.stop_token is not None:
            ending = "stop"
        elif len(found.tokens) == new:
            ending = "length" if new == self._max_new_tokens else "context"
        reasoning, response = self._chat.split(found.tokens)
        if ending in (None, "stopped"):
            # a character whose bytes are not all there
            reasoning, response = reasoning and reasoning.rstrip("\ufffd"), response.rstrip("\ufffd")
            block = self._chat.asking.block
            if reasoning and not response and block.opening.startswith(reasoning.lstrip()) and ending is None:
                reasoning = None  # what begins like a think block may yet be an answer
        return Reply(name, reasoning, response, tuple(found.tokens), found.stop_token, ending)
