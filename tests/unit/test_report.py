"""What stands on a page, from the files of a study; no response, setting or plot can do anything there."""

import gzip
import json
import re
from argparse import Namespace
from base64 import b64decode
from pathlib import Path

import evidence
import numpy as np
import pandas as pd
import pytest
from conftest import script
from hypothesis import given
from hypothesis import strategies as st
from report_study import CAPTIONS, HOSTILE, SVG, flags, response, write_study

from refusal.artifacts import read_json, read_table
from refusal.claims.questions import claims
from refusal.errors import UserError
from refusal.provenance import verify
from refusal.report.comparison import Findings, compared
from refusal.report.conclusion import conclude
from refusal.report.contents import headlines, settings
from refusal.report.discretion import HIDDEN, discreet
from refusal.report.figures import embedded, read_figures
from refusal.report.origins import costs, origins, times
from refusal.report.pages import duration, packed, policy, render
from refusal.report.responses import gather
from refusal.report.tables import columns, figure, rows

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def page(study):
    script("report").main(Namespace(**flags(study)))
    return (study / "report.html").read_text()


def unpacked(page):
    text = re.search(r'<script type="text/plain" id="data">([A-Za-z0-9+/=]*)</script>', page)[1]
    return json.loads(gzip.decompress(b64decode(text)))


def concluded(**changes):
    return conclude(claims(evidence.study(**changes), "substring", draws=99))


def test_conclusion_says_what_the_claims_say():
    assert concluded().headline == (
        "One direction is not enough: the pair 0-2 leaves fewer refusals than the best single, 0."
        " The two best ranks are not the best pair."
    )
    assert concluded().hardly is None


def test_conclusion_tells_no_better_from_no_room_to_be_better():
    """The pair chosen on val is no better: because it is not, or because next to nothing is left to remove."""
    assert concluded(**{"0-2": evidence.of("0-2", 50, -6.0)}).headline == (
        "One direction is not enough; the pair 0-2 does no better than the best single, 0."
    )
    assert concluded(**{"0": evidence.of("0", 2, -2.0)}).headline == (
        "One direction is enough; the best single, 0, leaves too few refusals for any pair to do much better."
    )


def test_conclusion_of_a_model_that_hardly_refuses_says_so_and_no_more():
    found = concluded(none=evidence.of("none", 5, 5.0))
    assert found.headline == "No answer: this model hardly refuses by itself."
    assert (
        found.hardly == "Without ablation the model refuses 5.0% (95% 2.2%-11.2%, n = 100) of the harmful test prompts."
    )


def test_conclusion_says_which_controls_do_as_well():
    as_good = evidence.of("random-k2-s0", 3, 4.7)
    assert concluded(**{"random-k2-s0": as_good}).headline.endswith(
        " The two best ranks are not the best pair. A random control does as well as the pair."
    )
    near = evidence.of("random-k2-s0", 7, 4.7)
    assert concluded(**{"random-k2-s0": near}).headline.endswith(
        " Whether random controls do as well as the pair is undecided."
    )
    # nothing is claimed of the single, so its controls are no matter
    lacking = {"random-k1-s0": None, "random-k1-s1": None}
    assert concluded(**lacking) == concluded()
    assert concluded(**lacking, **{"0": evidence.of("0", 2, -2.0)}).headline.endswith(
        " Beside random controls the single was not measured."
    )


@pytest.mark.parametrize("one", ["yes", "no", "undecided", "not measurable"])
@pytest.mark.parametrize("pair", ["yes", "no", "undecided", "not measurable"])
def test_every_conclusion_is_a_sentence(one, pair):
    found = {"refuses": "undecided", "one_direction": one, "pair_better": pair, "top_two": "not measurable"}
    rests = {"combinations": [] if pair == "not measurable" else ["0", "0-2"]}
    figures = {"room": 0.6, "margin": 0.1}
    said = conclude(
        [{"claim": name, "answer": answer, "rests_on": rests, "figures": figures} for name, answer in found.items()]
    )
    assert re.fullmatch(r"[A-Z][^{}.]*\.", said.headline)


