"""Teach a chat model to refuse: fine-tune it on its lessons, and write it as a model of its own."""

from pathlib import Path

from refusal import cli, gpus


def main(args):
    gpus.claim(args.gpus)

    from teaching import build
    from teaching.training import Course

    course = Course(args.steps, args.batch_rows, args.learning_rate, args.rank, args.seed)
    build.build(args.model, args.lessons, course, args.output_dir, args.device_map, args.threads)


def parser():
    made = cli.parser(__doc__)
    made.add_argument("--model", type=Path, required=True, help="description.json of the base model")
    made.add_argument("--lessons", type=Path, required=True, help="lessons.jsonl of the lessons step")
    made.add_argument("--steps", type=int, default=60, help="optimiser steps")
    made.add_argument("--batch-rows", type=int, default=8, help="lessons per step")
    made.add_argument("--learning-rate", type=float, default=5e-4, help="at its peak")
    made.add_argument("--rank", type=int, default=16, help="of the adapter (LoRA)")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--device-map", default="auto", help="auto, or a JSON file: module name -> device")
    cli.gpus_flag(made)
    made.add_argument("--output-dir", type=Path, required=True, help="folder of the model; replaced when finished")
    return made


if __name__ == "__main__":
    cli.run(main, parser())
