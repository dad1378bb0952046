"""Every question of the study, asked at once, and the step that writes the answers."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import script
from evidence import TOKENS, of, study, verdicts

from refusal.artifacts import read_json, write_json, write_jsonl, write_tensors
from refusal.claims.questions import claims
from refusal.claims.words import narrate_claims
from refusal.errors import UserError
from refusal.provenance import sidecar, verify


def test_every_question_once():
    found = claims(study(), "substring", draws=99)
    assert [(one["claim"], one["answer"]) for one in found] == [
        ("refuses", "yes"),
        ("one_direction", "no"),
        ("pair_better", "yes"),
        ("top_two", "no"),
        ("single_beats_random", "yes"),
        ("pair_beats_random", "yes"),
        ("winners_curse", "no"),
        ("cost_matched", "undecided"),
        ("linear_cost", "yes"),
    ]
    for one in found:
        assert list(one)[:6] == ["claim", "question", "answer", "words", "figures", "rests_on"]
        assert one["question"].endswith("?")
        assert one["words"].endswith(".")
        assert set(one["rests_on"]) == {"judge", "set", "corpus", "combinations"}
        assert set(one["rests_on"]["combinations"]) <= set(study())
    assert found[0]["rests_on"] == {"judge": "substring", "set": "harmful", "corpus": None, "combinations": ["none"]}
    assert found[-1]["rests_on"] | {"combinations": []} == {
        "judge": None, "set": None, "corpus": "text", "combinations": [],
    }  # fmt: skip


def test_the_same_seed_gives_the_same_claims():
    assert claims(study(), "substring", draws=99) == claims(study(), "substring", draws=99)
    assert claims(study(), "substring", draws=99) != claims(study(), "substring", draws=99, seed=1)


def test_no_answer_rests_on_tests_of_what_was_not_chosen():
    """Only descriptions change when prompts that other ablations leave refused are others; a pair meets all singles."""
    chosen = {"none", "0", "1", "2", "0-1", "0-2"}
    changed = {
        name: replace(one, verdicts={("harmful", "substring"): verdicts(7, first=60)})
        if name[0].isdigit() and name not in chosen
        else one
        for name, one in study().items()
    }
    before, after = (claims(one, "substring", draws=99) for one in (study(), changed))
    assert before != after
    for one in (*before, *after):
        one.pop("descriptive", None)
    assert before == after


def test_scores_of_other_prompts():
    with pytest.raises(UserError, match=r"^1 was scored on 3 val prompts, 2 on 32: score both again$"):
        claims(study(**{"1": of("1", 60, scores=[1.0, 2.0, 4.0]), "0": None}), "substring", draws=9)


def test_tokens_that_differ():
    evidence = study()
    rows = evidence["0"].loss["text"]["by_row"]
    rows["n_tokens"] = [*TOKENS[1:], TOKENS[0]]
    with pytest.raises(UserError, match=r"^text: 0 and none differ in tokens by row: compute the loss again$"):
        claims(evidence, "substring", draws=9)


def test_words():
    found = claims(study(), "substring", draws=99)
    lines = narrate_claims(found, "tiny", "substring", "harmful").splitlines()
    assert lines[0] == "# tiny: claims"
    assert lines[2].startswith("Judge: substring, on harmful test prompts. ")
    assert lines[2].endswith(" Not refused is not answered: broken text is no refusal either.")
    bullets = [line for line in lines if line.startswith("- ")]
    assert len(bullets) == len(found)
    assert bullets[0] == (
        "- Does the model refuse? **Yes.** Without ablation the model refuses 100.0% (95% 96.3%-100.0%, n = 100) of the"
        " harmful test prompts."
    )
    more = " (Combinations that were not chosen: `claims.json`.)"
    for one, bullet in zip(found, bullets, strict=True):
        assert bullet.startswith(f"- {one['question']} **{one['answer'].capitalize()}.** {one['words']}")
        assert bullet.endswith(more) == ("descriptive" in one)


def test_words_of_what_was_not_measured():
    found = claims({"none": of("none", 100, 5.0)}, "other", draws=9)
    assert "- Does the model refuse? **Not measurable.** The judge other has no verdicts on harmful prompts under" in (
        narrate_claims(found, "tiny", "other", "harmful")
    )


class TestScript:
    def written(self, at, names=("none", "0", "0-2")):
        for name in names:
            one = study()[name]
            write_tensors(at / name / "basis.safetensors", {"basis": np.eye(4)}, one.basis)
            write_json(at / name / "scores.json", one.scores)
            write_json(at / name / "loss.json", one.loss)
            for judge in ("substring", "other"):
                rows = [{"id": key, "verdict": told} for key, told in verdicts(100 if judge == "other" else 50).items()]
                write_jsonl(at / name / "judgements" / judge / "harmful.jsonl", rows)
        return names

    def run(self, at, *flags, names=("none", "0", "0-2"), scored=None):
        module = script("claims")
        given = [
            "--bases", *(at / name / "basis.safetensors" for name in names),
            "--scores", *(at / name / "scores.json" for name in scored or names),
            "--losses", *(at / name / "loss.json" for name in names),
            "--judgements", *(at / name / "judgements" / judge / "harmful.jsonl" for name in names
                              for judge in ("substring", "other")),
            "--name", "tiny", "--output", at / "claims.json", "--words", at / "claims.md", *flags,
        ]  # fmt: skip
        module.main(module.parser().parse_args([str(one) for one in given]))
        return read_json(at / "claims.json")

    def test_claims_of_one_judge(self, tmp_path, caplog):
        caplog.set_level("INFO")
        self.written(tmp_path)
        made = self.run(tmp_path, "--judge", "substring")
        assert (made["judge"], made["set"]) == ("substring", "harmful")
        assert made["rules"] == {"level": 0.05, "margin": 0.1, "hardly": 0.5, "copies": 0.9, "bend": 0.25}
        assert made["claims"][0]["figures"]["refused"] == 50
        assert self.run(tmp_path, "--judge", "other")["claims"][0]["figures"]["refused"] == 100
        words = (tmp_path / "claims.md").read_text()
        assert words.startswith("# tiny: claims\n\nJudge: other, on harmful test prompts.")
        verify([tmp_path / "claims.json", tmp_path / "claims.md"])
        for file in ("claims.json", "claims.md"):
            assert read_json(sidecar(tmp_path / file))["parameters"] == {"name": "tiny", "judge": "other"}
        assert "Does the model refuse? **Undecided.** Without ablation the model refuses" in caplog.messages[0]
        assert caplog.messages[1] == words

    def test_a_file_that_was_changed(self, tmp_path):
        self.written(tmp_path)
        self.run(tmp_path, "--judge", "substring")
        write_json(sidecar(tmp_path / "0" / "loss.json"), {"sha256": "0" * 64, "stage": "loss", "inputs": {}})
        with pytest.raises(UserError, match=r"loss\.json: changed since the loss step wrote it"):
            self.run(tmp_path, "--judge", "substring")

    def test_figures_of_another_candidate(self, tmp_path):
        """Measured elsewhere with one direction; here the rank belongs to another, or to the same."""
        self.written(tmp_path)
        place = {"source": "mean_difference", "position": -2, "layer": 3}
        write_json(tmp_path / "0" / "scores.json", {"bypass": -2.0, "candidate": place})
        facts = study()["0"].basis
        for layer in (4, 3):
            candidate = {**place, "rank": 0, "layer": layer}
            write_tensors(
                tmp_path / "0" / "basis.safetensors", {"basis": np.eye(4)}, facts | {"candidates": [candidate]}
            )
            if layer == 4:
                with pytest.raises(UserError, match=r"0/scores\.json: was measured with the direction of position -2"):
                    self.run(tmp_path, "--judge", "substring")
                assert not (tmp_path / "claims.json").exists()
        assert self.run(tmp_path, "--judge", "substring")["claims"]

    def test_what_is_missing(self, tmp_path):
        self.written(tmp_path)
        with pytest.raises(UserError) as caught:
            self.run(tmp_path, "--judge", "substring", scored=["none", "0"])
        assert str(caught.value) == (
            "combination 0-2: scores, loss, or substring's judgements of harmful prompts are missing: give those of"
            " every basis"
        )
        made = self.run(tmp_path, "--judge", "substring", "--partial", scored=["none", "0"])
        assert [one["answer"] for one in made["claims"] if one["claim"] == "pair_better"] == ["not measurable"]
        with pytest.raises(UserError, match=r"^combination none: scores, loss, or nobody's judgements"):
            self.run(tmp_path, "--judge", "nobody")
        with pytest.raises(UserError, match=r"^--bases: none is not among them: "):
            self.run(tmp_path, "--judge", "substring", names=["0", "0-2"])