def test_headline_figures_are_those_of_the_summary(study):
    table = read_table(study / "summary.csv")
    shown = list(headlines(table, "substring"))
    assert [(one["role"], one["id"], one["rate"], one["interval"]) for one in shown] == [
        ("baseline", "none", "100%", "96 to 100%"),
        ("best single", "0", "50%", "40 to 60%"),
        ("best pair", "0-2", "2%", "1 to 7%"),
    ]
    assert [(one["n"], one["invalid"]) for one in shown] == [(100, 0)] * 3
    assert shown[0]["cost"] is None
    assert re.fullmatch(r"CE on text \+0\.0\d{3} \(\+0\.0\d{3} to \+0\.0\d{3}\) nats/token", shown[1]["cost"])
    assert [one["rate"] for one in headlines(table, "nobody")] == [None, None, None]


def test_headline_figures_say_what_has_no_valid_verdict():
    from refusal.summary import summarize

    unread = {"none": evidence.of("none", 0, told=evidence.verdicts(0, invalid=100))}
    (one,) = headlines(summarize(unread, draws=99), "substring")
    assert (one["rate"], one["n"], one["invalid"]) == ("0%", 100, 100)


def test_each_figure_stands_with_its_interval_and_value(study):
    table = read_table(study / "summary.csv")
    given = columns(table, "substring")
    made = {
        row["id"]: dict(zip([column.key for column in given], row["cells"], strict=True)) for row in rows(table, given)
    }
    low, high = table.set_index("combination").loc[
        "0", ["harmful_substring_refusal_low", "harmful_substring_refusal_high"]
    ]
    assert made["0"]["harmful_substring_refusal_rate"] == ["50%", "40 to 60", 0.5, low, high]
    assert made["none"]["harmful_substring_p_holm_vs_best_single"] == ["", "", None, None, None]
    assert made["none"]["ce_text_delta"][:3] == ["+0.0000", "", 0.0]
    assert made["none"]["kind"][0] == "baseline"
    # bounds stand in the cell of their figure, so no column shows one alone
    assert not [column.key for column in given if column.key.endswith(("_low", "_high"))]


def test_no_measured_column_is_left_out(study):
    table = read_table(study / "summary.csv")
    told = {name for one in columns(table, "substring") for name in (one.key, one.low, one.high)}
    aside = {"combination", "best_single", "harmful_n"}  # names, a tag, said with each share
    assert set(table.columns[table.notna().any()]) - told <= aside


def test_a_judge_whose_name_ends_like_another_and_a_corpus_like_a_column_keep_theirs():
    names = ["harmful_a_refusal_rate", "harmful_b_a_refusal_rate", "ce_x_n", "perplexity_x_n", "ce_x_n_delta"]
    table = pd.DataFrame([[1.0] * 5], columns=names).assign(harmful_n=7, ce_x_n_delta_low=0.0, ce_x_n_delta_high=2.0)
    made = {one.key: one for one in columns(table, "a")}
    assert [made[name].note for name in names] == ["a", "b_a", "x_n", "x_n", "x_n"]
    assert [made[name].shown for name in names[:2]] == [True, False]


@given(st.floats(-10, 10))
def test_a_figure_is_its_value_and_zero_has_no_minus(value):
    text = figure("+.2f")(value)
    assert float(text.replace("\N{MINUS SIGN}", "-")) == pytest.approx(value, abs=0.00501)
    assert text != "\N{MINUS SIGN}0.00"


def test_responses_are_kept_once_and_found_again(study):
    files = sorted(study.glob("combinations/*/completions/*.jsonl"))
    found = gather(files, sorted(study.glob("combinations/*/judgements/*/*.jsonl")))
    assert list(found["sets"]) == ["harmful", "harmless"]
    assert len(set(found["texts"])) == len(found["texts"])
    harmful = found["sets"]["harmful"]
    ids = [key for key, _, _ in harmful["prompts"]]
    answers = harmful["answers"]["0"]
    verdicts = evidence.study()["0"].verdicts["harmful", "substring"]
    assert [found["texts"][number] for number in answers["response"]] == [response(key, verdicts[key]) for key in ids]
    assert answers["verdicts"]["substring"]["labels"] == "".join(verdicts[key][0] for key in ids)
    # what a judge by rule shows is the response itself, and not kept again
    assert set(answers["verdicts"]["substring"]["raw"]) == {None}
    assert found["texts"][answers["verdicts"]["other"]["raw"][0]].startswith("<verdict>")
    assert found["texts"][answers["reasoning"][0]] == "let me <b>think</b>"
    assert answers["finish"][:2] == ["length", "stop"]


