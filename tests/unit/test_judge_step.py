"""The step that checks a judge before other work."""

import pytest
import yaml
from conftest import ROOT, script

from refusal.artifacts import read_json
from refusal.errors import UserError

JUDGES = ROOT / "config" / "judges"


def checked(judge, output):
    step = script("judge")
    step.main(step.parser().parse_args(["--judge", str(judge), "--output", str(output)]))
    return read_json(output)


@pytest.mark.parametrize(("name", "needs"), [("substring", "cpu"), ("published", "cpu"), ("oracle", "cpu")])
def test_a_judge_by_rule_needs_nothing(tmp_path, name, needs):
    found = checked(JUDGES / f"{name}.yaml", tmp_path / "judge.json")
    kind = yaml.safe_load((JUDGES / f"{name}.yaml").read_text())["kind"]
    assert found == {"judge": name, "kind": kind, "needs": needs}


def test_a_missing_key(tmp_path, monkeypatch):
    monkeypatch.delenv("TOGETHER_API_KEY", raising=False)
    with pytest.raises(UserError, match=r"^rubric judge: TOGETHER_API_KEY is not set: export the service's key"):
        checked(JUDGES / "rubric.yaml", tmp_path / "judge.json")
    assert not (tmp_path / "judge.json").exists()
    monkeypatch.setenv("TOGETHER_API_KEY", "sk-made-up")
    assert checked(JUDGES / "rubric.yaml", tmp_path / "judge.json")["needs"] == "network"
    assert "sk-made-up" not in (tmp_path / "judge.json").read_text()


def test_a_model_that_cannot_be_had(tmp_path):
    settings = yaml.safe_load((JUDGES / "llama_guard3.yaml").read_text())
    (tmp_path / "empty").mkdir()
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(settings | {"model": str(tmp_path / "empty")}))
    with pytest.raises(UserError) as caught:
        checked(path, tmp_path / "judge.json")
    assert str(caught.value).startswith(f"{tmp_path / 'empty'}")
    assert "\n" not in str(caught.value)
