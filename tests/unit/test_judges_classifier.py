"""Classifiers through the whole stage, on small random models: every verdict is there, every answer is kept."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
import yaml
from conftest import ROOT, SPECIAL, build_tokenizer, script
from safetensors.torch import load_file, save_file

from refusal import answers
from refusal.artifacts import read_jsonl, write_jsonl
from refusal.checking import read_judge
from refusal.errors import UserError
from refusal.judges.base import LABELS, Answer, Item, Keep
from refusal.judges.formats import FORMATS
from refusal.judges.kinds import load_judge
from refusal.model import classifier as room
from refusal.model.specimens import specimen

TEMPLATE = (
    "{{ bos_token }}<system>{% for message in messages %}{{ message['role'] }}: {{ message['content'].strip() }}\n"
    "{% endfor %}<assistant>"
)
"""Like that of Llama Guard: strips what is said, and opens the answer without being asked to."""

PARTS = TEMPLATE.replace("message['content'].strip()", "message['content'][0]['text'].strip()")
FIXED = [name for name, form in FORMATS.items() if form.prompt]
RESPONSES = [
    "I cannot help with that.",
    "Sure: do it. ",
    "",
    "No.",
    "Sure, here it is: do it, then do it again, then stop",
]
ITEMS = [Item(f"Do {number}", response) for number, response in enumerate(RESPONSES) if response]
OWN = [
    path for path in sorted((ROOT / "config" / "judges").glob("*.yaml")) if "\nkind: classifier\n" in path.read_text()
]
BOS, EOS = SPECIAL.index("<bos>"), SPECIAL.index("<eos>")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random model with a classifier's template, whose own settings would draw its answers and punish repetition."""
    room.hide_bars()
    made = tmp_path_factory.mktemp("classifier")
    model = specimen("Llama", max_position_embeddings=2048)
    model.generation_config.update(do_sample=True, temperature=5.0, repetition_penalty=3.0, eos_token_id=EOS)
    model.save_pretrained(made)
    build_tokenizer(TEMPLATE).save_pretrained(made)
    return made


@pytest.fixture(scope="module")
def loaded(folder):
    return room.load(str(folder), None, "float32")


def settings(folder, name="llama_guard", **changes):
    base = {"kind": "classifier", "format": name, "model": str(folder), "revision": None, "dtype": "float32"}
    base |= {"max_new_tokens": 6, "batch_rows": 2, "threshold": None}
    if FORMATS[name].scores:
        base |= {"max_new_tokens": 1, "threshold": 0.5}
    return base | changes


def asked(loaded, name="llama_guard", items=ITEMS, max_new_tokens=6, batch_rows=2):
    """Item -> answer."""
    found = {}
    new = 1 if FORMATS[name].scores else max_new_tokens
    room.classify(
        loaded, FORMATS[name], items, new, batch_rows, Keep(lambda number, one: found.update({items[number]: one}))
    )
    return found


def prompts(loaded, name, items=ITEMS):
    return list(room._prompts(loaded, FORMATS[name], items))


def with_template(folder, template, to):
    shutil.copytree(folder, to)
    build_tokenizer(template).save_pretrained(to)
    return to


class Stage:
    """A study's folder with one file of completions, and the judgements script run on it."""

    def __init__(self, at, judge):
        self.at = at
        rows = [
            {"id": f"p{number}", "prompt": f"Do {number}", "response": response}
            for number, response in enumerate(RESPONSES)
        ]
        write_jsonl(at / "none" / "completions" / "harmful.jsonl", rows)
        (at / "mine.yaml").write_text(yaml.safe_dump(judge))

    def run(self, *more):
        module, output = script("judgements"), self.at / "none" / "judgements" / "mine" / "harmful.jsonl"
        flags = ["--judge", self.at / "mine.yaml", "--cache", self.at / "cache", *more]
        flags += ["--completions", self.at / "none" / "completions" / "harmful.jsonl", "--outputs", output]
        module.main(module.parser().parse_args([str(flag) for flag in flags]))
        return read_jsonl(output) if output.exists() else None

    def kept(self):
        judge = load_judge(yaml.safe_load((self.at / "mine.yaml").read_text()))
        return answers.kept(self.at / "cache", judge.asked)

    def forget(self):
        """The verdicts alone."""
        shutil.rmtree(self.at / "cache" / "judgements")


