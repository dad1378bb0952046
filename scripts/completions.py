"""Responses to a set of prompts under every combination, all in shared batches, finished ones kept."""

from pathlib import Path

from refusal import cache, cli, parts
from refusal.artifacts import read_jsonl, write_jsonl
from refusal.combinations import by_folder
from refusal.identity import model_key
from refusal.provenance import spec


def main(args):
    bases, outputs = by_folder(args.bases), by_folder(args.outputs, depth=2)
    sampled = {"temperature": args.temperature, "top_p": args.top_p, "seed": args.seed} if args.temperature else None
    parameters = {
        "model": model_key(args.model),
        "max_new_tokens": args.max_new_tokens,
        "decoding": sampled or "greedy",
    }
    base = spec("completions", parameters, {"prompts": args.prompts})
    contents = {name: cache.content(path) for name, path in bases.items()}
    specs = {name: cache.narrowed(base, basis=content) for name, content in contents.items()}
    if todo := cache.pending(args.cache, specs, args.part):
        _complete(args, todo, bases, contents, sampled)
    if args.marker:
        parts.mark(args.marker, args.part, [item.key for item in specs.values()])
        return
    for name, output in outputs.items():
        inputs = {"model": args.model, "prompts": args.prompts, "basis": bases[name]}
        cache.publish(args.cache, specs[name], output, inputs)


def _complete(args, todo, bases, contents, sampled):
    from refusal.model.generation import complete
    from refusal.model.interventions import read_intervention
    from refusal.model.memory import opened
    from refusal.model.sampling import Sampling

    (chat, fits), prompts = opened(args), read_jsonl(args.prompts)

    def done(name, completions):
        rows = [_row(chat, prompt, one) for prompt, one in zip(prompts, completions, strict=True)]
        if cut := sum(row["reasoning"] is not None and not row["response"] for row in rows):
            cli.log.warning(
                "%s: %d of %d responses end within their reasoning and answer nothing: raise"
                " completions.max_new_tokens, or set `thinking: false` in the model file",
                name,
                cut,
                len(rows),
            )
        cache.store(args.cache, todo[name], lambda path: write_jsonl(path, rows), chat.run)

    complete(
        chat,
        chat.encode_for_responses(prompts),
        {name: read_intervention(bases[name]) for name in todo},
        args.max_new_tokens,
        fits,
        done,
        sampling=Sampling(**sampled) if sampled else None,
        # by content: neither the order of prompts nor what ranks are called changes a draw
        seeds={name: [f"{contents[name]}\n{prompt['instruction']}" for prompt in prompts] for name in todo},
    )


def _row(chat, prompt, completion):
    reasoning, response = chat.split(completion.tokens)
    return {
        "id": prompt["id"],
        "category": prompt["category"],
        "prompt": prompt["instruction"],
        "reasoning": reasoning,
        "response": response,
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
    made.add_argument("--temperature", type=float, default=0.0, help="of sampling; 0 is greedy")
    made.add_argument("--top-p", type=float, default=1.0, help="draw from the likeliest tokens that hold this share")
    made.add_argument("--seed", type=int, default=42, help="of sampling")
    parts.flags(made).add_argument(
        "--outputs", type=Path, nargs="+", default=[], help="COMBINATION/completions/SET.jsonl"
    )
    return made


if __name__ == "__main__":
    cli.run(main, parser())
