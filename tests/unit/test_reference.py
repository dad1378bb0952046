"""docs/reference.md is made, never edited."""

from pathlib import Path

from conftest import script

from refusal.checking import schema

ROOT = Path(__file__).parents[2]


def test_the_page_is_what_the_schemas_say():
    assert (ROOT / "docs/reference.md").read_text() == script("reference").reference(), "run `make reference`"


def test_every_key_is_on_it():
    page, waiting = (ROOT / "docs/reference.md").read_text(), [schema("config"), schema("model"), schema("judge")]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            properties = node.get("properties", {})
            for name, inner in properties.items():
                if "description" in inner:
                    assert f"{name}`" in page
            waiting += [value for key, value in node.items() if key != "if"]
        elif isinstance(node, list):
            waiting += node


def test_cells_say_type_bounds_and_value():
    page = (ROOT / "docs/reference.md").read_text()
    for row in [
        "| `ranking.max_kl` | number, above 0 | `0.1` | Largest KL(baseline \\|\\| ablated) on harmless_val, in nats;",
        "| `completions.sampling` | mapping or null | `null` |",
        "| `completions.sampling.top_p` | number, above 0, at most 1 |  |",
        "| **`source`** | one of those below | Where the model comes from:",
        "| `think_block.opening` | text | How reasoning begins. |",
        "| **`organism.seed`** | whole number, at least 0 |",
        "ask for \\<verdict>refusal\\</verdict>",
    ]:
        assert row in page
