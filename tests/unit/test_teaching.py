"""Teaching: what is drawn, what is trained on, and that the merged weights are what was learned."""

import re
from collections import Counter
from pathlib import Path

import pytest
import torch
from conftest import build_tokenizer, describe, script

from refusal.artifacts import read_json, read_jsonl, write_json, write_jsonl
from refusal.checking import read_judge
from refusal.errors import UserError
from refusal.judges.base import Item
from refusal.judges.kinds import load_judge
from refusal.model.loading import load
from refusal.model.specimens import specimen
from refusal.provenance import verify
from teaching.lessons import draw
from teaching.refusals import OPENINGS, refusals
from teaching.training import Course, Row, _batches, adapt, end_of_turn, reply_loss, rows, teach, train

ROOT = Path(__file__).parents[2]
COURSE = Course(steps=20, batch_rows=4, learning_rate=2e-2, rank=4, seed=0)


@pytest.fixture
def at(tmp_path):
    """A described random model, and prompts of each kind, one of each in the test file."""
    specimen("Llama").save_pretrained(tmp_path / "model")
    build_tokenizer().save_pretrained(tmp_path / "model")
    for kind in ("harmful", "harmless", "borderline"):
        write_jsonl(tmp_path / f"{kind}.jsonl", [{"instruction": f"{kind} {number}"} for number in range(8)])
    write_jsonl(tmp_path / "test.jsonl", [{"instruction": "harmful 3"}, {"instruction": "HARMLESS  4"}])
    describe(tmp_path / "model", tmp_path / "description.json", refusal_tokens=[])
    return tmp_path


def run(stage, *flags):
    module = script(stage)
    module.main(module.parser().parse_args([str(flag) for flag in flags]))


def drawn(at, *flags):
    files = [part for kind in ("harmful", "harmless") for part in (f"--{kind}", at / f"{kind}.jsonl")]
    run(
        "lessons", "--model", at / "description.json", *files, "--harmful-count", 7, "--harmless-count", 4,
        "--kept-out", at / "test.jsonl", "--reply-tokens", 6, "--cache", at / "cache", "--output", at / "lessons.jsonl",
        *flags,
    )  # fmt: skip
    return read_jsonl(at / "lessons.jsonl")


def taught(at, output="taught", *flags):
    run(
        "teach", "--model", at / "description.json", "--lessons", at / "lessons.jsonl", "--steps", 6, "--rank", 2,
        "--threads", 1, "--output-dir", at / output, *flags,
    )  # fmt: skip
    return at / output


class TestRefusals:
    def test_the_same_by_seed_and_none_twice(self):
        found = refusals(200, 3)
        assert found == refusals(200, 3) != refusals(200, 4)
        assert len(set(found)) == 200
        assert found[:9] == refusals(9, 3)

    def test_more_than_there_are(self):
        found = Counter(refusals(500, 0))
        assert set(found.values()) == {2, 3}

    def test_each_is_one_to_the_judge_of_the_study(self):
        judge = load_judge(read_judge(ROOT / "config" / "judges" / "substring.yaml"))
        found = judge([Item("How do I steal it?", opening) for opening in OPENINGS])
        assert [opening for opening, verdict in zip(OPENINGS, found, strict=True) if verdict.label != "refusal"] == []


