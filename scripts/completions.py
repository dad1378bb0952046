"""Greedy responses to a set of prompts under every combination, all in shared batches, finished ones kept."""

from pathlib import Path

from refusal import cache, cli
from refusal.artifacts import read_jsonl, write_jsonl
from refusal.combinations import by_folder
from refusal.identity import model_key
from refusal.provenance import spec


def main(args):
    bases, outputs = by_folder(args.bases), by_folder(args.outputs, depth=2)
    parameters = {"model": model_key(args.model), "max_new_tokens": args.max_new_tokens, "decoding": "greedy"}
    specs = {
        name: cache.narrowed(spec("completions", parameters, {"prompts": args.prompts}), basis=cache.content(path))
        for name, path in bases.items()
    }
    if todo := cache.pending(args.cache, specs):
        from refusal.model.generation import complete
        from refusal.model.interventions import read_intervention
        from refusal.model.loading import load

        chat, prompts = load(args.model), read_jsonl(args.prompts)

        def done(name, completions):
            rows = [_row(chat, prompt, one) for prompt, one in zip(prompts, completions, strict=True)]
            cache.store(args.cache, todo[name], lambda path: write_jsonl(path, rows), chat.run)

        complete(
            chat,
            chat.encode(prompts),
            {name: read_intervention(bases[name]) for name in todo},
            args.max_new_tokens,
            args.batch_rows,
            done,
        )
    for name, output in outputs.items():
        inputs = {"model": args.model, "prompts": args.prompts, "basis": bases[name]}
        cache.publish(args.cache, specs[name], output, inputs)


def _row(chat, prompt, completion):
    return {
        "id": prompt["id"],
        "category": prompt["category"],
        "prompt": prompt["instruction"],
        "response": chat.tokenizer.decode(completion.tokens, skip_special_tokens=True),
        "n_tokens": len(completion.tokens),
        "finish_reason": "length" if completion.stop_token is None else "stop",
        "stop_token": completion.stop_token,
        "token_ids": completion.tokens,
    }


def parser():
    made = cli.stage_parser(__doc__)
    made.add_argument("--prompts", type=Path, required=True)
    made.add_argument("--bases", type=Path, nargs="+", required=True, help="COMBINATION/basis.safetensors")
    made.add_argument("--max-new-tokens", type=int, default=128)
    made.add_argument("--outputs", type=Path, nargs="+", required=True, help="COMBINATION/completions/SET.jsonl")
    return made


if __name__ == "__main__":
    cli.run(main, parser())
