"""Draw what a model is to be taught: refusals to harmful prompts, its own replies to harmless and borderline ones.

No test prompt is among them, nor one that shares most of its words; the prompts step leaves them out of train and val.
"""

from pathlib import Path

from refusal import cache, cli
from refusal.artifacts import digest, read_jsonl, write_jsonl
from refusal.identity import model_key
from refusal.provenance import Spec, code_version, spec, stamp
from teaching.lessons import draw, lessons
from teaching.refusals import refusals

ANSWERED = ("harmless", "borderline")


def main(args):
    files = {kind: getattr(args, kind) for kind in ("harmful", *ANSWERED) if getattr(args, kind)}
    counts = {kind: getattr(args, f"{kind}_count") for kind in files}
    drawn = draw(files, counts, args.kept_out, args.max_overlap, args.seed)
    rows = lessons("harmful", drawn["harmful"], [(text, True) for text in refusals(counts["harmful"], args.seed)])
    answered = [(kind, prompt) for kind in ANSWERED for prompt in drawn.get(kind, [])]
    item = Spec(
        "lessons",
        code_version("lessons"),
        {
            "model": model_key(args.model),
            "prompts": digest([prompt["instruction"] for _, prompt in answered]),
            "reply_tokens": args.reply_tokens,
        },
    )
    if cache.pending(args.cache, {"replies": item}):
        _reply(args, item, [prompt for _, prompt in answered])
    data, run = cache.load(args.cache, item)
    for (kind, prompt), reply in zip(answered, read_jsonl(data), strict=True):
        rows += lessons(kind, [prompt], [(reply["response"], reply["ended"])])
    write_jsonl(args.output, rows)
    inputs = {"model": args.model, **files, **{f"kept_out_{n}": file for n, file in enumerate(args.kept_out)}}
    made = spec(
        "lessons",
        {"counts": counts, "max_overlap": args.max_overlap, "reply_tokens": args.reply_tokens, "seed": args.seed},
        inputs,
    )
    stamp(args.output, made, inputs, run | {"items": [item.key]})
    cli.log.info("%s", ", ".join(f"{count} {kind}" for kind, count in counts.items()))


def _reply(args, item, prompts):
    from refusal.model.generation import complete
    from refusal.model.interventions import none
    from refusal.model.memory import opened

    chat, fits = opened(args)
    rows = []

    def done(_, completions):
        for one in completions:
            text = chat.tokenizer.decode(one.tokens, skip_special_tokens=True)
            rows.append({"response": text, "ended": one.stop_token is not None})

    complete(chat, chat.encode(prompts), {"none": none(chat.width)}, args.reply_tokens, fits, done)
    cache.store(args.cache, item, lambda path: write_jsonl(path, rows), chat.run)


def parser():
    made = cli.stage_parser(__doc__)
    for kind in ("harmful", *ANSWERED):
        made.add_argument(f"--{kind}", type=Path, required=kind != "borderline", help="prompt file (.jsonl or .json)")
        made.add_argument(f"--{kind}-count", type=int, default=0, help="prompts drawn of it")
    made.add_argument("--kept-out", type=Path, nargs="+", default=[], help="prompt files of which none is taught")
    made.add_argument("--max-overlap", type=float, default=0.5, help="share of words that makes a prompt a paraphrase")
    made.add_argument("--reply-tokens", type=int, default=64, help="longest reply of the model's own")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--output", type=Path, required=True)
    return made


if __name__ == "__main__":
    cli.run(main, parser())
