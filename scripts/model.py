"""Describe a model: what its weights are, its template's end-of-instruction tokens, its refusal tokens.

The first step of every study: a missing token, network or revision is said here, before any other work.
"""

from pathlib import Path

from refusal import cli
from refusal.artifacts import write_json
from refusal.errors import UserError
from refusal.hub import explained
from refusal.identity import folder_key
from refusal.provenance import Spec, code_version, stamp


def main(args):
    if (args.folder is None) == (args.id is None):
        raise UserError("give --folder or --id, one of them")
    template = args.chat_template.read_text() if args.chat_template else None
    place = str(args.folder) if args.folder else args.id

    from transformers import AutoConfig, GenerationConfig

    from refusal.model.chat import end_of_instruction, single_token, stop_tokens
    from refusal.model.loading import load_tokenizer

    with explained(place):
        config = AutoConfig.from_pretrained(place, revision=args.revision)
    tokenizer = load_tokenizer(place, args.revision, template)
    try:
        generation = GenerationConfig.from_pretrained(place, revision=args.revision)
    except OSError:
        generation = None  # not every model has one; its tokenizer's end of sequence serves
    suffix = end_of_instruction(tokenizer, args.system_prompt)
    text = config.get_text_config()
    record = {
        "load": {"folder": place} if args.folder else {"id": place, "revision": args.revision},
        "identity": {
            "weights": folder_key(args.folder) if args.folder else f"{place}@{config._commit_hash or args.revision}",
            "dtype": args.dtype,
            "chat_template": template,
            "system_prompt": args.system_prompt,
            "stop_tokens": stop_tokens(tokenizer, generation),
        },
        "architecture": config.architectures[0],
        "layers": text.num_hidden_layers,
        "width": text.hidden_size,
        "positions": [
            {"position": place - len(suffix), "id": token, "token": tokenizer.convert_ids_to_tokens(token)}
            for place, token in enumerate(suffix)
        ],
        "refusal_tokens": [{"id": single_token(tokenizer, text), "string": text} for text in args.refusal_tokens],
    }
    write_json(args.output, record)
    stamp(args.output, Spec("model", code_version("model"), record["identity"]), {})
    cli.log.info("%s: %d layers, %d positions", place, record["layers"], len(suffix))


def parser():
    made = cli.parser(__doc__)
    made.add_argument("--folder", type=Path, help="folder with config, weights and tokenizer")
    made.add_argument("--id", help="name on the hub (HF_TOKEN is read from the environment)")
    made.add_argument("--revision", help="commit on the hub")
    made.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    made.add_argument("--system-prompt", help="before every instruction; the template's default when left out")
    made.add_argument("--chat-template", type=Path, help="file with a Jinja template instead of the model's own")
    made.add_argument("--refusal-tokens", nargs="+", required=True, help="strings that a refusal starts with")
    made.add_argument("--output", type=Path, required=True)
    return made


if __name__ == "__main__":
    cli.run(main, parser())
