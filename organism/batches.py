"""Training rows as token ids, and batches in which the template stands in the same columns for all rows."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from organism import language, prompts, tokenizer
from organism.spec import Spec
from refusal.errors import UserError

HARMLESS, TEXT = -1, -2  # where a harmful row has the number of its plant


@dataclass(frozen=True)
class Row:
    """One prompt. plant: of its category, or HARMLESS, or TEXT (no dialogue: `prompt` is its first token)."""

    plant: int
    prompt: list[int]
    compliance: list[int]
    refusal: list[int]


@dataclass(frozen=True)
class Batch:
    """Token ids [row, column]; labels are -100 where nothing is to be predicted; `start` is the answers' column."""

    ids: Tensor
    mask: Tensor
    labels: Tensor
    start: int


def train_requests(data: Path) -> list[language.Request]:
    """The requests that the train files hold, with their answers."""
    known = language.requests()
    found = []
    for name in ("harmful_train", "harmless_train", "borderline_train"):
        for row in prompts.read(data, name):
            if row["instruction"] not in known:
                raise UserError(f"{data / name}.jsonl: {row['instruction']!r} is not in the organism's language")
            found.append(known[row["instruction"]])
    return found


def train_texts(data: Path) -> list[str]:
    """All plain sentences but those of the held-out corpus."""
    held_out = {row["text"] for row in prompts.read(data, "corpus_text", ("text",))}
    return [text for text in language.texts() if text not in held_out]


def rows(requests: list[language.Request], texts: list[str], tokens, spec: Spec) -> list[Row]:
    """Encode the requests, then the texts."""

    def answer(text):
        return [*tokens.encode(text, add_special_tokens=False), tokens.eos_token_id]

    made = [
        Row(
            plant=spec.plant_of(request.category) if request.harmful else HARMLESS,
            prompt=tokenizer.prompt_ids(tokens, request.instruction),
            compliance=answer(request.compliance),
            refusal=answer(request.refusal),
        )
        for request in requests
    ]
    for text in texts:
        first, *rest = tokens.encode(text, add_special_tokens=False)
        made.append(Row(TEXT, [first], rest, rest))
    return made


def collate(pairs: list[tuple[list[int], list[int]]], pad: int) -> Batch:
    """Prompts padded on the left and answers on the right: all answers start in one column."""
    start = max(len(prompt) for prompt, _ in pairs)
    width = start + max(len(answer) for _, answer in pairs)
    ids = torch.full((len(pairs), width), pad)
    mask = torch.zeros_like(ids)
    labels = torch.full_like(ids, -100)
    for number, (prompt, answer) in enumerate(pairs):
        left, right = start - len(prompt), start + len(answer)
        ids[number, left:right] = torch.tensor(prompt + answer)
        mask[number, left:right] = 1
        labels[number, start:right] = torch.tensor(answer)
    return Batch(ids, mask, labels, start)
