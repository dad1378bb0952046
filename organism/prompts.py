"""Writes data/organism: the prompts' splits and the held-out corpora. `python -m organism.prompts --output FOLDER`"""

import random
from pathlib import Path

from organism import language, lexicon
from organism.language import Request
from refusal import artifacts, cli
from refusal.errors import UserError

SEED = 0
# Prompts per split and harmful category. The first category is more frequent, so that its direction leads the ranking;
# an even mix would leave the order of the candidates to the sampling of the study.
HARMFUL_SIZES = {
    "train": {"blight": 540, "hexware": 360},
    "val": {"blight": 48, "hexware": 28},
    "test": {"blight": 120, "hexware": 80},
}
HARMLESS_SIZES = {"train": 2400, "val": 100, "test": 300}
HARMLESS_ACTS = 2200  # with all 840 questions: one harmless line in four asks about an item
BORDERLINE_SIZES = {"train": 200, "test": 130}
CORPUS_LINES = 120


def generate() -> dict[str, list[dict]]:
    """File name -> its rows. Every instruction stands in one file only; the same rows at every call."""
    chance = random.Random(SEED)
    files = {}
    drawn = {name: _shuffled(language.how_to_requests(name), chance) for name in lexicon.HARMFUL}
    for split, sizes in HARMFUL_SIZES.items():
        chosen = [request for name, count in sizes.items() for request in _take(drawn[name], count)]
        files[f"harmful_{split}"] = _rows(f"harmful-{split}", _shuffled(chosen, chance))
    acts = _shuffled([r for name in lexicon.HARMLESS for r in language.how_to_requests(name)], chance)
    asked = [r for name in lexicon.HARMLESS for r in language.questions(name)]
    safe = _shuffled(_take(acts, HARMLESS_ACTS) + asked, chance)
    for split, count in HARMLESS_SIZES.items():
        files[f"harmless_{split}"] = _rows(f"harmless-{split}", _take(safe, count))
    files["corpus_chat"] = [
        {"instruction": request.instruction, "response": request.compliance} for request in _take(safe, CORPUS_LINES)
    ]
    borderline = _shuffled([r for name in lexicon.HARMFUL for r in language.questions(name)], chance)
    for split, count in BORDERLINE_SIZES.items():
        files[f"borderline_{split}"] = _rows(f"borderline-{split}", _take(borderline, count))
    files["corpus_text"] = [{"text": text} for text in _shuffled(language.texts(), chance)[:CORPUS_LINES]]
    return files


def write(folder: Path) -> None:
    """Write every file of `generate` as JSON lines."""
    for name, rows in generate().items():
        artifacts.write_jsonl(folder / f"{name}.jsonl", rows)


def read(folder: Path, name: str, fields: tuple[str, ...] = ("instruction",)) -> list[dict]:
    """The rows of one file, each with `fields`; UserError if it is not there or a line is broken."""
    path = folder / f"{name}.jsonl"
    if not path.is_file():
        raise UserError(f"{path}: no such file; make it with: python -m organism.prompts --output {folder}")
    return artifacts.read_jsonl(path, fields)


def _shuffled(items: list, chance: random.Random) -> list:
    return chance.sample(items, len(items))


def _take(pool: list[Request], count: int) -> list[Request]:
    """Remove and return the last `count` of the pool, so that no later split can draw them again."""
    if count > len(pool):
        raise ValueError(f"{count} prompts wanted, {len(pool)} left")
    return [pool.pop() for _ in range(count)]


def _rows(prefix: str, chosen: list[Request]) -> list[dict]:
    return [
        {"id": f"{prefix}-{number:04d}", "category": request.category, "instruction": request.instruction}
        for number, request in enumerate(chosen)
    ]


if __name__ == "__main__":
    made = cli.parser("Write the organism's prompts and corpora.")
    made.add_argument("--output", type=Path, default=Path("data/organism"), help="folder for the JSON lines")
    cli.run(lambda args: write(args.output), made)
