"""Write a model's file, config/models/NAME.yaml, checked, for a model of the hub or in a folder.

The revision is the hub's newest commit. Where the hub cannot be asked it says so, and how to name one.
"""

import os
from pathlib import Path

from refusal import cli, hub
from refusal.artifacts import read_json
from refusal.errors import UserError
from refusal.new_model import write_model
from refusal.provenance import ROOT

DTYPES = ("float32", "bfloat16", "float16")
UNPINNED = "`main` is the newest: write the commit here, from the model's page on the hub (Files, History)."


def main(args):
    if not args.id and not args.folder:
        raise UserError("give ID=NAME/ON-THE-HUB or FOLDER=path (scripts/new_model.py: --id or --folder)")
    folder = args.folder or (Path(args.id) if Path(args.id).expanduser().is_dir() else None)
    found, notes, said = _in_folder(folder.expanduser()) if folder else _on_hub(args.id, args.revision)
    values = found | ({"dtype": args.dtype} if args.dtype else {}) | {"refusal_tokens": "auto"}
    file = write_model(args.name, values, ROOT, notes)
    for line in said:
        cli.log.info("%s", line)
    cli.log.info("wrote %s; next:", file)
    cli.log.info("  python scripts/doctor.py --model %s    # what is missing; expected time and cost", args.name)
    cli.log.info("  snakemake results/%s/report.html", args.name)


def _in_folder(folder):
    """Keys of the file, notes on them, and what there is to say, of a model in a folder."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder}: no config.json: name a folder with config.json, safetensors and tokenizer")
    if not any(folder.glob("model*.safetensors")):
        raise UserError(f"{folder}: no model*.safetensors: save the weights in that format")
    config, written = read_json(folder / "config.json"), folder / "tokenizer_config.json"
    template = (folder / "chat_template.jinja").is_file() or (
        written.is_file() and bool(read_json(written).get("chat_template"))
    )
    dtype = config.get("dtype") or config.get("torch_dtype") or (config.get("text_config") or {}).get("dtype")
    # stages run in the checkout, wherever this was typed
    whole = folder.absolute()
    path = str(whole.relative_to(ROOT) if whole.is_relative_to(ROOT) else whole)
    values = {"source": "local", "path": path, "dtype": dtype if dtype in DTYPES else "bfloat16"}
    return values, {}, [*_of_family(config.get("model_type")), *_of_template(template)]


def _on_hub(name, revision):
    """The same of a model on the hub."""
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise UserError(f"{name}: neither a folder here nor a name on the hub, such as Qwen/Qwen2.5-0.5B-Instruct")
    listed = hub.listed(name, revision)
    if listed is None:
        said = [f"the hub cannot be asked now: {name} is not checked, and its revision is {revision or 'main'}"]
        notes = {} if revision else {"revision": UNPINNED}
        return {"source": "hub", "id": name, "revision": revision or "main", "dtype": "bfloat16"}, notes, said
    if listed.gated and not os.environ.get("HF_TOKEN"):
        raise UserError(
            f"{name}: access is granted per person, and HF_TOKEN is not set: accept the licence at"
            f" https://huggingface.co/{name}, then export HF_TOKEN with a token of https://huggingface.co/settings/tokens"
        )
    values = {"source": "hub", "id": name, "revision": listed.commit, "dtype": listed.dtype or "bfloat16"}
    return values, {}, [*_of_family(listed.family), *_of_template(listed.chat_template)]


def _of_family(family):
    """A line about a family that transformers does not load as a language model."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    if family not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        yield f"warning: transformers knows no language model of type {family}: it can probably not be loaded"


def _of_template(there):
    if not there:
        yield "warning: no chat template: is it a chat model? A Jinja file can be named by `chat_template`"


def parser():
    made = cli.parser(__doc__)
    made.add_argument("--name", required=True, help="of the file, and of the folder in results/")
    place = made.add_mutually_exclusive_group()
    place.add_argument("--id", help="name on the hub (HF_TOKEN is read from the environment), or a folder")
    place.add_argument("--folder", type=Path, help="folder with config.json, safetensors and tokenizer")
    made.add_argument("--revision", help="commit on the hub; the newest when left out")
    made.add_argument("--dtype", choices=DTYPES, help="that of the weights when left out")
    return made


if __name__ == "__main__":
    cli.run(main, parser())
