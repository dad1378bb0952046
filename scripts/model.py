"""Describe a model: its weights, how its chat template is asked, the end-of-instruction tokens, the refusal tokens.

The first step of every study: a missing token, network or revision is said here, before any other work.
"""

import argparse
import json
from pathlib import Path

from refusal import cli
from refusal.artifacts import read_json, sha256, write_json
from refusal.errors import UserError
from refusal.hub import explained
from refusal.identity import folder_key
from refusal.provenance import Spec, code_version, stamp


def main(args):
    if (args.folder is None) == (args.id is None):
        raise UserError("give --folder or --id, one of them")
    place = str(args.folder) if args.folder else args.id
    chat_template = args.chat_template.read_text() if args.chat_template else None

    from transformers import AutoConfig, GenerationConfig

    from refusal.model import reasoning, template
    from refusal.model.chat import end_of_instruction, single_token, stop_tokens, written
    from refusal.model.loading import load_tokenizer

    with explained(place):
        config = AutoConfig.from_pretrained(place, revision=args.revision, trust_remote_code=False)
    tokenizer = load_tokenizer(place, args.revision, chat_template)
    try:
        generation = GenerationConfig.from_pretrained(place, revision=args.revision)
    except OSError:
        generation = None  # not every model has one; its tokenizer's end of sequence serves
    asked = reasoning.asking(tokenizer, args.system_prompt, args.template_options, args.thinking, args.think_block)
    if (args.system_prompt or "").strip() not in written(tokenizer, args.system_prompt, asked.scored):
        raise UserError("the chat template leaves the system prompt out: change `system_prompt` or `chat_template`")
    suffix = end_of_instruction(tokenizer, args.system_prompt, asked.scored)
    identity = {
        "weights": folder_key(args.folder) if args.folder else f"{place}@{_commit(place, args.revision)}",
        "dtype": args.dtype,
        "chat_template": chat_template,
        "system_prompt": args.system_prompt,
        "stop_tokens": stop_tokens(tokenizer, generation),
    }
    if recorded := asked.record():
        identity["asking"] = recorded
    if args.modules:
        identity["modules"] = args.modules
    if template.prints_date(tokenizer):
        identity["date"] = template.TODAY.isoformat()
    if args.proposed:
        refusal_tokens = read_json(args.proposed)["refusal_tokens"]
    else:
        refusal_tokens = [{"id": single_token(tokenizer, text), "string": text} for text in args.refusal_tokens]
    text = config.get_text_config()
    record = {
        "load": {"folder": place} if args.folder else {"id": place, "revision": args.revision},
        "identity": identity,
        "architecture": config.architectures[0],
        "layers": text.num_hidden_layers,
        "width": text.hidden_size,
        "positions": [
            {"position": place - len(suffix), "id": token, "token": tokenizer.convert_ids_to_tokens(token)}
            for place, token in enumerate(suffix)
        ],
        "refusal_tokens": refusal_tokens,
        "refusal_tokens_from": "refusal_tokens.json" if args.proposed else "model file",
    }
    write_json(args.output, record)
    inputs = {"refusal_tokens": args.proposed} if args.proposed else {}
    # the rule, so that a remedy names the right one
    step = "model" if refusal_tokens else "description"
    made = Spec(step, code_version("model"), identity, {role: sha256(path) for role, path in inputs.items()})
    stamp(args.output, made, inputs)
    cli.log.info("%s: %d layers, %d positions", place, record["layers"], len(suffix))
    if said := _said(asked, identity):
        cli.log.info("chat template: %s", said)


def _commit(place, revision):
    """The commit that a revision of the hub stands for, by where its config is kept."""
    from transformers.utils.hub import cached_file, extract_commit_hash

    return extract_commit_hash(cached_file(place, "config.json", revision=revision), None)


def _said(asked, identity):
    """What was read off the chat template, in words; nothing where it is asked as it is."""
    parts = []
    if asked.block:
        parts.append(f"replies are reasoned, up to {json.dumps(asked.block.closing)}")
    if asked.scored.options != asked.answered.options or asked.scored.appended:
        way = [f"{name} = {json.dumps(value)}" for name, value in asked.scored.options.items()]
        way += [f"{json.dumps(asked.scored.appended)} behind the template"] * bool(asked.scored.appended)
        parts.append(f"scores and directions are read after an empty think block ({', '.join(way)})")
    elif asked.scored.options:
        parts.append(f"asked with {json.dumps(dict(asked.scored.options))}")
    if "date" in identity:
        parts.append(f"told that today is {identity['date']}, on every day")
    return "; ".join(parts)


def parser():
    made = cli.parser(__doc__)
    made.add_argument("--folder", type=Path, help="folder with config, weights and tokenizer")
    made.add_argument("--id", help="name on the hub (HF_TOKEN is read from the environment)")
    made.add_argument("--revision", help="commit on the hub")
    made.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    made.add_argument("--system-prompt", help="before every instruction; the template's default when left out")
    made.add_argument("--chat-template", type=Path, help="file with a Jinja template instead of the model's own")
    made.add_argument("--template-options", type=json.loads, default={}, help="JSON: variable of the template -> value")
    made.add_argument(
        "--thinking",
        action=argparse.BooleanOptionalAction,
        help="whether responses are reasoned before they answer; as the template does when left out",
    )
    made.add_argument(
        "--think-block",
        type=json.loads,
        help='JSON: {"opening", "closing", "empty"} of reasoning, or "none"; read off the template when left out',
    )
    made.add_argument(
        "--modules",
        type=json.loads,
        help='JSON: {"layers", "writers", "embedding"} placed by hand, where loading could not find them',
    )
    named = made.add_mutually_exclusive_group()
    named.add_argument("--refusal-tokens", nargs="+", default=[], help="strings that a refusal starts with")
    named.add_argument("--proposed", type=Path, help="refusal_tokens.json of that step, instead of strings")
    made.add_argument("--output", type=Path, required=True)
    return made


if __name__ == "__main__":
    cli.run(main, parser())