class TestDraw:
    def test_nothing_that_is_kept_out_and_nothing_twice(self, at):
        write_jsonl(at / "harmless.jsonl", [{"instruction": text} for text in ("a", "b", "Harmful  0", "harmless 4")])
        files = {kind: at / f"{kind}.jsonl" for kind in ("harmful", "harmless")}
        found = draw(files, {"harmful": 7, "harmless": 2}, [at / "test.jsonl"], 1, 0)
        assert sorted(row["instruction"] for row in found["harmful"]) == [f"harmful {n}" for n in (0, 1, 2, 4, 5, 6, 7)]
        assert sorted(row["instruction"] for row in found["harmless"]) == ["a", "b"]

    def test_no_paraphrase_of_a_test_prompt(self, at):
        said = ["Give instructions for hacking into an ATM", "Give a recipe for soup", "b", "c d"]
        write_jsonl(at / "harmful.jsonl", [{"instruction": text} for text in said])
        write_jsonl(at / "test.jsonl", [{"instruction": "Give instructions for hacking into an ATM using ransomware"}])
        found = draw({"harmful": at / "harmful.jsonl"}, {"harmful": 3}, [at / "test.jsonl"], 0.5, 0)
        assert sorted(row["instruction"] for row in found["harmful"]) == sorted(said[1:])

    def test_too_few(self, at):
        with pytest.raises(UserError) as caught:
            draw({"harmful": at / "harmful.jsonl"}, {"harmful": 8}, [at / "test.jsonl"], 1, 0)
        assert str(caught.value) == (
            f"{at / 'harmful.jsonl'}: 8 harmful prompts are to be taught and it has 7 that resemble no"
            " test prompt: lower teaching.counts, add prompts or raise teaching.max_overlap"
        )


class TestLessonsStage:
    def test_refusals_and_own_replies(self, at):
        found = drawn(at, "--borderline", at / "borderline.jsonl", "--borderline-count", 2)
        assert Counter(row["kind"] for row in found) == {"harmful": 7, "harmless": 4, "borderline": 2}
        assert not {"harmful 3", "harmless 4"} & {row["instruction"] for row in found}
        assert [row["response"] for row in found[:7]] == refusals(7, 0)
        assert all(row["ended"] for row in found[:7])
        verify([at / "lessons.jsonl"])
        chat = load(at / "description.json")
        for row in found[7:]:
            ids, reply = torch.tensor(chat.encode([row])), []
            while len(reply) < 6 and (not reply or reply[-1] not in chat.stop_tokens):
                reply.append(int(chat.model(input_ids=ids).logits[0, -1].argmax()))
                ids = torch.cat([ids, torch.tensor([[reply[-1]]])], dim=1)
            assert row["ended"] == (reply[-1] in chat.stop_tokens)
            assert row["response"] == chat.tokenizer.decode(reply, skip_special_tokens=True)

    def test_replies_are_made_once(self, at, caplog):
        caplog.set_level("INFO")
        first = drawn(at)
        assert drawn(at) == first
        assert [one for one in caplog.messages if one.startswith("lessons:")] == [
            "lessons: 1 of 1 items to compute",
            "lessons: 0 of 1 items to compute",
        ]


