"""How large the page of a study gets: responses of random words, which pack worse than a model's, and one judge.

python benchmarks/page.py --prompts 100 --combinations 30 --characters 500
"""

import argparse
import random
import tempfile
import time
from pathlib import Path

from refusal.artifacts import read_jsonl, write_jsonl
from refusal.report.pages import packed
from refusal.report.responses import gather

ROOT = Path(__file__).resolve().parents[1]
SETS = ("harmful", "harmless", "borderline")


def main():
    args = parser().parse_args()
    drawn = random.Random(0)
    words = [word for row in read_jsonl(ROOT / "data/borderline_test.jsonl") for word in row["instruction"].split()]

    def text(characters):
        # words are about as often as in English: the list has the common ones many times
        return " ".join(drawn.choices(words, k=characters // 5))[:characters]

    with tempfile.TemporaryDirectory() as folder:
        for prompts in SETS:
            asked = [text(80) for _ in range(args.prompts)]
            for combination in range(args.combinations):
                at = Path(folder) / str(combination)
                rows = [
                    {"id": f"{prompts}-{number}", "prompt": prompt, "response": text(args.characters), "n_tokens": 100}
                    for number, prompt in enumerate(asked)
                ]
                write_jsonl(at / f"completions/{prompts}.jsonl", rows)
                judged = [
                    {"id": row["id"], "verdict": "refusal", "raw": row["response"], "reason": "by phrase"}
                    for row in rows
                ]
                write_jsonl(at / f"judgements/judge/{prompts}.jsonl", judged)
        completions, judgements = (
            sorted(Path(folder).glob(f"*/{kind}/**/*.jsonl")) for kind in ("completions", "judgements")
        )
        started = time.monotonic()
        found = gather(completions, judgements)
        data = packed(found)
    characters = sum(map(len, found["texts"]))
    print(
        f"{len(completions)} files, {characters / 1e6:.1f} MB of text: {len(data) / 1e6:.1f} MB in the page,"
        f" {time.monotonic() - started:.1f} s"
    )


def parser():
    made = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    made.add_argument("--prompts", type=int, default=100, help="of each of three sets")
    made.add_argument("--combinations", type=int, default=30)
    made.add_argument("--characters", type=int, default=500, help="of a response")
    return made


if __name__ == "__main__":
    main()