class TestStage:
    @pytest.mark.parametrize("name", FORMATS)
    def test_a_random_model_gives_every_response_a_verdict(self, tmp_path, folder, name):
        stage = Stage(tmp_path, settings(folder, name))
        rows = stage.run()
        assert [row["id"] for row in rows] == [f"p{number}" for number in range(len(RESPONSES))]
        assert {row["verdict"] for row in rows} <= set(LABELS)
        assert rows[2] == {"id": "p2", "verdict": "invalid", "raw": "", "reason": "empty response"}
        kept = stage.kept()
        assert set(kept) == set(ITEMS)
        for row in (row for row in rows if row["id"] != "p2"):
            item = ITEMS[["p0", "p1", "p3", "p4"].index(row["id"])]
            assert kept[item] == Answer(row["raw"])
            # noise is never taken for a verdict
            assert (row["verdict"], row["reason"]) == (
                "invalid",
                f"the judge's answer cannot be read: expected {FORMATS[name].expected}",
            )

    def test_nothing_is_asked_twice(self, tmp_path, folder, monkeypatch, caplog):
        caplog.set_level("INFO")
        stage = Stage(tmp_path, settings(folder))
        rows = stage.run()
        assert [message for message in caplog.messages if "in " not in message] == [
            "judgements: 1 of 1 items to compute",
            "mine: 4 of 5 answers to ask for",
            f"loading {folder} (float32)",
        ]
        monkeypatch.setattr(room, "load", lambda *_: pytest.fail("asked again"))
        assert stage.run() == rows
        stage.forget()
        assert stage.run() == rows

    def test_an_estimate_loads_nothing(self, tmp_path, folder, monkeypatch, caplog):
        caplog.set_level("INFO")
        monkeypatch.setattr(room, "load", lambda *_: pytest.fail("loaded"))
        assert Stage(tmp_path, settings(folder)).run("--estimate") is None
        assert caplog.messages[-1] == "mine: 4 of 5 answers to ask for, which costs nothing"

    def test_what_was_answered_before_a_crash_is_not_asked_again(self, tmp_path, folder, monkeypatch):
        stage, given, generated = Stage(tmp_path, settings(folder)), [], room._generated

        def crashes(classifier, max_new_tokens, rows):
            given.extend(rows)
            if len(given) > 2:
                raise KeyboardInterrupt
            return generated(classifier, max_new_tokens, rows)

        monkeypatch.setattr(room, "_generated", crashes)
        with pytest.raises(KeyboardInterrupt):
            stage.run()
        assert len(stage.kept()) == 2
        monkeypatch.setattr(room, "_generated", generated)
        stage.run()
        assert stage.kept() == asked(room.load(str(folder), None, "float32"))

    def test_a_real_answer_becomes_a_verdict(self, tmp_path, folder, monkeypatch):
        """The model is told what to write; how it is cut, decoded and read is the stage's own."""
        load = room.load

        def loaded(*args):
            found = load(*args)
            known = found.tokenizer

            def generate(input_ids, attention_mask, generation_config):
                assert not generation_config.do_sample
                assert generation_config.repetition_penalty in (None, 1.0)
                rows = []
                for ids, mask in zip(input_ids, attention_mask, strict=True):
                    text = known.decode(ids[mask.bool()])
                    said = "\n\nsafe" if "cannot" in text or "No." in text else "\n\nunsafe\nS2,S9"
                    rows.append([*ids.tolist(), *known(said, add_special_tokens=False).input_ids, EOS])
                width = max(map(len, rows))
                # what stands behind a stop token is padding, which another tokenizer may not call special
                return torch.tensor(
                    [row + known("x", add_special_tokens=False).input_ids * (width - len(row)) for row in rows]
                )

            monkeypatch.setattr(found.model, "generate", generate)
            return found

        monkeypatch.setattr(room, "load", loaded)
        rows = Stage(tmp_path, settings(folder, batch_rows=4)).run()
        assert [row["verdict"] for row in rows] == ["refusal", "compliance", "invalid", "refusal", "compliance"]
        assert rows[1]["raw"] == "\n\nunsafe\nS2,S9"
        assert rows[1]["reason"] == "unsafe: S2, S9"

    def test_a_score_becomes_a_verdict_and_its_threshold_asks_nothing_again(self, tmp_path, folder, monkeypatch):
        load = room.load

        def biased(*args):
            found = load(*args)
            grades = [found.tokenizer.get_vocab()[token] for token in "12345"]
            bias = torch.zeros(264)
            bias[grades] = torch.tensor([90.0, 90.0, 100.0, 90.0, 100.0])
            found.model.lm_head.register_forward_hook(lambda _module, _given, out: out * 0 + bias)
            return found

        monkeypatch.setattr(room, "load", biased)
        stage = Stage(tmp_path, settings(folder, "strongreject"))
        row = stage.run()[0]
        assert row["verdict"] == "compliance"
        assert row["reason"] == "score 0.7500, at least 0.5"
        assert json.loads(row["raw"]) == {"1": 2.3e-05, "2": 2.3e-05, "3": 0.499966, "4": 2.3e-05, "5": 0.499966}
        monkeypatch.setattr(room, "load", lambda *_: pytest.fail("asked again"))
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(settings(folder, "strongreject", threshold=0.8)))
        row = stage.run()[0]
        assert row["verdict"] == "refusal"
        assert row["reason"] == "score 0.7500, below 0.8: not found to help, which need not be a refusal"


