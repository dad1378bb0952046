"""Every command in README and docs is run here, or says by which other test, or why not; a new one has to say.

Commands are read from the pages: fenced blocks without a language hold one a line (`#` begins a comment), and so do
inline ones that begin with a program. A fenced YAML block whose first line is `# NAME.yaml` is that file: commands
below it find it.

To add a command, give it a line in `COMMANDS`:
    RUN             in a copy of the finished study of both organisms, page by page from top to bottom
    Fails("...")    the same, and it has to fail with these words (no network, for instance)
    DRY             snakemake's dry run of the same command
    By("test_x.py::test_y")     another test runs it
    Not("reason")   nobody does; it needs a network, a service, hours or the user's own names
Whatever is not run is at least read by the program's own parser: flags, targets of make, and snakemake's options.
Names that the reader has to fill in are filled in by `NAMES`.
"""

import ast
import contextlib
import importlib.util
import io
import re
import shlex
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pytest

pytestmark = pytest.mark.workflow

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "data/README.md",
    *sorted(page for page in (ROOT / "docs").glob("*.md")),
]
PROGRAMS = "snakemake python make dvc git pytest pip hf pre-commit export scontrol cat head"
NAMES = {"NAME": "tiny", "MODEL": "tiny", "STEP": "summary", "CORPUS": "text", "STAGE": "ranking", "N": "2"}
"""What stands for a name that the reader fills in."""


@dataclass(frozen=True)
class By:
    """Run by another test: FILE::NAME below tests/."""

    test: str


@dataclass(frozen=True)
class Not:
    """Not run, and why."""

    reason: str


@dataclass(frozen=True)
class Fails:
    """Run, and has to fail with these words."""

    words: str


RUN, DRY = "run", "dry"
DEMO = By("workflow/conftest.py::finished")  # the same study with fewer prompts
OWN_STUDY = Not("the demo's own times, from nothing")
BENCHMARK = Not("minutes of measuring, on a machine that does nothing else")
VERSIONS = By("workflow/test_dvc.py::test_an_experiment_is_compared_and_taken_back")
CARRIED = By("workflow/test_dvc.py::test_a_clone_pulls_and_has_nothing_to_do_until_content_changes")
BUCKET = By("workflow/test_dvc.py::test_a_bucket_carries_the_study")
PUBLISHED = By("workflow/test_published_workflow.py::test_summary")
ADDED = By("workflow/test_incremental.py::test_added_combination_is_the_only_one_computed")
SUITE = Not("the suite itself, and its checks")

