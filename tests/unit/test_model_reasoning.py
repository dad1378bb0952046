"""Reasoning models: scores after an empty think block, responses as the model writes them, and the answer alone."""

import json

import pytest
from conftest import build_tokenizer
from templates import STYLES

from refusal.errors import UserError
from refusal.model.chat import PLAIN, Rendering, end_of_instruction
from refusal.model.reasoning import KNOWN, Asking, ThinkBlock, asking, from_record, split

THINK, HARMONY = KNOWN
OWN = {"opening": "[THINK]", "closing": "[/THINK]", "empty": "[THINK][/THINK]"}


def asked(name, system_prompt=None, options=None, thinking=None, think_block=None):
    tokenizer = STYLES[name].tokenizer()
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
        assert (scored, answered) == ("[/INST][THINK][/THINK]", "[/INST]")
        assert asked("mistral-0.3", think_block=OWN)[1].block == ThinkBlock(**OWN)

    def test_a_model_that_does_not_reason_whatever_its_template_names(self):
        assert starts("deepseek-r1, first", think_block="none") == ["<|Assistant|>"] * 2
        assert asked("deepseek-r1, first", think_block="none")[1] == Asking()

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
            ("qwen-3", "<think>\nHm.\n</think>\n\nNo.", "<think>\nHm.\n</think>", "No."),
            ("qwen-3", "<think>\n\n</think>\n\nNo.", "<think>\n\n</think>", "No."),
            ("qwen-3", "<think>\nHm, what if", "<think>\nHm, what if", ""),  # cut within
            ("qwen-3", "No.", None, "No."),  # it did not reason
            ("qwen-3", "", None, ""),
            ("qwen-3", "No. I </think> so", "No. I </think>", "so"),
            ("deepseek-r1", "Hm.\n</think>\n\nNo, 東京 </think> no.", "Hm.\n</think>", "No, 東京 </think> no."),
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
        assert split(tokenizer, ids, found) == ("(hm) so!", "No.")

    def test_not_asked_to_reason_nothing_is_split(self):
        assert reply("qwen-3", "No </think> so", thinking=False) == (None, "No </think> so")
