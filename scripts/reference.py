"""Write docs/reference.md: every key of the config, model and judge files, from the schemas in workflow/schemas/."""

import json
from pathlib import Path

from refusal import cli
from refusal.artifacts import atomic
from refusal.checking import read_yaml, schema
from refusal.provenance import ROOT

HEAD = """\
# Reference

Every key of the files in `config/`, made from `workflow/schemas/` by `make reference`; the same words stand above each
key in the files. Units are named in the words; a share is from 0 to 1. How the files fit together, and what wins over
what: [Configuration](configuration.md). The flags of a stage: `python scripts/STAGE.py --help`.
"""
BOUNDS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most"}
WORDS = {"array": "list", "object": "mapping", "string": "text", "boolean": "true or false", "integer": "whole number"}
COLUMNS = ["key", "type", "description"]


def main(args):
    with atomic(args.output) as part:
        part.write_text(reference())


def reference():
    """The page."""
    config = read_yaml(ROOT / "config" / "config.yaml")
    parts = [
        HEAD,
        "## The study: config/config.yaml\n",
        "All keys are needed. `config/config.yaml` as it comes has the values shown.\n",
        _table(_rows(schema("config"), config), [*COLUMNS[:2], "value", COLUMNS[2]]),
    ]
    for kind, key, title in [
        ("model", "source", "Models: config/models/NAME.yaml"),
        ("judge", "kind", "Judges: config/judges/NAME.yaml"),
    ]:
        parts.append(f"\n## {title}\n")
        branches = {one["if"]["properties"][key]["const"]: one["then"] for one in schema(kind)["allOf"]}
        shared = _shared([_rows(branch) for branch in branches.values()])
        parts.append(f"Of every `{key}`; in bold, needed:\n")
        parts.append(_table(shared, COLUMNS))
        for name, branch in branches.items():
            parts.append(f"\nOf `{key}: {name}` beside these:\n")
            parts.append(_table([row for row in _rows(branch) if row[0] not in {one[0] for one in shared}], COLUMNS))
    return "\n".join(parts)


def _rows(node, values=None, path=(), needed=True):
    """[key, type, (value,) description] of a schema's properties, nested ones below.

    values: those of config.yaml, where all keys are needed; elsewhere the needed ones are bold.
    """
    found = []
    for name, inner in node.get("properties", {}).items():
        key, always = ".".join((*path, name)), needed and name in node.get("required", ())
        nested = next((one for one in (inner, *inner.get("anyOf", ())) if one.get("properties")), {})
        value = values.get(name) if isinstance(values, dict) else None
        cells = [f"**`{key}`**" if always and values is None else f"`{key}`", _type(inner)]
        if values is not None:
            cells.append("" if nested and value is not None else f"`{json.dumps(value)}`" if name in values else "")
        found.append([*cells, inner.get("description", "")])
        below = None if values is None else value if isinstance(value, dict) else {}
        found += _rows(nested, below, (*path, name), always)
    return found


def _shared(tables):
    """Rows that stand in every table, whatever fixed value they have."""
    keys = set.intersection(*({row[0] for row in table} for table in tables))
    return [
        row if "always" not in row[1] else [row[0], "one of those below", row[2]] for row in tables[0] if row[0] in keys
    ]


def _type(node):
    """A schema's type in words."""
    if "const" in node:
        return f"always `{node['const']}`"
    if "enum" in node:
        return ", ".join(f"`{one}`" for one in node["enum"])
    if "anyOf" in node:
        return " or ".join(_type(one) for one in node["anyOf"])
    kinds = [node["type"]] if isinstance(node.get("type"), str) else list(node.get("type", ["object"]))
    said = " or ".join(WORDS.get(kind, kind) for kind in kinds)
    if inner := node.get("items", {}).get("type"):
        said = said.replace("list", f"list of {WORDS.get(inner, inner)}s" if inner != "string" else "list of texts")
    bounds = [f"{how} {node[key]}" for key, how in BOUNDS.items() if key in node]
    return f"{said}, {', '.join(bounds)}" if bounds else said


def _table(rows, columns):
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return (
        "\n".join(
            "| " + " | ".join(cell.replace("|", "\\|").replace("<", "\\<") for cell in line) + " |" for line in lines
        )
        + "\n"
    )


def parser():
    made = cli.parser(__doc__)
    made.add_argument("--output", type=Path, default=Path("docs/reference.md"))
    return made


if __name__ == "__main__":
    cli.run(main, parser())