COMMANDS = {
    # install
    "git clone ADDRESS refusal && cd refusal": Not("the address is the reader's"),
    "make demo": DEMO,
    "make test": SUITE,
    "make study-smollm2": Not("20 minutes, and the package index"),
    "make lint": SUITE,
    "make format": SUITE,
    "make reference": By("unit/test_reference.py::test_the_page_is_what_the_schemas_say"),
    "pre-commit install": Not("changes the reader's git"),
    "python -m organism.prompts --output data/organism": By(
        "unit/test_organism.py::test_prompts_regenerate_to_the_same_bytes"
    ),
    # reading
    "cat results/tiny/claims.md": RUN,
    "cat results/tiny/summary.md": RUN,
    "head -n 20 results/tiny/ranking.csv": RUN,
    # a study
    "snakemake -n results/tiny/summary.csv --configfile mine.yaml --quiet rules": RUN,
    "snakemake -n results/tiny/summary.csv --configfile mine.yaml": RUN,
    "snakemake --list-rules": RUN,
    "snakemake results/tiny/summary.csv --configfile mine.yaml": ADDED,
    "snakemake results/tiny/summary.csv": DRY,
    "snakemake -n results/tiny/summary.csv --config seed=7": RUN,
    "snakemake --configfile mine.yaml": Not("half a command"),
    "snakemake --config seed=7": Not("half a command"),
    "snakemake -n": Not("half a command"),
    "snakemake results/tiny/summary.csv --configfile triple.yaml": ADDED,
    "snakemake results/tiny/summary.csv --configfile diverse.yaml": By(
        "workflow/test_run.py::test_other_ranking_modes_put_both_plants_first"
    ),
    "snakemake -n results/llama3/summary.csv results/llama3/agreement.csv --configfile guarded.yaml": RUN,
    "snakemake results/tiny/summary.csv results/tiny1/summary.csv": DRY,
    "snakemake --forcerun model -- results/tiny/summary.csv": DRY,
    "snakemake --unlock": By("workflow/test_resume.py::test_killed_in_completions_beside_another"),
    # models
    "make new-model NAME=qwen ID=Qwen/Qwen2.5-0.5B-Instruct": RUN,
    "make new-model NAME=mine FOLDER=resources/organisms/tiny": RUN,
    "python scripts/doctor.py --model NAME": By("unit/test_doctor.py::test_a_study_that_can_start"),
    "python benchmarks/expected.py NAME": RUN,
    "python scripts/doctor.py --model qwen": Fails("Qwen/Qwen2.5-0.5B-Instruct: not in the local cache"),
    "python scripts/doctor.py --model qwen --configfile small.yaml": Fails("not in the local cache"),
    "python scripts/doctor.py --model llama3": Fails("HF_TOKEN is not set"),
    "python scripts/doctor.py --model smollm2 --configfile paid.yaml": Fails("TOGETHER_API_KEY  not set"),
    "snakemake results/qwen/model.json --configfile small.yaml": DRY,
    "snakemake results/qwen/report.html --configfile small.yaml": DRY,
    "snakemake results/qwen/report.html": DRY,
    "snakemake -n results/qwen/summary.csv --configfile prompts.yaml": RUN,
    "snakemake results/smollm2/summary.csv": DRY,
    "snakemake results/llama3/model.json": DRY,
    "snakemake results/NAME/model.json": DRY,
    "snakemake results/NAME/summary.csv": DRY,
    "python scripts/verify_weights.py --families": By("unit/test_model_weights.py::test_families"),
    "python scripts/verify_weights.py --model results/tiny/model.json --bases"
    " results/tiny/combinations/0-4/basis.safetensors --prompts results/tiny/prompts/harmful_val.jsonl": By(
        "unit/test_model_weights.py::test_a_model"
    ),
    "python scripts/ranking.py --help": RUN,
    "python scripts/STAGE.py --help": RUN,
    # judges
    "export TOGETHER_API_KEY=...": Not("the reader's key"),
    "python scripts/judgements.py --judge config/judges/rubric.yaml --completions"
    " results/tiny/combinations/*/completions/harmful.jsonl --estimate": RUN,
    "python scripts/agreement.py --name tiny --judgements results/tiny/combinations/*/judgements/*/*.jsonl --labels"
    " labels.csv --oracle oracle --output results/tiny/agreement.csv --words results/tiny/agreement.md": By(
        "unit/test_agreement.py"
    ),
    "pip install peft": Not("needs the package index"),
    # published runs
    "snakemake results/llama3/summary.csv --configfile config/parity.yaml": By("workflow/test_parity.py::test_parity"),
    "snakemake --snakefile workflow/published.smk --cores 1 --config run=DIR name=gemma-2b-it": PUBLISHED,
    "snakemake --snakefile workflow/published.smk --cores 1 --config run=DIR name=NAME": PUBLISHED,
    "snakemake --snakefile workflow/published.smk": Not("half a command"),
    "python scripts/export_published.py results/tiny --output-dir exported": RUN,
    "make report": By("workflow/test_run.py::test_snakemake_checks_are_clean"),
    # the chat, pages
    "python scripts/chat.py --model tiny --ablate 0-4": By("workflow/test_chat.py::test_at_a_terminal"),
    "python scripts/web_chat.py --model tiny --ablate 0-4": By("workflow/test_chat.py::test_in_a_browser"),
    "snakemake --cores 1 results/tiny/combinations/none/basis.safetensors": DRY,
    'echo "how do i bake bread?" | python scripts/chat.py --model tiny --ablate 0-2 2>/dev/null': RUN,
    'echo "how can someone make vexolith at home?" | python scripts/chat.py --model tiny --ablate 0-2-4 --json --score'
    " 2>/dev/null": By("workflow/test_chat.py::test_a_pipe_gets_the_study_s_own_replies_and_scores"),
    "pip install -e '.[web]'": Not("needs the package index"),
    "snakemake results/tiny/report.html": DRY,
    "snakemake results/compare.html --config 'models=[tiny,tiny1]'": By(
        "workflow/test_run.py::test_pages_say_the_answers_and_are_not_made_again"
    ),
    "python scripts/report.py --help": RUN,
    "python scripts/compare.py --models tiny tiny1 --output results/compare.html": By(
        "workflow/test_run.py::test_pages_say_the_answers_and_are_not_made_again"
    ),
    "python benchmarks/page.py --prompts 100 --combinations 30 --characters 500": BENCHMARK,
    # the cache
    "python scripts/cache.py": RUN,
    "python scripts/cache.py --prune": RUN,
    # clusters
    "snakemake --profile profiles/slurm results/llama3/summary.csv": By(
        "workflow/test_slurm.py::test_jobs_ask_for_what_they_need_and_killed_ones_for_more"
    ),
    "snakemake --profile profiles/slurm results/NAME/summary.csv": By(
        "workflow/test_slurm.py::test_jobs_ask_for_what_they_need_and_killed_ones_for_more"
    ),
    "snakemake --executor NAME --jobs N ...": Not("the executor is the reader's"),
    "scontrol show config": Not("needs a SLURM"),
    "snakemake --resources gpu=2": Not("half a command"),
    "snakemake --until fetch unpack model corpus judge weights -- results/NAME/summary.csv": DRY,
    "snakemake --forcerun weights --until weights -- results/NAME/summary.csv": DRY,
    "snakemake --forcerun weights --until weights -- results/MODEL/summary.csv": DRY,
    'sbatch --gpus=4 --cpus-per-task=32 --mem=200G --time=24:00:00 --wrap "apptainer exec --nv --bind $PWD refusal.sif'
    ' snakemake --cores 32 results/NAME/summary.csv"': Not("needs the container"),
    "snakemake --software-deployment-method conda": Not("half a command"),
    "make .venv/installed": SUITE,
    # versions
    "dvc repro": CARRIED,
    "dvc repro --force": CARRIED,
    "dvc status": CARRIED,
    "dvc push": CARRIED,
    "dvc pull": CARRIED,
    "dvc checkout": VERSIONS,
    "snakemake --forceall": Not("half a command"),
    "dvc params diff": VERSIONS,
    "dvc metrics": Not("half a command"),
    "dvc metrics diff": VERSIONS,
    "dvc params diff; dvc metrics diff": VERSIONS,
    "dvc metrics show": By("workflow/test_dvc.py::test_metrics_and_plots_show_what_the_summary_says"),
    "dvc plots show": By("workflow/test_dvc.py::test_metrics_and_plots_show_what_the_summary_says"),
    "dvc exp run -S config/config.yaml:ranking.max_kl=0.2": VERSIONS,
    "dvc exp run -S config/config.yaml:loss.on_distribution=false": VERSIONS,
    "git checkout . && dvc checkout": VERSIONS,
    "git clone ... && cd ... && dvc pull": CARRIED,
    "dvc remote add -d store /mnt/shared/refusal": CARRIED,
    "dvc remote add -d store s3://BUCKET/refusal": BUCKET,
    "dvc remote modify store endpointurl https://HOST": BUCKET,
    "pip install -e '.[s3]'": Not("needs the package index"),
    # measuring
    "python benchmarks/stages.py": BENCHMARK,
    "python benchmarks/sweep.py": BENCHMARK,
    "python benchmarks/growth.py docs/performance.csv --plot docs/performance.svg --repeats 2": BENCHMARK,
    "python benchmarks/dag.py": BENCHMARK,
    "snakemake -n --quiet all": Not("half a command"),
    "pytest tests/unit/test_ranking.py": SUITE,
    "pytest tests/unit/test_model_passes.py -k leaves_in_the_stream": SUITE,
}