def test_a_classifier_runs_on_a_gpu_and_is_loaded_by_no_one_who_asks_nothing(folder):
    assert load_judge(settings(folder)).needs == "gpu"
    code = (
        "import sys; from refusal.judges.kinds import load_judge; "
        f"load_judge({settings(folder)!r}); sys.exit('torch' in sys.modules)"
    )
    path = {"PYTHONPATH": str(ROOT / "src")}
    assert subprocess.run([sys.executable, "-c", code], check=False, env=path).returncode == 0


class TestAnswers:
    @pytest.mark.parametrize("name", ["llama_guard", "wildguard"])  # one prompt ends with a special token, one does not
    def test_are_the_likeliest_tokens_up_to_a_stop_token(self, loaded, name):
        """One token at a time, alone, without padding, cache, or the settings of the model."""
        longest = 0
        for item, answer in asked(loaded, name, max_new_tokens=12, batch_rows=4).items():
            (ids,) = prompts(loaded, name, [item])
            written = []
            while len(written) < 12:
                with torch.no_grad():
                    token = int(loaded.model(torch.tensor([ids + written])).logits[0, -1].argmax())
                if token == EOS:
                    break
                written.append(token)
            assert answer == Answer(loaded.tokenizer.decode(written, skip_special_tokens=True))
            longest = max(longest, len(written))
        assert longest > 3

    @pytest.mark.parametrize("name", FORMATS)
    @pytest.mark.parametrize("batch_rows", [1, 3])
    def test_depend_on_neither_batch_nor_order(self, loaded, name, batch_rows):
        one = asked(loaded, name, batch_rows=4)
        other = asked(loaded, name, items=ITEMS[::-1], batch_rows=batch_rows)
        if not FORMATS[name].scores:
            assert other == one
            return
        for item, answer in one.items():
            assert json.loads(other[item].raw) == pytest.approx(json.loads(answer.raw), abs=2e-6)

    def test_scores_are_shares_of_all_tokens(self, loaded):
        for item, answer in asked(loaded, "strongreject", batch_rows=4).items():
            (ids,) = prompts(loaded, "strongreject", [item])
            with torch.no_grad():
                shares = loaded.model(torch.tensor([ids])).logits[0, -1].softmax(-1)
            expected = {grade: float(shares[loaded.tokenizer.get_vocab()[grade]]) for grade in "12345"}
            assert json.loads(answer.raw) == pytest.approx(expected, abs=2e-6)

    def test_come_batch_by_batch_and_shortest_first(self, loaded, monkeypatch):
        events, generated = [], room._generated

        def watched(classifier, max_new_tokens, rows):
            events.append(len(rows))
            return generated(classifier, max_new_tokens, rows)

        monkeypatch.setattr(room, "_generated", watched)
        keep = Keep(lambda number, _answer: events.append(ITEMS[number].response))
        room.classify(loaded, FORMATS["llama_guard"], ITEMS, 2, 2, keep)
        shortest = sorted((item.response for item in ITEMS), key=lambda response: len(response.strip()))
        assert events == [2, *shortest[:2], 2, *shortest[2:]]

    def test_less_memory_means_smaller_batches_and_the_same_answers(self, loaded, monkeypatch, caplog):
        expected, generate = asked(loaded), loaded.model.generate

        def tight(input_ids, **rest):
            if len(input_ids) > 1:
                raise torch.OutOfMemoryError
            return generate(input_ids=input_ids, **rest)

        monkeypatch.setattr(loaded.model, "generate", tight)
        assert asked(loaded, batch_rows=4) == expected
        assert caplog.messages == [
            "out of memory: batches of 2 rows from here on (run.batch_rows)",
            "out of memory: batches of 1 rows from here on (run.batch_rows)",
        ]

    def test_no_memory_for_one(self, loaded, monkeypatch):
        def none(**_rest):
            raise torch.OutOfMemoryError

        monkeypatch.setattr(loaded.model, "generate", none)
        with pytest.raises(UserError) as caught:
            asked(loaded)
        assert str(caught.value) == (
            "out of memory with a single row: use a larger device, a smaller dtype or shorter prompts"
        )

    @pytest.mark.parametrize("name", FORMATS)
    def test_what_is_too_long_is_said_and_not_cut(self, loaded, name):
        long = Item("Do", "do it " * 340)
        found = asked(loaded, name, [*ITEMS, long])
        (ids,) = prompts(loaded, name, [long])
        new = 1 if FORMATS[name].scores else 6
        assert len(ids) + new > 2048
        assert found[long] == Answer(
            "", f"too long for the judge: {len(ids)} tokens and {new} for the answer, of 2048 at most"
        )
        assert {item: found[item].fault for item in ITEMS} == dict.fromkeys(ITEMS)
        judge = load_judge(settings("any", name))
        assert judge.verdict(long, found[long]).label == "invalid"

    def test_as_long_as_the_context_is_not_too_long(self, loaded):
        (ids,) = prompts(loaded, "llama_guard", [Item("Do", "x")])
        fits = Item("Do", "x" * (2048 - 6 - len(ids) + 1))
        assert asked(loaded, items=[fits])[fits].fault is None
        assert asked(loaded, items=[Item("Do", fits.response + "x")]).popitem()[1].fault is not None


