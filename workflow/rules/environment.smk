# What both root files need: where jobs find Python and the library, what a failed run takes back. No rules.
import os
import sys
from pathlib import Path

ROOT = Path(workflow.current_basedir).parents[1]
# Jobs run with this Python, and with the library of this checkout, whatever is installed or activated.
environment = os.environ
environment.pop("PYTHONDONTWRITEBYTECODE", None)  # imports of each stage would be compiled again, 7 s of them
environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
environment["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
sys.path[:0] = [str(ROOT / "src")]

from refusal import provenance


def page_files():
    """The template, style and scripts of pages: what `code_version` does not see."""
    return sorted(str(path) for kind in ("html", "css", "js") for path in Path("src/refusal/report").glob(f"*.{kind}"))


def withdraw_orphans():
    """Delete results whose inputs a failed job lost; the cache has their items.

    Snakemake removes a failed job's outputs, but makes a missing file again only if its newest descendant is missing
    too: an older table would pass for a current one, or never be made again.
    """
    for path in provenance.orphans(Path("results")):
        path.unlink()
        provenance.sidecar(path).unlink()
        if path.name == "summary.csv":
            print(f"{path} is withdrawn: what it was made from is gone; run again", file=sys.stderr)