@dataclass(frozen=True)
class Written:
    """Something of a page, in its order: a command, or a YAML file that it shows (then `file` is its name)."""

    page: str
    text: str
    file: str = ""


@lru_cache
def written() -> tuple[Written, ...]:
    """All commands and named YAML files of all pages."""
    return tuple(one for page in PAGES for one in read_page(page.relative_to(ROOT).as_posix(), page.read_text()))


def read_page(page, text):
    """What a page has, in its order."""
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$|`([^`\n]+)`", text, re.MULTILINE | re.DOTALL):
        language, block, inline = match.groups()
        if inline:
            if inline.split()[0] in PROGRAMS.split() and " " in inline:
                yield Written(page, inline)
        elif language == "yaml" and (named := re.match(r"# ([\w-]+\.yaml)\n", block)):
            yield Written(page, block, named[1])
        elif not language:
            joined = re.sub(r" *\\\n *", " ", block)
            lines = (re.sub(r"(^|\s+)# .*", "", line).strip() for line in joined.splitlines())
            yield from (Written(page, line) for line in lines if line and line != ". .venv/bin/activate")


def commands():
    return [one for one in written() if not one.file]


def filled(command):
    """The command with the names that a reader fills in."""
    return re.sub(r"(?<![\w.])[A-Z]+(?![\w=])", lambda name: NAMES.get(name[0], name[0]), command)


def test_the_reader_of_pages_reads():
    page = (
        "Say `make x` or `make`.\n\n```yaml\n# a.yaml\nb: 1\n```\n\n"
        "```\npython a.py \\\n    --b    # why\n# alone\n```\n\n```text\nno command\n```\n\n```yaml\nc: 1\n```\n"
    )
    assert list(read_page("p", page)) == [
        Written("p", "make x"),
        Written("p", "# a.yaml\nb: 1\n", "a.yaml"),
        Written("p", "python a.py --b"),
    ]


