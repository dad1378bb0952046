"""Refusal scores and KL of every combination on val prompts: selection never sees the test set."""

from pathlib import Path

import numpy as np

from refusal import cache, cli, parts
from refusal.artifacts import read_jsonl, write_json
from refusal.combinations import by_folder
from refusal.identity import scoring_key
from refusal.provenance import spec


def main(args):
    bases, outputs = by_folder(args.bases), by_folder(args.outputs)
    prompts = {"harmful": args.harmful, "harmless": args.harmless}
    epsilon = {"refusal": args.epsilon_refusal, "kl": args.epsilon_kl}
    base = spec("combination_scores", {"model": scoring_key(args.model), "epsilon": epsilon}, prompts)
    specs = {name: cache.narrowed(base, basis=cache.content(path)) for name, path in bases.items()}
    if todo := cache.pending(args.cache, specs, args.part):
        _score(args, {name: bases[name] for name in todo}, prompts, epsilon, todo)
    if args.marker:
        parts.mark(args.marker, args.part, [item.key for item in specs.values()])
        return
    for name, output in outputs.items():
        inputs = prompts | {"model": args.model, "basis": bases[name]}
        cache.publish(args.cache, specs[name], output, inputs)


def _score(args, bases, prompts, epsilon, todo):
    from refusal.model.interventions import read_intervention
    from refusal.model.memory import opened
    from refusal.model.scores import Epsilon, baseline_logits, score_groups

    chat, fits = opened(args)
    rows = {k: chat.encode(read_jsonl(f)) for k, f in prompts.items()}
    done = {name: read_intervention(path) for name, path in bases.items()}
    baseline = baseline_logits(chat, rows["harmless"], fits)
    harmful = {name: [(ids, what) for ids in rows["harmful"]] for name, what in done.items()}
    epsilon = Epsilon(**epsilon)
    bypass = score_groups(chat, harmful, fits, what="bypass", epsilon=epsilon)

    def keep(name, harmless):
        value = {
            "bypass": _mean(bypass[name]["refusal_score"]),
            "harmless_refusal_score": _mean(harmless["refusal_score"]),
            "kl": _mean(harmless["kl"]),
            "by_prompt": {
                "harmful_refusal_score": bypass[name]["refusal_score"].tolist(),
                "harmless_refusal_score": harmless["refusal_score"].tolist(),
                "kl": harmless["kl"].tolist(),
            },
        }
        cache.store(args.cache, todo[name], lambda path: write_json(path, value), chat.run)

    harmless = {name: [(ids, what) for ids in rows["harmless"]] for name, what in done.items()}
    score_groups(chat, harmless, fits, baseline, keep, "kl", epsilon)


def _mean(values):
    return float(np.mean(values, dtype=np.float64))


def parser():
    made = cli.stage_parser(__doc__)
    made.add_argument("--harmful", type=Path, required=True, help="harmful_val.jsonl")
    made.add_argument("--harmless", type=Path, required=True, help="harmless_val.jsonl")
    made.add_argument("--bases", type=Path, nargs="+", required=True, help="COMBINATION/basis.safetensors")
    cli.scoring_flags(made)
    parts.flags(made).add_argument("--outputs", type=Path, nargs="+", default=[], help="COMBINATION/scores.json")
    return made


if __name__ == "__main__":
    cli.run(main, parser())
