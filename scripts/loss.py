"""CE loss and perplexity of every combination, on corpora and on the model's own baseline responses."""

import math
from pathlib import Path

from refusal import cache, cli, parts
from refusal.artifacts import read_json, read_jsonl, write_json
from refusal.combinations import by_folder
from refusal.errors import UserError
from refusal.identity import model_key
from refusal.provenance import Spec, code_version, stamp

OWN = "on_distribution"


def main(args):
    bases, outputs = by_folder(args.bases), by_folder(args.outputs)
    corpora = {path.stem: path for path in args.text + args.chat}
    if args.completions:
        corpora[OWN] = args.completions
    code, model = code_version("loss"), model_key(args.model)
    specs = {
        (corpus, name): Spec(
            "loss",
            code,
            {"model": model, **_cut(corpus, args)},
            {"corpus": cache.content(path), "basis": cache.content(basis)},
        )
        for corpus, path in corpora.items()
        for name, basis in bases.items()
    }
    if todo := cache.pending(args.cache, specs, args.part):
        _compute(args, todo, corpora, bases)
    if args.marker:
        parts.mark(args.marker, args.part, [item.key for item in specs.values()])
        return
    for name, output in outputs.items():
        items = {corpus: cache.load(args.cache, specs[corpus, name]) for corpus in corpora}
        write_json(output, {corpus: _figures(read_json(data)) for corpus, (data, _) in items.items()})
        inputs = {"model": args.model, "basis": bases[name], **{f"corpus {n}": path for n, path in corpora.items()}}
        made = Spec("loss", code, {"max_tokens": args.max_tokens}, {r: cache.content(p) for r, p in inputs.items()})
        run = next((run for _, run in items.values()), {})
        stamp(output, made, inputs, run | {"items": [specs[corpus, name].key for corpus in corpora]})


def _format(corpus, args):
    return OWN if corpus == OWN else "chat" if corpus in {path.stem for path in args.chat} else "text"


def _cut(corpus, args):
    """How a corpus is read; responses are never cut, so no length is theirs."""
    form = _format(corpus, args)
    return {"format": form, "max_tokens": args.max_tokens if form == "text" else None}


def _compute(args, todo, corpora, bases):
    from refusal.model import loss
    from refusal.model.interventions import read_intervention
    from refusal.model.memory import opened

    chat, fits = opened(args)
    for corpus, path in corpora.items():
        wanted = {name: read_intervention(bases[name]) for one, name in todo if one == corpus}
        if not wanted:
            continue
        rows = read_jsonl(path)
        if _format(corpus, args) == "text":
            spans = loss.text_spans(chat.tokenizer, rows, args.max_tokens)
        elif _format(corpus, args) == "chat":
            spans = loss.chat_spans(chat, rows)
        else:
            prompts = [{"id": row["id"], "instruction": row["prompt"]} for row in rows]
            replies = [
                row["token_ids"] + ([row["stop_token"]] if row["stop_token"] is not None else []) for row in rows
            ]
            encoded = chat.encode_for_responses(prompts)
            spans = loss.completion_spans(encoded, replies)
        if not spans:
            raise UserError(f"{path}: no token to predict: every text has one token at most, or every response none")

        counts = [len(one.tokens) - one.start for one in spans]

        def done(name, nats, corpus=corpus, counts=counts):
            value = {"nats": math.fsum(nats), "n_tokens": sum(counts), "by_row": {"nats": nats, "n_tokens": counts}}
            cache.store(args.cache, todo[corpus, name], lambda file: write_json(file, value), chat.run)

        loss.losses(chat, spans, wanted, fits, done)


def _figures(total):
    loss = total["nats"] / total["n_tokens"]
    return {"ce_loss": loss, "perplexity": math.exp(loss), **total}


def parser():
    made = cli.stage_parser(__doc__)
    made.add_argument("--bases", type=Path, nargs="+", required=True, help="COMBINATION/basis.safetensors")
    made.add_argument("--text", type=Path, nargs="*", default=[], help="corpora of {text}; named by their file")
    made.add_argument("--chat", type=Path, nargs="*", default=[], help="corpora of {instruction, response}")
    made.add_argument("--completions", type=Path, help="the baseline's responses, for on_distribution")
    made.add_argument("--max-tokens", type=int, default=256, help="longest text; what is beyond is cut")
    parts.flags(made).add_argument("--outputs", type=Path, nargs="+", default=[], help="COMBINATION/loss.json")
    return made


if __name__ == "__main__":
    cli.run(main, parser())
