"""Reasoning models: scores after an empty think block, responses as the model writes them, and the answer alone."""

import json

import numpy as np
import pytest
from conftest import ROOT, build_tokenizer, describe, script
from templates import STYLES

from refusal.artifacts import read_json, read_jsonl, write_jsonl, write_tensors
from refusal.errors import UserError
from refusal.model.chat import PLAIN, Rendering, end_of_instruction
from refusal.model.generation import Completion
from refusal.model.loading import load
from refusal.model.reasoning import KNOWN, Asking, ThinkBlock, asking, from_record, split
from refusal.model.specimens import specimen

THINK, BRACKETS, HARMONY = KNOWN
OWN = {"opening": "(", "closing": ")", "empty": "()"}


def asked(name, system_prompt=None, options=None, thinking=None, think_block=None):
    """Of a template that does not tell whether the model reasons, it is said."""
    tokenizer = STYLES[name].tokenizer()
    if thinking is None and think_block is None and not STYLES[name].told:
        thinking = True
    return tokenizer, asking(tokenizer, system_prompt, options or {}, thinking, think_block)


def starts(name, **changes):
    """Where scores are read and where responses start, as text."""
    tokenizer, found = asked(name, **changes)
    return [tokenizer.decode(end_of_instruction(tokenizer, None, one)) for one in (found.scored, found.answered)]