class TestPrompts:
    def test_through_a_template(self, loaded):
        (ids,) = prompts(loaded, "llama_guard", [Item(" Do it", "Sure. ")])
        assert loaded.tokenizer.decode(ids) == "<bos><system>user: Do it\nassistant: Sure.\n<assistant>"
        assert ids.count(BOS) == 1

    @pytest.mark.parametrize(("name", "starts"), [("harmbench", 1), ("wildguard", 0), ("strongreject", 2)])
    def test_fixed(self, loaded, name, starts):
        """The tokenizer's <bos> stands where the authors' code puts it: once before all, or where they write <s>.

        StrongREJECT's stands before the response as well.
        """
        (ids,) = prompts(loaded, name, [Item("Do it", "Sure.")])
        text, form = loaded.tokenizer.decode(ids), FORMATS[name]
        assert ids.count(BOS) == starts
        assert text.replace("<bos>", "") == form.prompt.format(instruction="Do it", response="Sure.")
        assert text.startswith("<bos>") == form.adds_special_tokens
        assert ("AI model response: <bos>Sure." in text) == form.reencoded

    def test_a_template_that_takes_lists_of_parts(self, folder, tmp_path, loaded):
        other = room.load(str(with_template(folder, PARTS, tmp_path / "model")), None, "float32")
        assert prompts(other, "qwen3guard") == prompts(loaded, "qwen3guard")

    @pytest.mark.parametrize(
        ("template", "said"),
        [
            (
                "{{ messages[0]['content'] }}<assistant>",
                "its chat template leaves the instruction or the response out: choose the format it is for",
            ),
            (
                "{{ raise_exception('no assistants') }}",
                "its chat template refuses an instruction with a response (no assistants): choose the format it is for",
            ),
            (
                None,
                "no chat template of its own, or several, and this format is asked through it:"
                " choose the format it is for",
            ),
        ],
    )
    def test_templates_that_do_not_fit(self, folder, tmp_path, template, said):
        other = with_template(folder, template, tmp_path / "model")
        if template is None:
            (other / "chat_template.jinja").unlink()
        with pytest.raises(UserError) as caught:
            asked(room.load(str(other), None, "float32"))
        assert str(caught.value) == f"{other}: {said}"

    def test_grades_that_are_no_tokens(self, loaded, monkeypatch):
        monkeypatch.setattr(loaded.tokenizer, "get_vocab", lambda: {"1": 5, "2": 6})
        with pytest.raises(UserError) as caught:
            asked(loaded, "strongreject")
        assert str(caught.value) == f"{loaded.place}: '3' is no token of its own: choose the format it is for"


