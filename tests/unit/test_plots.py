"""Figures of a study: what stands where in them, in which words, and that their files can stand in a page."""

import json
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from conftest import script
from evidence import of, without
from evidence import study as hand_made
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PatchCollection, QuadMesh
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle
from plotted import agreeing, cosine_table, judged, large, tables

from refusal.artifacts import read_json, write_table
from refusal.plots import FILES, NAMES, as_svg, compare, style
from refusal.plots.figures import FIGURES
from refusal.plots.files import png
from refusal.plots.style import FOREGROUND, VERMILLION
from refusal.provenance import verify
from refusal.statistics import wilson

ROOT = Path(__file__).parents[2]
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def whole():
    """A study of two judges and two prompt sets."""
    evidence = judged(judged(hand_made(), "harmless", "substring", 3), "harmful", "oracle", 40)
    return tables(evidence, agreeing(evidence))


@pytest.fixture(scope="module")
def drawn(whole):
    """Name -> the figure of the whole study, with its words."""
    return {name: draw(whole) for name, draw in FIGURES.items()}


def lacking(part):
    """The hand-made study without verdicts, scores, or loss."""
    return {name: without(one, part) for name, one in hand_made().items()}


def texts(axes):
    """Text -> place of what is written into axes, in data."""
    return {text.get_text(): text.get_position() for text in axes.texts}


def title(axes):
    return axes.get_title(loc="left")