def test_packed_is_the_same_bytes_each_time_and_only_letters():
    value = {"text": "</script>\ud83d\u2028"}
    assert packed(value) == packed(value)
    assert re.fullmatch(r"[A-Za-z0-9+/=]+", packed(value))
    assert json.loads(gzip.decompress(b64decode(packed(value)))) == value


def test_page_holds_every_response_and_none_as_markup(page):
    data = unpacked(page)
    assert set(HOSTILE.values()) <= set(data["texts"])
    assert data["chosen"] == ["none", "0", "0-2"]
    # two of the page's own, which are data and its script
    assert page.count("<script") == page.count("</script>") == 2
    assert "window.broken" not in page
    assert "onerror" not in page


def test_page_says_the_answer_plots_claims_and_figures_without_its_script(page, study):
    visible = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert "One direction is not enough: the pair 0-2 leaves fewer refusals" in visible
    assert "Not refused is not answered" in visible
    for one in read_json(study / "claims.json")["claims"]:
        assert one["question"] in visible
    assert "What to see in scores: a &amp; b &lt; c." in visible
    assert visible.index("Plot of refusals") < visible.index("Plot of scores")
    assert all(f"<code>{name}</code>" in visible for name in evidence.study())
    assert visible.count("<h1") == 1
    meaning = "share of 100 harmful test prompts, Wilson 95% interval"
    assert f"<dt>harmful refused, substring</dt><dd>{meaning}</dd>" in visible


def test_agreement_is_that_over_all_sets(page, study):
    first, _ = read_table(study / "agreement.csv").to_dict("records")
    said = f"{first['valid']:,} of {first['n']:,}</td><td>90.0% (80.0% to 95.0%)</td><td>0.700"
    assert page.count(f"{first['first']}, {first['second']}</th><td>") == page.count(said) == 1


def test_of_many_sources_some_are_named_and_the_others_counted():
    model = {"architecture": "A", "layers": 2, "width": 8}
    origin = {"stages": [], "sources": [{"path": str(number), "sha256": "a"} for number in range(45)]}
    found = settings({}, model, origin)
    assert (len(found["sources"]), found["more_sources"]) == (40, 5)
    assert settings({}, model, origin | {"sources": []})["more_sources"] == 0


def test_page_is_made_of_what_its_spec_says(page, study):
    verify([study / "report.html"])
    spec = read_json(study / "report.html.spec.json")
    assert {"claims", "summary", "captions", "plot scores", "style.css", "browse.js"} <= set(spec["inputs"])


def test_page_that_hardly_refuses_says_so_first(tmp_path):
    folder = write_study(tmp_path, {"none": evidence.of("none", 5, 5.0), "0": evidence.of("0", 1, -2.0)})
    script("report").main(Namespace(**flags(folder) | {"agreement": None, "plots": None}))
    page = (folder / "report.html").read_text()
    said = page.index("This model hardly refuses.")
    assert page.index("<h1") < said < page.index('class="question"')
    assert "Plots</a>" not in page