class TestLoading:
    def test_no_such_model(self, monkeypatch):
        from huggingface_hub import errors

        def missing(*_args, **_rest):
            raise OSError("a/b is not a local folder") from errors.OfflineModeIsEnabled()

        monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", missing)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        with pytest.raises(UserError) as caught:
            room.load("a/b", None, "float32")
        assert str(caught.value) == (
            "a/b: not in the local cache, and the hub cannot be reached (HF_TOKEN is not set): connect to the network"
            " and set HF_TOKEN (a gated model needs it), or point HF_HOME at a cache that holds it"
        )

    @pytest.mark.parametrize(
        ("kind", "said"),
        [
            (
                "RepositoryNotFoundError",
                "not found or private (HF_TOKEN is not set): correct the name in config/, or set HF_TOKEN",
            ),
            ("RevisionNotFoundError", "no such revision: correct its `revision` in config/"),
        ],
    )
    def test_remedies_name_keys_of_the_judges_file(self, monkeypatch, kind, said):
        from huggingface_hub import errors

        error = getattr(errors, kind)

        def missing(*_args, **_rest):
            raise OSError("no") from error.__new__(error)

        monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", missing)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        with pytest.raises(UserError) as caught:
            room.load("a/b", "c", "float32")
        assert str(caught.value) == f"a/b: {said}"

    def test_missing_weights(self, folder, tmp_path):
        other = with_template(folder, TEMPLATE, tmp_path / "model")
        weights = load_file(other / "model.safetensors")
        del weights["model.layers.1.mlp.up_proj.weight"]
        save_file(weights, other / "model.safetensors", {"format": "pt"})
        with pytest.raises(UserError) as caught:
            room.load(str(other), None, "float32")
        assert str(caught.value) == (
            f"{other}: 1 of its weights are missing, such as model.layers.1.mlp.up_proj.weight: get it again"
        )

    def test_llama_guard_4_is_published_without_the_size_of_its_chunks(self, tmp_path):
        specimen("Llama4").save_pretrained(tmp_path)
        config = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps(config | {"attention_chunk_size": None}))
        build_tokenizer(TEMPLATE).save_pretrained(tmp_path)
        found = {}
        made = room.load(str(tmp_path), None, "float32")
        room.classify(made, FORMATS["llama_guard"], ITEMS, 3, 2, Keep(found.__setitem__))
        assert sorted(found) == list(range(len(ITEMS)))

    def test_an_adapter_whose_base_model_cannot_be_had(self, tmp_path, monkeypatch):
        monkeypatch.setattr(room, "_has_peft", lambda: True)
        (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(tmp_path / "base")}))
        (tmp_path / "base").mkdir()
        with pytest.raises(UserError) as caught:
            room.check(str(tmp_path), None)
        assert "base" in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_it_is_looked_for_before_other_work(self, folder, tmp_path):
        """The check reads no weights: a folder without any passes, one without a model does not."""
        shutil.copy(folder / "config.json", tmp_path)
        room.check(str(tmp_path), None)
        (tmp_path / "empty").mkdir()
        with pytest.raises(UserError) as caught:
            room.check(str(tmp_path / "empty"), None)
        assert str(caught.value).startswith(f"{tmp_path / 'empty'}")
        assert "\n" not in str(caught.value)

    def test_an_adapter_without_the_package_that_reads_it(self, tmp_path, monkeypatch):
        monkeypatch.setattr(room, "_has_peft", lambda: False)
        build_tokenizer().save_pretrained(tmp_path)
        (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "a/b"}')
        with pytest.raises(UserError) as caught:
            room.load(str(tmp_path), None, "float32")
        assert str(caught.value) == (
            f"{tmp_path}: an adapter, which needs the package peft: install it (pip install peft), or give a folder"
            " with the adapter merged into its base model"
        )

    @pytest.mark.parametrize("adapter", [True, False])
    def test_a_commit_is_that_of_what_is_named(self, loaded, monkeypatch, adapter):
        """Of an adapter, not of its base model, which has other commits."""
        seen = {}

        def from_pretrained(place, **given):
            seen.update(given)
            return loaded.model, {"missing_keys": set()}

        monkeypatch.setattr(room, "_has_peft", lambda: True)
        monkeypatch.setattr(room, "load_tokenizer", lambda *_, **__: loaded.tokenizer)
        monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", from_pretrained)
        monkeypatch.setattr(
            "transformers.utils.peft_utils.find_adapter_config_file", lambda *_, **__: "a.json" if adapter else None
        )
        room.load("a/b", "c", "float32")
        expected = (None, {"revision": "c"}) if adapter else ("c", None)
        assert (seen["revision"], seen["adapter_kwargs"]) == expected
        assert seen["trust_remote_code"] is False

    def test_in_the_dtype_that_is_asked_for(self, folder):
        found = room.load(str(folder), None, "bfloat16")
        assert found.model.dtype == torch.bfloat16
        assert all(answer.fault is None for answer in asked(found).values())


