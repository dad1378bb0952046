"""Torch behind one door: whatever does not run a model starts without it, so light rules and dry runs start fast."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "refusal"
HEAVY = ("torch", "transformers", "datasets", "accelerate")

OUTSIDE = sorted(path for path in SOURCE.rglob("*.py") if "model" not in path.relative_to(SOURCE).parts)
LIGHT = [".".join(path.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__") for path in OUTSIDE]
# What a dry run imports: the modules named in the Snakefile and the rules.
RULES = sorted(
    {
        f"{node.module}.{alias.name}" if node.module == "refusal" else node.module
        for path in [ROOT / "Snakefile", *(ROOT / "workflow").rglob("*.smk")]
        for line in path.read_text().splitlines()
        if line.startswith(("from refusal", "import refusal"))
        for node in ast.parse(line).body
        for alias in node.names
    }
)


def loaded(modules):
    """For each module, those of the heavy ones that a fresh process has after importing it (a fork for each)."""
    code = f"""
import importlib, json, os, sys
sys.path.insert(0, {str(ROOT / "src")!r})
heavy = {(*HEAVY, "pandas", "scipy", "statsmodels")!r}
for name in {modules!r}:
    sys.stdout.flush()
    if os.fork() == 0:
        importlib.import_module(name)
        print(json.dumps([name, [one for one in heavy if one in sys.modules]]), flush=True)
        os._exit(0)
    if os.wait()[1]:
        sys.exit(name + " cannot be imported")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    import json

    return dict(json.loads(line) for line in done.stdout.splitlines())


def test_the_list_is_whole():
    assert {"refusal.study", "refusal.ranking", "refusal.summary", "refusal.judges.substring", "refusal.cache"} <= set(
        LIGHT
    )
    assert not any(f"{name}.".startswith("refusal.model.") for name in LIGHT)


def test_every_folder_is_a_package_which_an_installation_takes_along():
    assert not [path for path in SOURCE.rglob("*.py") if not path.with_name("__init__.py").is_file()]


@pytest.fixture(scope="module")
def found():
    return loaded(sorted({*LIGHT, *RULES, "refusal.model.loading"}))


@pytest.mark.parametrize("name", LIGHT)
def test_no_torch_at_this_level(name, found):
    assert not set(found[name]) & set(HEAVY)


def test_the_probe_sees_torch_where_it_is(found):
    assert "torch" in found["refusal.model.loading"]


@pytest.mark.parametrize("name", RULES)
def test_a_dry_run_loads_no_table_library_either(name, found):
    assert found[name] == []


def test_the_rules_import_what_is_checked_here():
    assert {"refusal.study", "refusal.combinations", "refusal.provenance", "refusal.published.files"} <= set(RULES)


@pytest.mark.parametrize("path", OUTSIDE, ids=lambda path: str(path.relative_to(SOURCE)))
def test_only_the_torch_room_imports_torch_or_is_imported_by_name(path):
    """Also inside functions: outside the room none imports torch, or the room."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    assert not {name for name in names if name.split(".")[0] in ("torch", "transformers", "accelerate")}
    assert not {name for name in names if name == "refusal.model" or name.startswith("refusal.model.")}