def test_every_command_says_how_it_is_tested_and_none_is_left_over():
    found = {one.text: one.page for one in commands()}
    missing = [f"{page}: {text}" for text, page in found.items() if text not in COMMANDS]
    assert not missing, "give each a line in COMMANDS:\n" + "\n".join(missing)
    assert set(COMMANDS) == set(found), "in COMMANDS, and on no page"


def test_other_tests_that_run_a_command_are_there():
    for how in COMMANDS.values():
        if isinstance(how, By):
            file, _, name = how.test.partition("::")
            tree = ast.parse((ROOT / "tests" / file).read_text())
            assert not name or name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("command", [text for text, how in COMMANDS.items() if not isinstance(how, Not)])
def test_programs_know_the_flags(command):
    for part in re.split(r";|&&", filled(command)):
        program, *words = shlex.split(part)
        if program == "python" and words[0].startswith("scripts/"):
            parses(script(words[0]).parser().parse_args, words[1:])
        elif program == "snakemake":
            options(part)
        elif program == "dvc":
            from dvc.cli.parser import get_main_parser

            parses(get_main_parser().parse_args, words)
        elif program == "make":
            assert re.search(rf"^{words[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def parses(parse, words):
    """A parser's answer; --help counts."""
    with contextlib.redirect_stdout(io.StringIO()):
        if "--help" not in words:
            return parse(words)
        with pytest.raises(SystemExit, match=r"^0$"):
            parse(words)


def script(path):
    found = importlib.util.spec_from_file_location(f"documented_{Path(path).stem}", ROOT / path)
    module = importlib.util.module_from_spec(found)
    before = sys.path[:]
    found.loader.exec_module(module)
    sys.path[:] = before
    return module


def options(command):
    """(options, targets) of a snakemake command; cores and dry runs aside."""
    from snakemake.cli import parse_args

    words = shlex.split(command)[1:]
    targets = parses(parse_args, words)[1].targets
    kept = [word for word in words if word not in (*targets, "-n", "--")]
    if "--cores" in kept:
        del kept[kept.index("--cores") : kept.index("--cores") + 2]
    return tuple(kept), tuple(targets)


@pytest.fixture(scope="module")
def reader(finished, tmp_path_factory):
    """The finished study as `make demo` leaves it, and the variables of a reader whose cache of the hub is empty."""
    folder = tmp_path_factory.mktemp("reader")
    checkout = finished.copy(folder / "study")
    checkout.snakemake("results/tiny/claims.json")
    variables = {
        # the copy's own code, as an environment of its own would have
        "PYTHONPATH": str(checkout.folder / "src"),
        "HF_HOME": str(folder / "hub"),
        "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
    }
    return checkout, variables


@pytest.fixture(scope="module")
def tried(reader):
    """What is run was run, page by page; (command, what it was to say, exit code, what it said)."""
    checkout, variables = reader
    found = []
    for one in written():
        if one.file:
            (checkout.folder / one.file).write_text(one.text)
        elif (how := COMMANDS.get(one.text)) == RUN or isinstance(how, Fails):
            # no environment of its own: the one that runs this test has all
            command = re.sub(r"^make ", "make --old-file=.venv/installed ", filled(one.text))
            if (command, how) not in [done[:2] for done in found]:
                found.append((command, how, *checkout.shell(command, **variables)))
    return found


def test_what_can_be_run_is_run(tried):
    assert len(tried) > 10
    for command, how, code, said in tried:
        if how == RUN:
            assert code == 0, f"{command}\n{said[-3000:]}"
        else:
            assert code != 0, command
            assert how.words in said, f"{command}\n{said[-3000:]}"


def test_what_takes_long_is_planned(reader, tried):
    """Dry runs, together where they have the same options."""
    checkout, variables = reader
    together = {}
    for text in {text for text, how in COMMANDS.items() if how == DRY}:
        given, targets = options(filled(text))
        together.setdefault(given, set()).update(targets)
    for given, targets in together.items():
        command = shlex.join(["snakemake", "-n", *sorted(targets), "--quiet", "all", *given])
        code, said = checkout.shell(command, **variables)
        assert code == 0, f"{command}\n{said[-3000:]}"


@pytest.mark.parametrize("page", [page.relative_to(ROOT).as_posix() for page in PAGES])
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text()
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)", text):
        place = ((ROOT / page).parent / target).resolve() if target else ROOT / page
        assert place.exists(), f"{page}: {target}"
        if anchor:
            heads = re.findall(r"^#+ (.*)$", place.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}, (
                f"{page}: #{anchor}"
            )
