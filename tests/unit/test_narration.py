"""The table in plain words: the whole text of a small study, and the sentences that warn."""

from dataclasses import replace

import pytest
from evidence import study as hand_made
from test_summary import C, R, evidence, study  # noqa: F401 (a fixture)

from refusal.narration import narrate
from refusal.summary import summarize


@pytest.fixture
def text(study):  # noqa: F811
    return narrate(summarize(study), "tiny", "substring")


def test_whole(text):
    assert text.splitlines() == [
        "# tiny",
        "",
        "Judge: substring. Rates carry Wilson 95% intervals, CE deltas bootstrap ones.",
        "",
        "- Without ablation the model refuses 87.5% (95% 52.9%-97.8%, n = 8) of the harmful test prompts.",
        "- It refuses 0.0% (95% 0.0%-65.8%, n = 2) of the harmless ones (over-refusal).",
        "- The best single on val, 1, leaves 12.5% (95% 2.2%-47.1%, n = 8) refused.",
        "- The best combination on val, 0-1, leaves 0.0% (95% 0.0%-32.4%, n = 8); against the best single p = 1"
        " (Holm, 7 pairs).",
        "- Control: 1 random direction ablated leaves 100% (one per draw).",
        "- Adding the direction of rank 0 makes it refuse 0.0% (95% 0.0%-65.8%, n = 2) of the harmless prompts.",
        "- Invalid verdicts, all combinations: 2 on harmful, 0 on harmless.",
        "- Nearly parallel candidates: the effective rank of 0-1 is below k,"
        " so fewer directions were ablated than named.",
        "",
        "| combination | k | effective rank | bypass | kl | harmful refused | harmless refused | ce_text_delta |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| none | 0 | 0 | 5.00 | 0.000 | 88% (53%-98%) | 0% (0%-66%) | +0.0000 |",
        "| 0 | 1 | 1 | 1.00 | 0.010 | 50% (22%-78%) | 0% (0%-66%) | +0.2500 |",
        "| 1 | 1 | 1 | -1.00 | 0.010 | 12% (2%-47%) | 0% (0%-66%) | +0.5000 |",
        "| 0-1 | 2 | 1 | -2.00 | 0.020 | 0% (0%-32%) | 50% (9%-91%) | +0.5000 |",
        "| random-k1-s0 | 1 | 1 | 4.50 | 0.010 | 100% (68%-100%) | 0% (0%-66%) | +0.0000 |",
        "| add-0 | 1 | 0 | 6.00 | 0.010 | 100% (68%-100%) | 0% (0%-66%) | +0.0000 |",
    ]


def test_intervals_of_costs_and_the_gap_between_val_and_test():
    made = hand_made()
    said = narrate(summarize(made, draws=999), "tiny", "substring").splitlines()
    table = summarize(made, draws=999).set_index("combination")
    for name, begin in (("0", "- The best single on val, 0,"), ("0-2", "- The best combination on val, 0-2,")):
        row = table.loc[name]
        (best,) = [line for line in said if line.startswith(begin)]
        assert best.endswith(
            f"; of the refusals, {100 * row.harmful_substring_gap:+.1f} points against what val promised"
            f" (95% {100 * row.harmful_substring_gap_low:+.1f} to {100 * row.harmful_substring_gap_high:+.1f})."
        )
    (cells,) = [line for line in said if line.startswith("| 0-2 |")]
    assert cells.endswith(
        f"| {row.ce_text_delta:+.4f} ({row.ce_text_delta_low:+.4f} to {row.ce_text_delta_high:+.4f}) |"
    )
    (cells,) = [line for line in said if line.startswith("| none |")]
    assert cells.endswith("| +0.0000 |")


def test_a_corpus_may_be_called_as_if_it_were_a_delta():
    named = {name: replace(one, loss={"text_delta": one.loss["text"]}) for name, one in hand_made().items()}
    said = narrate(summarize(named, draws=99), "tiny", "substring").splitlines()
    (heads,) = [line for line in said if line.startswith("| combination")]
    assert heads.endswith("| harmful refused | ce_text_delta_delta |")


WARNING = (
    "- **It hardly refuses by itself**: there is little refusal for an ablation to remove, so differences between"
    " combinations below are no evidence of what mediates refusal."
)


@pytest.mark.parametrize(
    ("refused", "said"), [(0, True), (20, True), (39, True), (45, False), (50, False), (100, False)]
)
def test_a_model_that_hardly_refuses(refused, said):
    """Said where the interval's upper end is below one half."""
    verdicts = [R] * refused + [C] * (100 - refused)
    table = summarize({"none": evidence(0.0, verdicts), "0": evidence(0.0, [C] * 100, k=1, ranks=[0])})
    assert (WARNING in narrate(table, "small", "substring").splitlines()) == said


