"""First tokens of a model's replies, and the step that proposes refusal tokens from them."""

import random

import numpy as np
import pytest
import torch
from conftest import build_tokenizer, describe, script

from refusal.artifacts import read_json, write_jsonl
from refusal.errors import UserError
from refusal.identity import scoring_key
from refusal.model.batching import Room
from refusal.model.first_tokens import first_token_probabilities
from refusal.model.specimens import specimen
from refusal.provenance import verify


def test_mean_probabilities(chat):
    rows = chat.encode([{"id": str(n), "instruction": "How " * n} for n in range(1, 6)])
    found = first_token_probabilities(chat, rows, Room(2))
    expected = [chat.model(torch.tensor([row])).logits[0, -1].float().softmax(-1).double().numpy() for row in rows]
    np.testing.assert_allclose(found, np.mean(expected, 0), atol=1e-6)
    assert found.sum() == pytest.approx(1, abs=1e-6)


def test_logits_that_overflow_are_said(chat, monkeypatch):
    from refusal.model import first_tokens

    logits = torch.zeros(3, 264)
    logits[1, 5] = torch.inf
    monkeypatch.setattr(first_tokens, "baseline_logits", lambda *_: logits)
    with pytest.raises(UserError) as caught:
        first_token_probabilities(chat, [[1], [2], [3]], Room(2))
    assert str(caught.value) == (
        "unablated: the probability of a first token of prompt 1 is nan: the model's logits overflow; use dtype float32"
        " or bfloat16"
    )


@pytest.fixture
def at(tmp_path):
    """A described random model, and prompts of both kinds, one of each in the test file."""
    specimen("Llama").save_pretrained(tmp_path / "model")
    build_tokenizer().save_pretrained(tmp_path / "model")
    for kind in ("harmful", "harmless"):
        rows = [{"instruction": f"{kind} {number}"} for number in range(12)]
        write_jsonl(tmp_path / f"{kind}.jsonl", rows)
    write_jsonl(tmp_path / "test.jsonl", [{"instruction": "harmful 3"}, {"instruction": "HARMLESS  4"}])
    describe(tmp_path / "model", tmp_path / "description.json", refusal_tokens=[])
    return tmp_path


def proposed(at, *flags):
    module = script("refusal_tokens")
    module.main(
        module.parser().parse_args(
            [str(flag) for flag in (
                "--model", at / "description.json", "--harmful", at / "harmful.jsonl", "--harmless",
                at / "harmless.jsonl", "--kept-out", at / "test.jsonl", "--train", 8, "--cache", at / "cache",
                "--output", at / "refusal_tokens.json", *flags,
            )]
        )
    )  # fmt: skip
    return read_json(at / "refusal_tokens.json")


def contrasts(monkeypatch, *pairs):
    """Have the model's first tokens be these: (id, harmful, harmless)."""
    from refusal.model import first_tokens

    asked = []

    def probabilities(chat, prompts, room):
        asked.append(sorted(chat.tokenizer.decode(row).split("<user>")[1].split("<end>")[0] for row in prompts))
        values = np.zeros(264)
        for token, *both in pairs:
            values[token] = both[(len(asked) - 1) % 2]
        return values

    monkeypatch.setattr(first_tokens, "first_token_probabilities", probabilities)
    return asked


class TestStage:
    def test_what_it_proposes_goes_into_the_identity_file(self, at, monkeypatch, caplog):
        caplog.set_level("INFO")
        asked = contrasts(monkeypatch, (80, 0.75, 0.0), (90, 0.2, 0.15), (100, 0.06, 0.02))
        record = proposed(at)
        strings = [build_tokenizer().decode([token]) for token in (80, 90, 100)]
        assert record["refusal_tokens"] == [{"id": 80, "string": strings[0]}]
        assert record["prompts"] == {"harmful": 8, "harmless": 8}
        assert record["rule"] == {"min_contrast": 0.1, "min_ratio": 2.0, "most": 8}
        first, second, third = record["contrasts"][:3]
        assert first == {"id": 80, "string": strings[0], "harmful": 0.75, "harmless": 0.0, "contrast": 0.75}
        assert [second["string"], third["string"]] == strings[1:]
        assert f'refusal token "{strings[0]}" 75.0% of replies to harmful prompts, 0.0% to harmless' in caplog.messages
        assert not [one for one in caplog.records if one.levelname == "WARNING"]
        # train prompts alone, those of the test files left out
        assert [len(one) for one in asked] == [8, 8]
        assert not {"harmful 3", "harmless 4"} & {*asked[0], *asked[1]}
        named = describe(at / "model", at / "named.json", refusal_tokens=[strings[0]])
        model = describe(at / "model", at / "model.json", refusal_tokens=[], proposed=at / "refusal_tokens.json")
        assert read_json(model)["refusal_tokens"] == record["refusal_tokens"]
        assert [read_json(one)["refusal_tokens_from"] for one in (model, named)] == [
            "refusal_tokens.json",
            "model file",
        ]
        assert scoring_key(model) == scoring_key(named)  # so that what was scored with the same tokens is not again
        verify([model])
        (at / "refusal_tokens.json").write_text("{}")
        with pytest.raises(UserError, match=r"model\.json: made from an older .*refusal_tokens\.json"):
            verify([model])

    def test_the_model_is_run_once(self, at, monkeypatch, caplog):
        caplog.set_level("INFO")
        contrasts(monkeypatch, (80, 0.9, 0.0))
        first = proposed(at)
        caplog.clear()
        assert proposed(at) == first
        assert caplog.messages[0] == "refusal_tokens: 0 of 1 items to compute"
        proposed(at, "--seed", 7)
        assert "refusal_tokens: 1 of 1 items to compute" in caplog.messages

    def test_the_published_draw_is_from_one_stream_and_leaves_nothing_out(self, at, monkeypatch):
        asked = contrasts(monkeypatch, (80, 0.9, 0.0))
        proposed(at, "--sampling", "published", "--train", 12)
        assert asked == [sorted(f"{kind} {number}" for number in range(12)) for kind in ("harmful", "harmless")]
        random.seed(42)
        pools = [[f"{kind} {number}" for number in range(12)] for kind in ("harmful", "harmless")]
        proposed(at, "--sampling", "published")
        assert asked[2:] == [sorted(random.sample(pool, 8)) for pool in pools]

    def test_a_model_that_hardly_refuses(self, at, monkeypatch, caplog):
        contrasts(monkeypatch, (80, 0.3, 0.01), (81, 0.1, 0.0))
        proposed(at)
        assert caplog.messages == [
            "these start 40.0% of the replies to harmful prompts: the model hardly refuses, or refuses in other words:"
            " read some replies, and name `refusal_tokens` in the model file by hand"
        ]

    def test_none_is_found(self, at, monkeypatch, caplog):
        """What was computed is kept, so that finding none once more costs no second run."""
        caplog.set_level("INFO")
        contrasts(monkeypatch, (80, 0.5, 0.45))
        for _ in range(2):
            with pytest.raises(UserError, match=f"^{at}: no token starts clearly more replies .* by hand$"):
                proposed(at)
        assert "refusal_tokens: 0 of 1 items to compute" in caplog.messages
        assert not (at / "refusal_tokens.json").exists()

    def test_fewer_prompts_than_asked(self, at):
        with pytest.raises(UserError, match=r"harmful\.jsonl: 12 prompts are asked for and it has 11"):
            proposed(at, "--train", 12)