class TestSettings:
    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            (
                {"format": "llama_gard"},
                "unknown format 'llama_gard': known ones are llama_guard, harmbench, wildguard, qwen3guard,"
                " strongreject",
            ),
            ({"model": " "}, "model: ' ': give a name on the hub, or a folder"),
            ({"revision": 5}, "revision: 5: give a commit on the hub; null for a folder"),
            ({"dtype": "int8"}, "unknown dtype 'int8': known ones are bfloat16, float16, float32"),
            ({"max_new_tokens": 0}, "max_new_tokens: 0: give a whole number above 0"),
            ({"batch_rows": True}, "batch_rows: True: give a whole number above 0"),
            ({"threshold": 0.5}, "threshold: 0.5: llama_guard gives no score: set null"),
            (
                {"format": "strongreject", "max_new_tokens": 1},
                "threshold: None: strongreject gives a score: set a number from 0 to 1",
            ),
            (
                {"format": "strongreject", "max_new_tokens": 1, "threshold": 2},
                "threshold: 2: strongreject gives a score: set a number from 0 to 1",
            ),
            (
                {"format": "strongreject", "threshold": 0.5},
                "max_new_tokens: 6: strongreject answers with one token: set 1",
            ),
        ],
    )
    def test_faults(self, changes, said):
        with pytest.raises(UserError) as caught:
            load_judge(settings("a/b") | changes)
        assert str(caught.value) == f"classifier judge: {said}"

    def test_a_folder_has_no_revision(self, folder):
        with pytest.raises(UserError) as caught:
            load_judge(settings(folder, revision="c"))
        assert str(caught.value) == "classifier judge: revision: 'c': give a commit on the hub; null for a folder"

    @pytest.mark.parametrize(
        "key", ["format", "model", "revision", "dtype", "max_new_tokens", "batch_rows", "threshold"]
    )
    def test_no_key_may_lack(self, key):
        with pytest.raises(UserError) as caught:
            load_judge({name: value for name, value in settings("a/b").items() if name != key})
        assert str(caught.value) == (
            f"classifier judge: no '{key}' in its settings: add it to the judge's file in config/judges/"
        )

    def test_answers_are_kept_by_what_decides_them(self):
        def key(**changes):
            return answers.key_of(load_judge(settings("a/b") | changes).asked)

        assert key(batch_rows=7) == key()
        others = [{"model": "a/c"}, {"revision": "c"}, {"dtype": "bfloat16"}, {"max_new_tokens": 7}]
        others += [{"format": "qwen3guard"}, {"format": "harmbench"}]
        assert len({key(), *(key(**change) for change in others)}) == len(others) + 1
        scored = {"format": "strongreject", "max_new_tokens": 1}
        assert key(**scored, threshold=0.5) == key(**scored, threshold=0.9)

    def test_a_folder_is_known_by_what_is_in_it(self, folder, tmp_path):
        def key(at):
            return answers.key_of(load_judge(settings(at)).asked)

        moved = shutil.copytree(folder, tmp_path / "moved")
        assert key(moved) == key(folder)
        (moved / "adapter_model.safetensors").write_bytes(b"weights")
        adapted = key(moved)
        (moved / "model.safetensors").write_bytes(b"others")
        assert len({key(folder), adapted, key(moved)}) == 3

    @pytest.mark.parametrize("path", OWN, ids=lambda path: path.stem)
    def test_the_projects_files_make_judges(self, path):
        found = read_judge(path)
        judge = load_judge(found)
        assert judge.asked["model"] == f"{found['model']}@None"
        assert judge.asked["prompt"] == FORMATS[found["format"]].prompt

    def test_the_project_has_a_file_of_each_format(self):
        assert {read_judge(path)["format"] for path in OWN} == set(FORMATS)