class TestAsking:
    @pytest.mark.parametrize("name", STYLES)
    def test_by_itself(self, name):
        style = STYLES[name]
        assert starts(name) == [style.suffix, style.answered or style.suffix]
        assert (asked(name)[1].block is not None) == style.reasons

    @pytest.mark.parametrize("name", [name for name, style in STYLES.items() if style.reasons])
    def test_not_asked_to_reason(self, name):
        assert starts(name, thinking=False) == [STYLES[name].suffix] * 2
        assert asked(name, thinking=False)[1].block is None

    @pytest.mark.parametrize("name", [*(name for name, style in STYLES.items() if style.reasons), "deepseek-v3.1"])
    def test_asked_to_reason(self, name):
        scored, answered = starts(name, thinking=True)
        assert scored == STYLES[name].suffix
        assert answered == (STYLES[name].answered or "<|Assistant|><think>")
        assert asked(name, thinking=True)[1].opened == answered.rstrip().endswith("<think>")

    def test_by_which_variable(self):
        assert asked("qwen-3")[1].scored == Rendering({"enable_thinking": False})
        assert asked("qwen-3")[1].answered == PLAIN
        assert asked("qwen-3", thinking=True)[1].answered == Rendering({"enable_thinking": True})
        assert asked("deepseek-v3.1")[1] == Asking(*[Rendering({"thinking": False})] * 2)
        assert asked("deepseek-r1")[1].scored == Rendering({}, "\n</think>\n\n")  # what the template has not written

    def test_other_options_go_to_both(self):
        found = asked("gpt-oss", options={"reasoning_effort": "low"})[1]
        assert (found.scored.options, found.answered.options) == ({"reasoning_effort": "low"},) * 2

    def test_a_variable_that_the_study_sets(self):
        assert starts("qwen-3", options={"enable_thinking": False}) == [STYLES["qwen-3"].suffix] * 2
        assert starts("qwen-3", options={"enable_thinking": True}) == starts("qwen-3")
        with pytest.raises(UserError) as caught:
            asked("qwen-3", options={"enable_thinking": False}, thinking=True)
        assert str(caught.value) == "template_options: enable_thinking: `thinking` sets it: leave one of them out"

    def test_a_block_of_another_kind(self):
        scored, answered = starts("mistral-0.3", think_block=OWN)
        assert (scored, answered) == ("[/INST]()", "[/INST]")
        assert asked("mistral-0.3", think_block=OWN)[1].block == ThinkBlock(**OWN)

    def test_a_model_that_does_not_reason_whatever_its_template_names(self):
        assert starts("deepseek-r1, first", think_block="none") == ["<|Assistant|>"] * 2
        assert asked("deepseek-r1, first", think_block="none")[1] == Asking()

    @pytest.mark.parametrize("tags", [THINK, BRACKETS])
    def test_a_template_that_only_strips_a_block(self, tags):
        """As those of some models that do not reason: nothing in it tells."""
        stripping = f"{{{{ messages[-1].content.split('{tags.closing}')[-1] }}}}<user>"
        tokenizer = build_tokenizer(stripping + "{% if add_generation_prompt %}<assistant>{% endif %}")
        with pytest.raises(UserError) as caught:
            asking(tokenizer, None, {}, None, None)
        assert str(caught.value) == (
            f"the chat template names {tags.closing}, and neither starts a reply with it nor has a switch for it, so"
            " whether the model reasons cannot be told: set `thinking: true`, or `think_block: none` if it does not"
        )
        assert asking(tokenizer, None, {}, None, "none") == Asking()
        said = asking(tokenizer, None, {}, True, None)
        assert (said.scored, said.answered, said.block) == (Rendering({}, tags.empty), PLAIN, tags)

    @pytest.mark.parametrize("thinking", [True, False])
    def test_thinking_of_a_model_without_a_block(self, thinking):
        with pytest.raises(UserError) as caught:
            asked("llama-3", thinking=thinking)
        assert str(caught.value) == (
            f"thinking: {str(thinking).lower()}: the chat template names no think block: give its markers by"
            " `think_block`, or leave `thinking` out"
        )

    def test_a_template_that_leaves_no_room_to_reason(self):
        with pytest.raises(UserError) as caught:
            asked("always closed", thinking=True)
        assert str(caught.value) == (
            "thinking: true: the chat template starts the answer by itself: name a template that lets the model reason"
            " by `chat_template`, or leave `thinking` out"
        )

    def test_a_switch_that_leaves_the_block_out(self):
        """Where a template that is told not to reason writes no block, the answer starts right there."""
        switched = (
            "{% if thinking %}Think in <think></think>.{% endif %}{{ messages[-1].content }}<user>"
            "{% if add_generation_prompt %}<assistant>{% endif %}"
        )
        tokenizer = build_tokenizer(switched)
        found = asking(tokenizer, None, {}, True, None)
        assert (found.scored, found.answered) == (Rendering({"thinking": False}), Rendering({"thinking": True}))
        assert tokenizer.decode(end_of_instruction(tokenizer, None, found.scored)) == "<user><assistant>"
        assert asking(tokenizer, None, {}, None, None).block is None

    def test_a_variable_of_that_name_that_switches_nothing(self):
        """As where a template calls its own variable so: the block is closed as if there were none."""
        own = STYLES["deepseek-r1"].template.replace("{{ bos_token }}", "{% if x %}{% set thinking = 1 %}{% endif %}")
        found = asking(build_tokenizer(own + "{{ '' if thinking }}"), None, {}, None, None)
        assert (found.scored, found.answered) == (Rendering({}, "\n</think>\n\n"), PLAIN)

    @pytest.mark.parametrize("name", STYLES)
    def test_recorded_and_read_again(self, name):
        found = asked(name)[1]
        assert from_record(json.loads(json.dumps(found.record()))) == found

    def test_asked_as_it_is_leaves_no_record(self):
        assert asked("llama-3")[1].record() is None


def reply(name, text, **changes):
    """Reasoning and answer of a reply that is written so."""
    tokenizer, found = asked(name, **changes)
    return split(tokenizer, tokenizer(text, add_special_tokens=False).input_ids, found)