def labels(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def ticks(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def points(axes):
    """What is said of each mark -> its place."""
    marks = [line for line in axes.lines if (line.get_gid() or "").startswith("tooltip:")]
    return {
        line.get_gid().removeprefix("tooltip:"): (float(line.get_xdata()[0]), float(line.get_ydata()[0]))
        for line in marks
    }


def hatched(axes, hatch):
    """[number of cells] of the hatch, whatever its colour."""
    found = [one for one in axes.collections if isinstance(one, PatchCollection) and one.get_hatch() == hatch]
    return sum(len(one.get_paths()) for one in found)


class TestEveryFigure:
    def test_names_figures_and_captions_of_the_report_are_the_same(self):
        assert tuple(FIGURES) == NAMES
        captions = ROOT / "workflow/report/plots"
        assert {path.stem for path in captions.glob("*.rst")} == set(NAMES)
        for path in captions.glob("*.rst"):
            parts = [part.split(":")[0] for part in path.read_text().split("\n\n")]
            assert parts == ["What", "Prompts", "How to read", "Not shown"], path
        assert (*(f"{name}.{ending}" for name in NAMES for ending in ("svg", "png")), "captions.json") == FILES

    @pytest.mark.parametrize("name", NAMES)
    def test_its_words_say_what_is_there(self, drawn, name):
        _, title, caption, alt = drawn[name]
        assert title
        assert not title.endswith(".")
        assert caption.endswith(".")
        assert re.fullmatch(r".*\.", alt)
        for words in (title, caption, alt):
            assert not re.search(r"\bnan|None|  ", words)

    @pytest.mark.parametrize("name", NAMES)
    def test_svg_stands_in_a_page_beside_others(self, drawn, name):
        text = as_svg(drawn[name].figure, name)
        assert text.startswith("<svg ")
        root = ElementTree.fromstring(text)
        assert root.get("viewBox")
        assert "currentColor" in text
        assert FOREGROUND not in text
        ids = [one.get("id") for one in root.iter() if one.get("id")]
        assert len(set(ids)) == len(ids)
        assert all(one.startswith(f"{name}-") for one in ids)
        used = set(re.findall(r'(?:url\(#|href="#)([^")]+)', text))
        assert used <= set(ids)
        assert not {one.tag for one in root.iter()} & {f"{SVG}style", f"{SVG}metadata", f"{SVG}script"}
        # text is text
        assert any(one.tag == f"{SVG}text" for one in root.iter())

    @pytest.mark.parametrize("name", ["matrix", "promises"])
    def test_the_same_tables_give_the_same_bytes(self, whole, drawn, name):
        again = FIGURES[name](whole).figure
        assert as_svg(again, name) == as_svg(drawn[name].figure, name)
        assert png(again) == png(drawn[name].figure)

    def test_marks_say_which_combination_they_are(self, drawn):
        root = ElementTree.fromstring(as_svg(drawn["costs"].figure, "costs"))
        said = {one.text for one in root.iter(f"{SVG}title")}
        assert "0-2: 98% (95% 93% to 99%) complied with, +0.0200 nats" in said

    @pytest.mark.parametrize(
        ("name", "made"),
        [
            ("refusals", lambda: large(2)),
            ("refusals", lambda: large(19, layers=40, max_kl=2.0)),
            ("matrix", lambda: large(2)),
            ("matrix", lambda: large(19, layers=40, max_kl=2.0)),
            ("scores", lambda: large(1, (1,), positions=5, layers=1, max_layer_share=1.0, min_induce=-9.0)),
            ("scores", lambda: large(1, (1,), positions=5, layers=20)),
            ("scores", lambda: large(1, (1,), positions=5, layers=80, screened=False, max_kl=2.0)),
            ("cosines", lambda: large(19, layers=40, max_kl=2.0)),
        ],
        ids=lambda one: one if isinstance(one, str) else "",
    )
    def test_labels_neither_overlap_nor_leave_the_figure(self, name, made):
        figure = FIGURES[name](made()).figure
        as_svg(figure, name)  # lays it out
        renderer, page = FigureCanvasAgg(figure).get_renderer(), figure.bbox
        for axes in figure.axes:
            for axis in (axes.xaxis, axes.yaxis):
                low, high = sorted(axis.get_view_interval())
                inside = [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
                shown = [label.get_window_extent(renderer) for label in inside if label.get_visible()]
                for first, second in pairwise(sorted(shown, key=lambda one: (one.x0, one.y0))):
                    apart = second.x0 >= first.x1 - 0.5 or second.y0 >= first.y1 - 0.5 or first.y0 >= second.y1 - 0.5
                    assert apart, (name, first, second)
                for one in shown:
                    assert min(one.x0 - page.x0, page.x1 - one.x1) > -0.5, (name, one)
        for legend in figure.legends:
            box = legend.get_window_extent(renderer)
            assert min(box.x0 - page.x0, page.x1 - box.x1) > -0.5


class TestScores:
    def test_ranks_hatches_and_the_limit_of_layers(self):
        made = tables()
        figure, _, caption, alt = FIGURES["scores"](made)
        induce, kl, bypass = (axes for axes in figure.axes if title(axes))
        assert [title(axes).split(":")[0] for axes in (induce, kl, bypass)] == ["induce", "kl", "bypass"]
        ranked = made.ranking[made.ranking["rank"].notna()]
        assert texts(bypass) == {str(int(row["rank"])): (row.layer, row.position + 2) for _, row in ranked.iterrows()}
        thresholds = [[line.get_ydata()[0] for line in axes.lines] for axes in figure.axes if not title(axes)]
        assert thresholds == [[0.0], [0.1], []]  # no bypass score is above 0
        # each panel has those that have fallen by then: zero directions, low induce (layer 1), high kl, late layers
        for axes, cells in ((induce, [2, 2, 0, 4]), (kl, [2, 2, 1, 4]), (bypass, [2, 2, 1, 4])):
            assert [hatched(axes, hatch) for hatch in ("----", "\\\\\\\\", "xxxx", "////")] == cells
            assert [line.get_xdata()[0] for line in axes.lines] == [5.5]
        assert labels(figure) == [
            "zero direction (2)", "late layer, layer ≥ 6 (4)", "low induce, < 0 (2)", "high kl, > 0.1 (1)",
        ]  # fmt: skip
        assert "7 are ranked; 2 (zero direction), 4 (late layer), 2 (low induce) and 1 (high kl) fall." in caption
        assert "Without colour: not scored (9 candidates)" in caption
        assert ticks(bypass.yaxis) == ["−2", "−1"]
        assert "7 of 16 candidates are ranked" in alt

    def test_cells_that_a_full_sweep_scored_have_their_colour_and_the_hatch(self):
        figure = FIGURES["scores"](tables(screened=False)).figure
        bypass = next(axes for axes in figure.axes if title(axes).startswith("bypass"))
        (mesh,) = (one for one in bypass.collections if isinstance(one, QuadMesh))
        assert mesh.get_array().count() == 14  # all but the zero directions
        assert hatched(bypass, "////") == 4

    def test_what_is_like_a_better_one_or_is_no_number(self):
        made = tables()
        ranking = made.ranking.copy()
        ranking["reason"] = ranking.reason.replace({"high kl": "not a number"})
        last = ranking["rank"].idxmax()
        ranking.loc[last, ["rank", "kept", "reason"]] = [pd.NA, False, "|cosine| 0.93 to rank 0"]
        figure, _, caption, _ = FIGURES["scores"](replace(made, ranking=ranking))
        assert {"not a number (1)", "like a better one (1)"} <= set(labels(figure))
        assert "6 are ranked" in caption

    def test_candidates_of_several_sources_have_rows_of_their_own(self):
        made = tables()
        other = made.ranking.assign(source="pca", rank=pd.array([pd.NA] * 16, dtype="Int64"), kept=False, reason="x")
        figure = FIGURES["scores"](replace(made, ranking=pd.concat([made.ranking, other], ignore_index=True))).figure
        assert ticks(figure.axes[0].yaxis) == ["mean_difference -2", "mean_difference -1", "pca -2", "pca -1"]


class TestMatrix:
    def test_singles_on_the_diagonal_pairs_below(self, whole, drawn):
        figure, _, caption, _ = drawn["matrix"]
        axes = figure.axes[0]
        written = [(text.get_text(), text.get_position()) for text in axes.texts]
        assert written == [
            ("50", (0, 0)), ("60*", (1, 1)), ("80*", (2, 2)), ("2*", (0, 2)), ("45", (0, 1)), ("0*", (1, 2)),
        ]  # fmt: skip
        outlined = [one for one in axes.patches if to_hex(one.get_edgecolor()) == VERMILLION]
        assert [one.get_xy() for one in outlined] == [(-0.5, -0.5), (-0.5, 1.5)]
        (mesh,) = (one for one in axes.collections if isinstance(one, QuadMesh))
        np.testing.assert_array_equal(mesh.get_array().filled(-1), [[0.5, -1, -1], [0.45, 0.6, -1], [0.02, 0, 0.8]])
        assert caption.startswith(
            "Share of harmful test prompts that substring calls refused (n = 100), in percent: singles on the diagonal"
        )
        assert "Pairs leave 0% to 45%." in caption

    def test_near_copies_are_hatched_and_larger_ones_counted(self):
        copies = of("0-1", 50, -2.1, cosine=0.9999, directions=1)
        figure, _, caption, _ = FIGURES["matrix"](tables(hand_made(**{"0-1": copies, "0-1-2": of("0-1-2", 1, -7.0)})))
        (square,) = (one for one in figure.axes[0].patches if isinstance(one, Rectangle) and one.get_hatch())
        assert square.get_xy() == (-0.5, 0.5)
        assert "near-copies: one direction is ablated" in labels(figure)
        assert "Of 0-1, near-copies, one direction was ablated and not two." in caption
        assert caption.endswith("intervals, and 1 combination of three ranks or more.")

    def test_one_combination(self):
        figure, _, caption, alt = FIGURES["matrix"](tables({name: hand_made()[name] for name in ("none", "0")}))
        assert texts(figure.axes[0]) == {"50": (0, 0)}
        assert "Pairs" not in caption
        assert alt.startswith("Matrix of the refusal rate under 1 single and 0 pairs of ranks: without ablation 100%")

    def test_without_verdicts_it_says_so(self):
        figure, _, caption, alt = FIGURES["matrix"](tables(lacking("verdicts")))
        assert caption == alt == "substring has judged no single and no pair on harmful test prompts."
        assert [text.get_text() for text in figure.texts] == [caption]


class TestRefusals:
    def test_rows_by_size_then_bypass_controls_in_a_row_each(self, drawn):
        figure, _, caption, _ = drawn["refusals"]
        harmful, harmless = figure.axes
        assert (title(harmful), title(harmless)) == ("harmful (n = 100)", "harmless (n = 100)")
        assert ticks(harmful.yaxis) == [
            "none", "0", "1", "2", "0-2", "0-1", "1-2", "1 random", "2 random", "add-0",
        ]  # fmt: skip
        bold = [one.get_text() for one in harmful.get_yticklabels() if one.get_fontweight() == "bold"]
        assert bold == ["0", "0-2"]
        dotted = [
            line.get_xdata() for axes in (harmful, harmless) for line in axes.lines if line.get_linestyle() == ":"
        ]
        assert dotted == [[1.0, 1.0], [0.03, 0.03]]
        places = points(harmful)
        bounds = wilson(2, 100)
        assert [line.get_ydata()[0] for line in harmful.lines if list(line.get_xdata()) == pytest.approx(bounds)] == [
            places["0-2: 2% (95% 1% to 7%) of harmful refused"][1]
        ]
        assert places["0-2: 2% (95% 1% to 7%) of harmful refused"][0] == 0.02
        draws = [y for said, (_, y) in places.items() if said.startswith("random-k1")]
        assert len({round(y) for y in draws}) == 1
        assert len(set(draws)) == 2
        assert "99% to 100% under 1 random direction and 98% under 2 random directions" in caption
        assert "when a direction is added: 3% (95% 1% to 8%) under add-0" in caption
        assert caption.endswith("No verdict is invalid.")

    def test_of_many_the_best_on_val_have_rows_and_the_others_share_one(self):
        made = large(19, layers=40, max_kl=2.0)
        figure, _, caption, _ = FIGURES["refusals"](made)
        names = ticks(figure.axes[0].yaxis)
        assert names[-1] == "150 others"
        assert [name for name in names if "-" not in name] == ["none", *map(str, range(19)), "150 others"]
        assert "150 other ablations, with higher bypass on val, stand in one row." in caption

    def test_a_set_that_was_not_judged_has_no_panel(self):
        assert len(FIGURES["refusals"](tables()).figure.axes) == 1
        bare = FIGURES["refusals"](tables(lacking("verdicts")))
        assert bare.caption == "substring has judged no responses."

    def test_what_was_not_judged_has_no_row(self):
        evidence = hand_made()
        figure, _, caption, _ = FIGURES["refusals"](tables(evidence | {"0": without(evidence["0"], "verdicts")}))
        assert "0" not in ticks(figure.axes[0].yaxis)
        assert "best single on val, 0, not measured" in caption


class TestCosts:
    def test_a_panel_a_corpus_and_what_is_beyond_its_scale(self, drawn):
        figure, _, caption, _ = drawn["costs"]
        (axes,) = figure.axes  # this evidence has no KL
        assert title(axes) == "CE on text, above none"
        assert axes.get_xscale() == "linear"
        assert {text.get_text() for text in axes.texts} == {"0", "0-2"}
        assert not any(said.startswith("add-0") for said in points(axes))
        assert "Chosen on val: 0 complies with 50% (95% 40% to 60%); CE on text +0.0" in caption
        costly = hand_made(**{"1-2": of("1-2", 0, -1.5, cost=2.0)})
        assert FIGURES["costs"](tables(costly)).figure.axes[0].get_xscale() == "symlog"

    def test_names_of_two_at_one_place_stay_apart(self):
        rows = pd.DataFrame({"combination": ["0-2", "0"], "x y": [1.0, 1.0], "up": [0.5, 0.5]})
        figure = style.new_figure(2)
        style.name_points(figure.add_subplot(), rows, "x y", "up")
        first, second = (
            text.get_window_extent(FigureCanvasAgg(figure).get_renderer()) for text in figure.axes[0].texts
        )
        assert [text.get_text() for text in figure.axes[0].texts] == ["0", "0-2"]
        assert first.x1 < second.x0

    def test_kl_is_a_panel_where_it_was_measured(self):
        scored = {name: replace(one, scores=one.scores | {"kl": 0.02}) for name, one in hand_made().items()}
        figure, _, caption, _ = FIGURES["costs"](tables(scored))
        assert [title(axes) for axes in figure.axes] == ["CE on text, above none", "KL on harmless val prompts"]
        assert "; without: KL." in caption

    def test_without_costs_it_says_so(self):
        bare = FIGURES["costs"](tables(lacking("loss")))
        assert bare.caption == "No ablation has both verdicts on harmful prompts and a cost (CE or KL)."


class TestCosines:
    def test_both_halves_and_ones_between(self):
        made = tables()
        made.cosines.loc[0, "cosine"] = -0.95
        figure, _, caption, alt = FIGURES["cosines"](made)
        axes = figure.axes[0]
        written = {text.get_position(): text.get_text() for text in axes.texts}
        assert len(written) == 49
        assert (written[0, 0], written[0, 1], written[1, 0], written[2, 1]) == ("1.00", "−.95", "−.95", ".25")
        assert "of the first 7 of 7" in caption
        assert "A |cosine| of 0.9 or more: 1 of 21 pairs; the least alike" in caption
        assert ticks(axes.yaxis)[0] == f"0 (−{-int(made.ranking.position.iloc[0])}, {made.ranking.layer.iloc[0]})"
        assert alt.endswith("a |cosine| of 0.9 or more in 1 of 21 pairs.")

    def test_near_copies_that_are_ablated_as_two_are_named(self):
        copies = {"0-1": of("0-1", 50, -2.1, cosine=0.9999, directions=1), "1-2": of("1-2", 97, 3.0, cosine=0.99)}
        caption = FIGURES["cosines"](tables(hand_made(**copies))).caption
        assert (
            "Ablating both ablates one direction where |cosine| is above 0.9987; below, what they differ by is ablated"
            " too, and may do more than either (near-copies ablated as two: 1-2)."
        ) in caption
        assert "near-copies" not in FIGURES["cosines"](tables()).caption

    def test_no_more_than_can_be_read(self):
        made = tables(layers=80, positions=5, screened=False, max_kl=2.0)
        assert FIGURES["cosines"](made).caption.count("of the first 10 of 310") == 1
        named = hand_made(**{"0-120": of("0-120", 0, -9.0)})
        made = tables(named, layers=80, positions=5, screened=False, max_kl=2.0)
        assert FIGURES["cosines"](made).caption.count("of the first 40 of 310") == 1

    def test_one_ranked_candidate(self):
        made = tables()
        ranking = made.ranking.assign(rank=made.ranking["rank"].where(made.ranking["rank"] == 0))
        bare = FIGURES["cosines"](replace(made, ranking=ranking, cosines=cosine_table(1)))
        assert bare.caption == "One candidate is ranked, so there are no two directions to compare."


class TestPromises:
    def test_val_against_test(self, drawn):
        figure, _, caption, alt = drawn["promises"]
        bypass, shares = figure.axes
        assert (title(bypass), title(shares)) == ("by bypass", "by refusals on val")
        said = next(one for one in points(bypass) if one.startswith("0-2"))
        assert points(bypass)[said] == (pytest.approx(-6.0, abs=0.1), 0.02)
        assert points(shares)[said] == (0.0, 0.02)
        assert "Over 6 ablations Spearman's rho of bypass and refusals on test is 0.66." in caption
        assert "left on test beyond what val promised: 0 +" in caption
        assert alt.endswith("Spearman's rho of bypass and refusals is 0.66 over ablations.")

    def test_legend_names_what_is_there(self):
        evidence = hand_made()
        figure = FIGURES["promises"](tables(evidence | {"none": without(evidence["none"], "scores")})).figure
        assert labels(figure) == ["one rank", "two ranks", "control: random", "filled: chosen on val"]

    def test_without_scores_it_says_so(self):
        bare = FIGURES["promises"](tables(lacking("scores")))
        assert bare.caption == "No combination has both verdicts on harmful prompts and scores on val prompts."

    def test_of_a_run_without_scores_by_prompt_bypass_is_there(self):
        evidence = {name: replace(one, scores={"bypass": one.scores["bypass"]}) for name, one in hand_made().items()}
        figure, _, caption, _ = FIGURES["promises"](tables(evidence))
        assert [title(axes) for axes in figure.axes] == ["by bypass"]
        assert "diagonal" not in caption


class TestAgreement:
    def test_pairs_and_the_other_judge_by_combination(self, drawn):
        figure, _, caption, _ = drawn["agreement"]
        same, kappa, rates = figure.axes
        assert ticks(same.yaxis) == ["substring\noracle"]
        assert len(points(same)) == len(points(kappa)) == 2  # harmful, and all sets
        assert points(rates)["0-2: 2% by substring, 40% by oracle"] == (0.02, 0.4)
        assert "Furthest apart: oracle 60 points." in caption
        assert re.search(r"Over all sets: substring and oracle \d+\.\d%, kappa 0\.\d\d \(n = 1100\)\.", caption)

    def test_one_judge_says_so(self):
        alone = FIGURES["agreement"](tables())
        assert alone.caption == "substring is the only judge of this study, so there is no agreement to show."

    def test_kappa_that_is_undefined_is_said_so(self):
        evidence = judged({"none": of("none", 100), "0": of("0", 100)}, "harmful", "other", 100)
        caption = FIGURES["agreement"](tables(evidence, agreeing(evidence))).caption
        assert "substring and other 100.0%, one label only: kappa is undefined." in caption


class TestCompare:
    def test_three_marks_a_model_and_the_names_of_what_was_chosen(self):
        judged_by_other = judged(lacking("verdicts"), "harmful", "other", 9)
        alone = {name: hand_made()[name] for name in ("none", "1")}
        studies = {"first": hand_made(), "second": judged_by_other, "third": alone}
        figure = compare({model: (tables(one).summary, "substring") for model, one in studies.items()})
        (axes,) = figure.axes
        assert ticks(axes.yaxis) == ["first", "second", "third"]
        assert points(axes) == {
            "first, none: 100% refused, by substring": (1.0, pytest.approx(-0.24)),
            "first, 0: 50% refused, by substring": (0.5, 0.0),
            "first, 0-2: 2% refused, by substring": (0.02, pytest.approx(0.24)),
            "third, none: 100% refused, by substring": (1.0, pytest.approx(1.76)),
            "third, 1: 60% refused, by substring": (0.6, 2.0),
        }
        assert [text.get_text() for text in axes.texts] == ["0", "0-2", "not judged by substring", "1"]
        assert labels(figure) == ["no ablation", "best single on val", "best pair on val"]

    def test_each_by_its_own_judge_who_is_named_where_they_differ(self):
        other = tables(judged(hand_made(), "harmful", "other", 9)).summary
        (axes,) = compare({"first": (tables().summary, "substring"), "second": (other, "other")}).axes
        assert ticks(axes.yaxis) == ["first\nby substring", "second\nby other"]
        assert points(axes)["second, 0: 9% refused, by other"] == (0.09, 1.0)


class TestScript:
    @pytest.fixture(scope="class")
    @classmethod
    def folder(cls, tmp_path_factory):
        """Tables of a study of one judge, as CSV, and its plots beside them."""
        folder = tmp_path_factory.mktemp("study")
        made = tables()
        for name in ("summary", "ranking", "cosines"):
            write_table(folder / f"{name}.csv", getattr(made, name))
        flags = [part for name in ("summary", "ranking", "cosines") for part in (f"--{name}", folder / f"{name}.csv")]
        stage = script("plots")
        flags += ["--name", "made", "--judge", "substring", "--output-dir", folder / "plots"]
        stage.main(stage.parser().parse_args([str(flag) for flag in flags]))
        return folder / "plots"

    def test_every_file_with_where_it_comes_from(self, folder):
        files = {path.name for path in folder.iterdir() if not path.name.endswith(".spec.json")}
        assert files == set(FILES)
        verify(folder / name for name in FILES)
        record = read_json(folder / "costs.svg.spec.json")
        assert record["stage"] == "plots"
        assert set(record["inputs"]) == {"summary", "ranking", "cosines"}
        assert record["parameters"]["filters"]["layers"] == 8

    def test_captions_are_in_the_order_of_reading(self, folder):
        captions = json.loads((folder / "captions.json").read_text())
        assert tuple(captions) == NAMES
        assert {tuple(one) for one in captions.values()} == {("title", "caption", "alt")}
        assert captions["agreement"]["caption"].startswith("substring is the only judge")

    def test_tables_that_were_read_are_those_that_were_drawn(self, folder):
        made = tables()
        assert (folder / "matrix.svg").read_text() == as_svg(FIGURES["matrix"](made).figure, "made-matrix")