def lines(one):
    return narrate(summarize(one), "tiny", "substring").splitlines()


def test_no_combination_better_than_the_best_single(study):  # noqa: F811
    better = {**study, "0-1": evidence(-0.5, [C] * 8, k=2, ranks=[0, 1])}
    assert "- No other combination has a lower bypass score on val than the best single." in lines(better)
    assert not any(line.startswith("- The best combination") for line in lines(better))
    alone = {name: study[name] for name in ("none", "1")}
    assert not any("combination" in line for line in lines(alone) if line.startswith("- The") or "No other" in line)


def test_without_singles_no_single_is_named(study):  # noqa: F811
    said = lines({name: study[name] for name in ("none", "0-1")})
    assert "- The best combination on val, 0-1, leaves 0.0% (95% 0.0%-32.4%, n = 8)." in said
    assert not any("best single" in line for line in said)


def test_nothing_is_said_of_what_was_not_done(study):  # noqa: F811
    said = "\n".join(lines({name: study[name] for name in ("none", "0", "1")}))
    for word in ("Control", "Adding", "Nearly parallel"):
        assert word not in said


def test_what_was_not_measured(study):  # noqa: F811
    """As an imported run leaves it: an ablation without responses, an addition without scores, a subtraction."""
    ablated = replace(study["0"], verdicts={})
    added = replace(study["add-0"], scores={}, loss={})
    said = lines({"none": study["none"], "0": ablated, "add-0": added, "sub-0": replace(added, verdicts={})})
    assert said[3:] == [
        "",
        "- Without ablation the model refuses 87.5% (95% 52.9%-97.8%, n = 8) of the harmful test prompts.",
        "- It refuses 0.0% (95% 0.0%-65.8%, n = 2) of the harmless ones (over-refusal).",
        "- The best single on val, 0, leaves a share that was not measured refused.",
        "- Adding the direction of rank 0 makes it refuse 0.0% (95% 0.0%-65.8%, n = 2) of the harmless prompts.",
        "- Subtracting the direction of rank 0 leaves a share that was not measured of the harmful prompts refused.",
        "- Invalid verdicts, all combinations: 1 on harmful, 0 on harmless.",
        "",
        "| combination | k | effective rank | bypass | kl | harmful refused | harmless refused | ce_text_delta |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| none | 0 | 0 | 5.00 | 0.000 | 88% (53%-98%) | 0% (0%-66%) | +0.0000 |",
        "| 0 | 1 | 1 | 1.00 | 0.010 |  |  | +0.2500 |",
        "| add-0 | 1 | 0 |  |  | 100% (68%-100%) | 0% (0%-66%) |  |",
        "| sub-0 | 1 | 0 |  |  |  |  |  |",
    ]


def test_a_subtraction(study):  # noqa: F811
    assert (
        "- Subtracting the direction of rank 0 leaves 50.0% (95% 21.5%-78.5%, n = 8) of the harmful prompts refused."
        in lines({"none": study["none"], "sub-0": evidence(0.0, [R, C] * 4, k=1, effective_rank=0, ranks=[0])})
    )


def test_nothing_judged_nothing_scored(study):  # noqa: F811
    bare = {name: replace(one, scores={}, loss={}, verdicts={}) for name, one in study.items()}
    said = lines(bare)
    assert "nan" not in "\n".join(said).lower()
    assert "- Without ablation the model refuses a share that was not measured of the harmful test prompts." in said
    assert "- Control: 1 random direction ablated leaves a share that was not measured (one per draw)." in said
    assert "- Invalid verdicts, all combinations: no verdicts at all." in said
    assert "| 0-1 | 2 | 1 |  |  |" in said


def test_a_judge_whose_name_ends_with_anothers(study):  # noqa: F811
    longer = {(prompts, f"my_{judge}"): found for (prompts, judge), found in study["none"].verdicts.items()}
    two = {name: replace(one, verdicts={**one.verdicts, **longer}) for name, one in study.items()}
    assert lines(two) == lines(study)


def test_another_judge_speaks_for_itself(study):  # noqa: F811
    other = {(prompts, "other"): {"p0": C, "p1": R} for prompts in ("harmful", "harmless")}
    two = {name: replace(one, verdicts={**one.verdicts, **other}) for name, one in study.items()}
    said = narrate(summarize(two), "tiny", "other").splitlines()
    assert said[2] == "Judge: other. Rates carry Wilson 95% intervals, CE deltas bootstrap ones."
    assert "- It refuses 50.0% (95% 9.5%-90.5%, n = 2) of the harmless ones (over-refusal)." in said
    assert "- Invalid verdicts, all combinations: 0 on harmful, 0 on harmless." in said