class TestSplit:
    @pytest.mark.parametrize(
        ("name", "text", "reasoning", "answer"),
        [
            ("qwen-3", "<think>\nHm.\n</think>\n\nNo.", "<think>\nHm.\n</think>\n\n", "No."),
            ("qwen-3", "<think>\n\n</think>\n\nNo.", "<think>\n\n</think>\n\n", "No."),
            ("qwen-3", "<think>\nHm, what if", "<think>\nHm, what if", ""),  # cut within
            ("qwen-3", "No.", None, "No."),  # it did not reason
            ("qwen-3", "", None, ""),
            ("qwen-3", "No. I </think> so", "No. I </think> ", "so"),
            ("deepseek-r1", "Hm.\n</think>\n\nNo, 東京 </think> no.", "Hm.\n</think>\n\n", "No, 東京 </think> no."),
            ("deepseek-r1", "Hm, what if", "Hm, what if", ""),  # the template has opened the block
            ("deepseek-r1, first", "Hm, what if", None, "Hm, what if"),
            (
                "gpt-oss",
                "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>No.",
                "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>",
                "No.",
            ),
            ("gpt-oss", "<|channel|>final<|message|>No.", "<|channel|>final<|message|>", "No."),
            ("gpt-oss", "<|channel|>analysis<|message|>Hm", "<|channel|>analysis<|message|>Hm", ""),
            ("gpt-oss", "<|channel|>", "<|channel|>", ""),
            ("llama-3", "<think>Hm.</think>No.<eos>", None, "<think>Hm.</think>No."),  # special tokens left out
            ("always closed", "Hm.</think>No.", None, "Hm.</think>No."),
        ],
    )
    def test_reasoning_and_answer(self, name, text, reasoning, answer):
        assert reply(name, text) == (reasoning, answer)

    @pytest.mark.parametrize("cut", ["<", "<th", "<think"])
    def test_cut_within_the_opening(self, cut):
        """Where markers are no tokens of their own, a reply can be cut within one."""
        tokenizer = build_tokenizer(STYLES["qwen-3"].template)
        found = asking(tokenizer, None, {}, None, None)
        assert split(tokenizer, tokenizer(cut, add_special_tokens=False).input_ids, found) == (cut, "")

    def test_a_marker_that_ends_in_the_middle_of_a_token(self):
        """ "!" and a line break are one token here; what of the token stands behind the marker is the answer's."""
        tokenizer = STYLES["mistral-0.3"].tokenizer()
        found = asking(tokenizer, None, {}, None, {"opening": "(", "closing": ") so!", "empty": "() so!"})
        ids = tokenizer("(hm) so!\nNo.", add_special_tokens=False).input_ids
        assert "!Ċ" in tokenizer.convert_ids_to_tokens(ids)
        assert split(tokenizer, ids, found) == ("(hm) so!\n", "No.")

    def test_not_asked_to_reason_nothing_is_split(self):
        assert reply("qwen-3", "No </think> so", thinking=False) == (None, "No </think> so")


WRITTEN = {"Hi": ("<think>\nI cannot say.\n</think>\n\nYes.", 2), "Go": ("<think>\nHm, what if", None)}
"""Instruction -> a reply that ends, or is cut, and its stop token."""