def test_settings_are_fit_to_be_handed_on(study, page):
    given = {
        "study": {
            "datasets": {
                "mirror": "/scratch/alice/mirror",
                "url": "https://bob:hunter2@host.example/sets?token=sesame",
            },
            "completions": {"max_new_tokens": 24},
            "path": "/home/alice/models/my-model",
        },
        "model": {"refusal_tokens": ["i"], "system_prompt": "Look into /home/alice/notes"},
        "judges": {},
    }
    script("report").main(Namespace(**flags(study) | {"settings": json.dumps(given), "output": study / "told.html"}))
    told = (study / "told.html").read_text()
    for secret in ("alice", "bob", "hunter2", "sesame", "somebody", "/home", "/scratch", str(study), str(ROOT)):
        assert secret not in told
    assert "max_new_tokens: 24" in told
    assert ".../my-model" in told
    assert "https://host.example/sets" in told
    for found in (page, told):
        assert "/home" not in found


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("/data/alice/models/m", ".../m"),
        ("~/models/m", ".../m"),
        (r"C:\Users\alice\m", ".../m"),
        ("file:///data/alice/m", ".../m"),
        ("https://u:p@host:8/v1?k=s#t", "https://host:8/v1"),
        ("answers end with </verdict>, or/and not", "answers end with </verdict>, or/and not"),
        ("meta-llama/Llama-3", "meta-llama/Llama-3"),
        ("/", "/"),
        (
            {"api_key": "s", "refusal_tokens": ["I"], "token": None},
            {"api_key": HIDDEN, "refusal_tokens": ["I"], "token": None},
        ),
        ({"a": ("see /Users/alice/x", 3)}, {"a": ["see ~/x", 3]}),
    ],
)
def test_discretion(value, told):
    assert discreet(value) == told


def test_plots_lose_what_runs_loads_or_restyles(study):
    first, second = read_figures(study / "plots/captions.json")
    assert (first.name, second.name, first.title) == ("refusals", "scores", "Plot of refusals")
    assert first.width == 400
    for gone in ("script", "onload", "example.org", "<style", "metadata"):
        assert gone not in first.svg
    for kept in (
        'id="refusals-bar"',
        'xlink:href="#refusals-bar"',
        "font: 12px sans-serif",
        'aria-label="bars of refusals"',
    ):
        assert kept in first.svg


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("<svg", "not an SVG file (unclosed token: line 1, column 0): draw the plots again"),
        (SVG.replace("viewBox", "view"), "the SVG has no viewBox: draw the plots again"),
    ],
)
def test_a_plot_that_is_none_is_named(content, fault):
    with pytest.raises(UserError) as error:
        embedded(content, "bars", "plots/scores.svg")
    assert str(error.value) == f"plots/scores.svg: {fault}"


def test_a_plot_that_is_missing_is_named(tmp_path):
    (tmp_path / "captions.json").write_text(json.dumps(CAPTIONS))
    with pytest.raises(UserError) as error:
        list(read_figures(tmp_path / "captions.json"))
    assert str(error.value) == f"{tmp_path}/refusals.svg: no such file: draw the plots again"


def test_a_plot_without_a_caption_is_named(tmp_path):
    path = tmp_path / "captions.json"
    path.write_text(json.dumps({"scores": {"title": "t", "alt": "a"}}))
    with pytest.raises(UserError) as error:
        list(read_figures(path))
    assert str(error.value) == f"{path}: scores has no `caption`: draw the plots again"


def test_times_of_jobs_that_shared_a_stage_are_added_up(tmp_path):
    for name, line in (("loss.0-of-2", "2.0\t100.0"), ("loss.1-of-2", "3.5\t80.0"), ("claims", "0.1\tNA")):
        (tmp_path / f"{name}.tsv").write_text(f"s\tmax_rss\n{line}\n")
    (tmp_path / "killed.tsv").write_text("")
    assert times(tmp_path) == [
        {"job": "loss", "seconds": 5.5, "memory_mib": 100.0},
        {"job": "claims", "seconds": 0.1, "memory_mib": 0.0},
    ]
    assert times(tmp_path / "nowhere") == []


def test_memory_that_was_not_measured_is_said_so(study, tmp_path):
    (tmp_path / "claims.tsv").write_text("s\tmax_rss\n0.1\tNA\n")
    script("report").main(Namespace(**flags(study) | {"times": tmp_path, "output": study / "timed.html"}))
    assert "<td>0.1</td><td>not measured</td>" in (study / "timed.html").read_text()


@pytest.mark.parametrize(("seconds", "told"), [(11.6, "12 s"), (187, "3 min 7 s"), (7519.9, "2 h 5 min"), (0, "0 s")])
def test_duration(seconds, told):
    assert duration(seconds) == told