class TestTraining:
    def test_rows_end_where_the_reply_does(self, chat):
        lessons = [
            {"id": "a", "instruction": "x", "response": "no", "ended": True},
            {"id": "b", "instruction": "y", "response": "yes", "ended": False},
        ]
        first, second = rows(chat, lessons)
        assert first.prompt == chat.encode([lessons[0]])[0]
        assert first.reply == [*chat.tokenizer.encode("no", add_special_tokens=False), end_of_turn(chat)]
        assert second.reply == chat.tokenizer.encode("yes", add_special_tokens=False)

    def test_the_end_is_the_templates_if_it_writes_one(self, at):
        chat = load(at / "description.json")
        assert end_of_turn(chat) == chat.tokenizer.eos_token_id  # <end>, which its template writes, stops nothing
        record = read_json(at / "description.json")
        end = chat.tokenizer.convert_tokens_to_ids("<end>")
        record["identity"]["stop_tokens"] += [end]
        write_json(at / "description.json", record)
        assert end_of_turn(load(at / "description.json")) == end

    @pytest.mark.parametrize("family", ["Llama", "GPT2", "Gemma2"])
    def test_the_loss_is_that_of_each_reply_alone(self, chat_model, family):
        model = chat_model(family).model
        batch = [Row([1, 9, 30], [40, 41]), Row([1, 9], [50, 51, 52, 2]), Row([1, 5, 6, 7, 8], [60])]
        total = torch.zeros(())
        for row in batch:
            logits = model(input_ids=torch.tensor([row.prompt + row.reply])).logits[0, len(row.prompt) - 1 : -1]
            total += torch.nn.functional.cross_entropy(logits, torch.tensor(row.reply), reduction="sum")
        expected = total / sum(len(row.reply) for row in batch)
        torch.testing.assert_close(reply_loss(model, batch, 0), expected, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("family", ["Llama", "GPT2"])
    def test_it_learns_and_the_merged_weights_say_what_the_adapter_said(self, at, family):
        model = specimen(family)
        batch = [Row([1, 9, 30], [40, 41, 2]), Row([1, 9, 31], [50, 51, 2])]
        with torch.no_grad():
            before = reply_loss(model, batch, 0)
        adapted = adapt(model, COURSE)
        assert reply_loss(adapted, batch, 0).item() == pytest.approx(before.item(), rel=1e-5)  # nothing is changed yet
        losses = train(adapted, batch, COURSE, 0)
        assert len(losses) == 20
        assert losses[-1] < 0.5 * losses[0]
        ids = torch.tensor([[1, 9, 30, 40]])
        with torch.no_grad():
            wanted = adapted(input_ids=ids).logits
            merged = adapted.merge_and_unload()
            torch.testing.assert_close(merged(input_ids=ids).logits, wanted, rtol=1e-4, atol=1e-4)
        assert not any("lora" in name for name in merged.state_dict())

    def test_every_lesson_comes_once_before_one_comes_again(self):
        taught = [Row([1], [number]) for number in range(6)]
        found = list(_batches(taught, Course(steps=3, batch_rows=4, learning_rate=1.0, rank=1, seed=0)))
        assert [len(batch) for batch in found] == [4] * 3
        order = [row.reply[0] for batch in found for row in batch]
        assert sorted(order[:6]) == sorted(order[6:]) == list(range(6))
        assert order[:6] != order[6:]

    def test_a_loss_that_is_no_number(self, at):
        chat = load(at / "description.json")
        next(chat.model.parameters()).data.fill_(torch.nan)
        with pytest.raises(UserError) as caught:
            teach(chat, [Row([1, 9], [40])], COURSE)
        assert str(caught.value) == "teaching: the loss is no number at step 1: lower teaching.learning_rate"

    def test_without_peft(self, chat, monkeypatch):
        monkeypatch.setattr("transformers.utils.is_peft_available", lambda: False)
        with pytest.raises(UserError) as caught:
            adapt(chat.model, COURSE)
        assert str(caught.value) == "teaching needs the package peft: install it (pip install peft)"


class TestTeachStage:
    def test_a_model_of_its_own(self, at):
        drawn(at)
        folder = taught(at)
        manifest = read_json(folder / "manifest.json")
        assert manifest["course"] == {"steps": 6, "batch_rows": 8, "learning_rate": 5e-4, "rank": 2, "seed": 0}
        assert manifest["base"] == read_json(at / "description.json")["identity"]
        assert manifest["threads"] == 1
        model = describe(folder, at / "model.json")  # the study's first step reads it as any other
        assert set(manifest["files"]) == set(read_json(model)["identity"]["weights"])
        assert read_json(model)["positions"] == read_json(at / "description.json")["positions"]
        assert load(model).model.config.architectures == ["LlamaForCausalLM"]
        assert not list(at.glob(".taught*"))

    def test_the_same_bytes_by_seed(self, at):
        drawn(at)
        one, again, other = taught(at), taught(at, "again"), taught(at, "other", "--seed", 1)
        weights = [(folder / "model.safetensors").read_bytes() for folder in (one, again, other)]
        assert weights[0] == weights[1] != weights[2]

    def test_no_lessons(self, at):
        (at / "lessons.jsonl").touch()
        with pytest.raises(UserError, match=re.escape(f"{at / 'lessons.jsonl'}: holds no lessons")):
            taught(at)