class TestStages:
    """A random model with the template of a reasoning one."""

    PROMPTS = ({"id": "a", "category": None, "instruction": "Hi"}, {"id": "b", "category": None, "instruction": "Go"})

    @pytest.fixture
    def at(self, tmp_path):
        tokenizer = STYLES["qwen-3"].tokenizer()
        specimen("Llama", vocab_size=len(tokenizer)).save_pretrained(tmp_path / "model")
        tokenizer.save_pretrained(tmp_path / "model")
        describe(tmp_path / "model", tmp_path / "model.json")
        write_jsonl(tmp_path / "prompts.jsonl", list(self.PROMPTS))
        facts = {"kind": "none", "ablation": "span", "k": 0}
        write_tensors(tmp_path / "none" / "basis.safetensors", {"basis": np.zeros((0, 32))}, facts)
        return tmp_path

    def run(self, at, name, *flags):
        module = script(name)
        shared = ["--model", at / "model.json", "--cache", at / "cache", "--bases", at / "none" / "basis.safetensors"]
        module.main(module.parser().parse_args([str(flag) for flag in (*shared, *flags)]))

    def completed(self, at):
        output = at / "none" / "completions" / "harmful.jsonl"
        self.run(at, "completions", "--prompts", at / "prompts.jsonl", "--max-new-tokens", 8, "--outputs", output)
        return read_jsonl(output)

    def written(self, monkeypatch):
        """Have the model write WRITTEN; returns the prompts that it is given, as text."""
        from refusal.model import generation

        given = []

        def complete(chat, prompts, interventions, max_new_tokens, room, done, **_):
            given.extend(chat.tokenizer.decode(ids) for ids in prompts)
            replies = [WRITTEN[prompt["instruction"]] for prompt in TestStages.PROMPTS]
            for name in interventions:
                ids = [chat.tokenizer(text, add_special_tokens=False).input_ids for text, _ in replies]
                done(name, [Completion(one, stop) for one, (_, stop) in zip(ids, replies, strict=True)])

        monkeypatch.setattr(generation, "complete", complete)
        return given

    def test_what_the_model_step_says_and_records(self, at, caplog):
        caplog.set_level("INFO")
        identity = read_json(describe(at / "model", at / "again.json"))["identity"]
        assert identity["asking"]["scored"] == {"options": {"enable_thinking": False}, "appended": ""}
        assert identity["asking"]["answered"] == {"options": {}, "appended": ""}
        assert "date" not in identity
        assert caplog.messages[-1] == (
            'chat template: replies are reasoned, up to "</think>"; scores and directions are read after an empty think'
            " block (enable_thinking = false)"
        )
        positions = read_json(at / "again.json")["positions"]
        assert [one["position"] for one in positions] == list(range(-len(positions), 0))
        assert "<think>" in [one["token"] for one in positions]

    def test_scores_are_read_after_an_empty_block_and_responses_are_reasoned(self, at):
        chat = load(at / "model.json")
        (scored,), (answered,) = chat.encode([self.PROMPTS[0]]), chat.encode_for_responses([self.PROMPTS[0]])
        start = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
        assert chat.tokenizer.decode(scored) == start + "<think>\n\n</think>\n\n"
        assert chat.tokenizer.decode(answered) == start
        assert scored[-len(chat.suffix) :] == list(chat.suffix)

    def test_reasoning_and_response_are_kept_apart(self, at, monkeypatch, caplog):
        given = self.written(monkeypatch)
        first, second = self.completed(at)
        assert given[0].endswith("<|im_start|>assistant\n")
        assert (first["reasoning"], first["response"]) == ("<think>\nI cannot say.\n</think>\n\n", "Yes.")
        assert (second["reasoning"], second["response"]) == ("<think>\nHm, what if", "")
        assert (first["finish_reason"], second["finish_reason"]) == ("stop", "length")
        assert load(at / "model.json").tokenizer.decode(first["token_ids"]) == WRITTEN["Hi"][0]
        assert first["n_tokens"] == len(first["token_ids"])
        assert caplog.messages == [
            "none: 1 of 2 responses end within their reasoning and answer nothing: raise completions.max_new_tokens, or"
            " set `thinking: false` in the model file"
        ]

    def test_the_answer_alone_is_judged(self, at, monkeypatch):
        self.written(monkeypatch)
        self.completed(at)
        judgements, output = script("judgements"), at / "none" / "judgements" / "published" / "harmful.jsonl"
        flags = ["--judge", ROOT / "config" / "judges" / "published.yaml", "--cache", at / "cache", "--outputs", output]
        flags += ["--completions", at / "none" / "completions" / "harmful.jsonl"]
        judgements.main(judgements.parser().parse_args([str(flag) for flag in flags]))
        assert [row["verdict"] for row in read_jsonl(output)] == ["compliance", "invalid"]

    def test_the_loss_on_its_own_responses_takes_them_whole(self, at, monkeypatch):
        from refusal.model import loss

        given = self.written(monkeypatch)
        rows = self.completed(at)
        spans = []
        monkeypatch.setattr(loss, "losses", lambda chat, found, *_: spans.extend(found) or _done(_[-1], found))
        self.run(
            at, "loss", "--completions", at / "none" / "completions" / "harmful.jsonl", "--max-tokens", 256,
            "--outputs", at / "none" / "loss.json",
        )  # fmt: skip
        decode = load(at / "model.json").tokenizer.decode
        assert [decode(one.tokens[: one.start]) for one in spans] == given
        assert [decode(one.tokens[one.start :]).removesuffix("<eos>") for one in spans] == [
            decode(row["token_ids"]) for row in rows
        ]

    def test_the_same_model_that_is_not_to_reason(self, at):
        describe(at / "model", at / "model.json", thinking=False)
        chat = load(at / "model.json")
        assert chat.encode_for_responses(self.PROMPTS) == chat.encode(self.PROMPTS)
        assert {row["reasoning"] for row in self.completed(at)} == {None}

    def test_a_model_that_does_not_reason(self, chat):
        assert chat.encode_for_responses(self.PROMPTS) == chat.encode(self.PROMPTS)
        assert chat.asking == Asking()


def _done(done, spans):
    done("none", [1.0] * len(spans))