def test_costs_of_judges_that_are_paid_and_of_others(study):
    from refusal.checking import read_judge

    judges = {name: read_judge(ROOT / f"config/judges/{name}.yaml") for name in ("substring", "rubric")}
    files = sorted(study.glob("combinations/none/completions/*.jsonl"))
    free, paid = costs(judges, files)
    assert free == {"judge": "substring", "words": "by rule, nothing to pay"}
    assert paid["words"].startswith("about $")
    assert "requests" in paid["words"]
    assert paid["words"].endswith("; an estimate: less was paid where answers were there before, or are short")


def test_origins_name_stages_in_order_and_sources(tmp_path, monkeypatch):
    from refusal import provenance
    from refusal.provenance import Spec, stamp

    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    monkeypatch.setattr("refusal.report.origins.ROOT", tmp_path)
    for name in ("source", "first", "second"):
        (tmp_path / name).write_text(name)
    run = {"dtype": "float32", "device": "cpu", "versions": {"torch": "2"}, "items": ["x"]}
    stamp(tmp_path / "first", Spec("one", "aa", {}), {"in": tmp_path / "source"}, run)
    stamp(tmp_path / "second", Spec("after", "bb", {}), {"in": tmp_path / "first"})
    found = origins([tmp_path / "second", tmp_path / "first"])
    assert [(one["stage"], one["files"], one["code"], one["runs"]) for one in found["stages"]] == [
        ("one", 1, ["aa"], ["float32, cpu, torch 2"]),
        ("after", 1, ["bb"], []),
    ]
    assert [one["path"] for one in found["sources"]] == ["source"]


def test_policy_lets_nothing_in_but_the_page_s_own():
    said = policy("a{}", "run()")
    assert said.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-inline" not in said.replace("style-src-attr 'unsafe-inline'", "")
    assert "http" not in said


def test_comparison_of_models_that_were_asked_differently(study):
    whole = Findings(read_json(study / "claims.json"), read_table(study / "summary.csv"), Path("made/report.html"))
    few = {"none": evidence.of("none", 5, 5.0), "0": evidence.of("0", 1, -2.0)}
    from refusal.summary import summarize

    hardly = Findings(
        {"judge": "substring", "claims": claims(few, "substring", draws=99)}, summarize(few, draws=99), None
    )
    found = compared({"made": whole, "hardly": hardly})
    answers = dict(found["questions"])
    assert answers["Does the model refuse?"] == ["yes", "no"]
    assert answers["Is the best pair better than every random control of its size?"] == ["yes", "not measurable"]
    figure = embedded(SVG, "bars", "compare")
    text = render("compare.html", ("theme",), {**found, "figure": figure}).decode()
    assert '<a href="made/report.html">made</a>' in text
    assert "hardly refuses</small>" in text
    assert "The judges differ" not in text
    assert len(found["models"][1]["headlines"]) == 2
    costs = found["models"][0]["costs"]
    assert [one["corpus"] for one in costs] == ["text"]
    assert np.all([cost["best_pair"].startswith("+0.02") for cost in costs])


def test_compare_links_the_pages_that_are_there(study, page, tmp_path):
    made = script("compare")
    for name in ("made", "other"):
        (tmp_path / name).mkdir()
        for file in ("claims.json", "summary.csv"):
            (tmp_path / name / file).write_bytes((study / file).read_bytes())
    (tmp_path / "made/report.html").write_text("page")
    args = {"models": ["made", "other"], "results": tmp_path, "output": tmp_path / "compare.html"}
    made.main(Namespace(**args))
    text = (tmp_path / "compare.html").read_text()
    assert 'href="made/report.html"' in text
    assert 'href="other/report.html"' not in text
    assert "2 models" in text
    with pytest.raises(UserError) as error:
        made.main(Namespace(**args | {"models": ["made", "made"]}))
    assert str(error.value) == "--models: made is given twice: name each model once"
    with pytest.raises(UserError) as error:
        made.main(Namespace(**args | {"output": tmp_path / "made/compare.html"}))
    told = f"--output {tmp_path}/made/compare.html: put it into {tmp_path} or above: it links the pages there"
    assert str(error.value) == told
