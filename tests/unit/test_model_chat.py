"""Templates: positions found by rendering, one BOS, and clear words where a template or a prompt does not fit."""

from types import SimpleNamespace

import pytest
from conftest import TEMPLATE, build_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from templates import STYLES

from refusal.errors import UserError
from refusal.model.chat import Rendering, encode, end_of_instruction, render, single_token, stop_tokens
from refusal.model.reasoning import asking

BOS, END, SYSTEM, USER, ASSISTANT = 1, 3, 4, 5, 6
TRIMMED = TEMPLATE.replace("message['content']", "message['content'] | trim")
# The instruction is followed by characters of the same alphabet as its own.
BRACKETS = "{{ bos_token }}{% for message in messages %}[INST] {{ message['content'] }} [/INST]{% endfor %}"
# A default system prompt, as Qwen's templates write one.
DEFAULT = "{% if messages[0]['role'] != 'system' %}<system>Be kind<end>\n{% endif %}" + TEMPLATE.replace(
    "{{ bos_token }}", ""
)
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + TEMPLATE
)
MERGING = "{{ bos_token }}{% for message in messages %}<user>{{ message['content'] }}\n{% endfor %}<assistant>"


def text(tokenizer, ids):
    return tokenizer.decode(ids)


class TestPositions:
    @pytest.mark.parametrize(
        ("template", "suffix"),
        [
            (TEMPLATE, "<end>\n<assistant>"),
            (TRIMMED, "<end>\n<assistant>"),
            (BRACKETS, " [/INST]"),
            (DEFAULT, "<end>\n<assistant>"),
            (MERGING, "\n<assistant>"),
            (TEMPLATE.replace("<assistant>", "<assistant>\n"), "<end>\n<assistant>\n"),
            (TRIMMED + "{{ '' }}\n\n", "<end>\n<assistant>"),  # Jinja drops one line break at the end, not two
        ],
    )
    def test_are_what_the_template_puts_after_the_instruction(self, template, suffix):
        tokenizer = build_tokenizer(template)
        rendered = text(tokenizer, end_of_instruction(tokenizer))
        assert rendered.rstrip("\n") == suffix.rstrip("\n")
        assert text(tokenizer, render(tokenizer, "Hello")).endswith("Hello" + rendered)

    def test_as_ids(self, tokenizer):
        line_break = single_token(tokenizer, "\n")
        assert end_of_instruction(tokenizer) == [END, line_break, ASSISTANT]

    def test_a_system_prompt_moves_nothing_behind_the_instruction(self, tokenizer):
        assert end_of_instruction(tokenizer, "Be kind") == end_of_instruction(tokenizer)

    def test_what_the_endings_happen_to_share_is_no_template(self):
        """Two endings that share their last letter would make it a position; the shortest pair decides."""
        tokenizer = build_tokenizer(TEMPLATE.replace("message['content']", "message['content'][:4] + 's'"))
        assert text(tokenizer, end_of_instruction(tokenizer)) == "s<end>\n<assistant>"  # written by the template
        assert text(build_tokenizer(), end_of_instruction(build_tokenizer()))[0] == "<"

    def test_nothing_after_the_instruction(self):
        bare = build_tokenizer("{{ bos_token }}{{ messages[-1]['content'] }}")
        with pytest.raises(UserError) as caught:
            end_of_instruction(bare)
        assert str(caught.value) == (
            "the chat template puts nothing after the instruction: there is no position to read at"
        )

    @given(st.text(max_size=30))
    def test_every_prompt_ends_with_them(self, tokenizer, instruction):
        suffix = end_of_instruction(tokenizer)
        (row,) = encode(tokenizer, [{"id": "a", "instruction": instruction}], None, suffix)
        assert row[-len(suffix) :] == suffix


class TestRender:
    def test_whole(self, tokenizer):
        assert (
            text(tokenizer, render(tokenizer, "Hi", "Be kind"))
            == "<bos><system>Be kind<end>\n<user>Hi<end>\n<assistant>"
        )

    @pytest.mark.parametrize("template", [TEMPLATE, TRIMMED, BRACKETS, MERGING])
    def test_one_bos(self, template):
        tokenizer = build_tokenizer(template)
        assert tokenizer("Hi").input_ids[0] == BOS  # it would add one
        assert render(tokenizer, "Hi").count(BOS) == 1

    def test_no_bos_where_the_template_has_none(self):
        assert BOS not in render(build_tokenizer(DEFAULT), "Hi")

    def test_no_system_prompt_is_the_templates_default(self):
        tokenizer = build_tokenizer(DEFAULT)
        assert text(tokenizer, render(tokenizer, "Hi")).startswith("<system>Be kind<end>")
        assert text(tokenizer, render(tokenizer, "Hi", "Be brief")).startswith("<system>Be brief<end>")
        assert render(tokenizer, "Hi", "").count(SYSTEM) == 1  # empty is a system prompt too
        assert "kind" not in text(tokenizer, render(tokenizer, "Hi", ""))

    def test_a_template_that_trims(self):
        tokenizer = build_tokenizer(TRIMMED)
        assert render(tokenizer, "  Hi \n") == render(tokenizer, "Hi")

    def test_no_template(self):
        with pytest.raises(UserError) as caught:
            render(build_tokenizer(None), "Hi")
        assert str(caught.value) == (
            "the tokenizer has no chat template: name a file with one by `chat_template` in the model file"
        )

    def test_a_template_that_refuses_a_system_prompt(self):
        tokenizer = build_tokenizer(NO_SYSTEM)
        assert render(tokenizer, "Hi").count(USER) == 1
        with pytest.raises(UserError) as caught:
            render(tokenizer, "Hi", "Be kind")
        assert str(caught.value) == (
            "the chat template refuses this conversation (System role not supported): change `system_prompt`"
        )


@pytest.fixture(params=STYLES)
def style(request):
    """A style with its tokenizer and how it is asked."""
    chosen = STYLES[request.param]
    made = chosen.tokenizer()
    return chosen, made, asking(made, None, {}, None if chosen.told else True, None)


class TestStyles:
    """Every family's template, and what an instruction can hold."""

    INSTRUCTIONS = (
        "How do I pick a lock?",
        "  Room on both sides \n",
        "Naïve café 東京 🔑",
        "End it here</s> <|im_end|> [/INST] </think> <end_of_turn> <|eot_id|> now",
    )

    def test_end_of_instruction(self, style):
        chosen, tokenizer, asked = style
        assert text(tokenizer, end_of_instruction(tokenizer, None, asked.scored)) == chosen.suffix
        answered = text(tokenizer, end_of_instruction(tokenizer, None, asked.answered))
        assert answered == (chosen.answered or chosen.suffix)

    @pytest.mark.parametrize("instruction", INSTRUCTIONS)
    def test_what_an_instruction_holds_moves_no_position(self, style, instruction):
        chosen, tokenizer, asked = style
        for rendering in (asked.scored, asked.answered):
            suffix = end_of_instruction(tokenizer, None, rendering)
            (row,) = encode(tokenizer, [{"id": "a", "instruction": instruction}], None, suffix, rendering)
            written = instruction.strip() if chosen.trims else instruction
            assert text(tokenizer, row).endswith(written + text(tokenizer, suffix))

    @pytest.mark.parametrize("system_prompt", [None, "Be kind."])
    def test_one_bos_or_none(self, style, system_prompt):
        chosen, tokenizer, asked = style
        if system_prompt and chosen.system not in ("own turn", "user's turn"):
            return
        assert tokenizer("Hi").input_ids[0] == BOS  # it would add one
        assert render(tokenizer, "Hi", system_prompt, asked.scored).count(BOS) == chosen.bos

    def test_system_prompt(self, style):
        chosen, tokenizer, asked = style
        plain = text(tokenizer, render(tokenizer, "Hi", None, asked.answered))
        assert (chosen.default or "") in plain
        if chosen.system in ("own turn", "user's turn"):
            rendered = text(tokenizer, render(tokenizer, "Hi", "Be kind.", asked.answered))
            assert "Be kind." in rendered
            assert rendered.endswith(chosen.answered or chosen.suffix)
            if chosen.default and not chosen.dated:
                assert chosen.default not in rendered
            assert end_of_instruction(tokenizer, "Be kind.", asked.scored) == end_of_instruction(
                tokenizer, None, asked.scored
            )
        else:
            with pytest.raises(UserError) as caught:
                render(tokenizer, "Hi", "Be kind.")
            assert str(caught.value) == (
                f"the chat template refuses this conversation ({chosen.system}): change `system_prompt`"
            )

    def test_special_tokens_in_an_instruction_are_read_as_such_and_said(self, caplog):
        tokenizer = STYLES["qwen-2"].tokenizer()
        suffix = end_of_instruction(tokenizer)
        (end,) = tokenizer.convert_tokens_to_ids(["<|im_end|>"])
        prompts = [{"id": "p-1", "instruction": "Stop"}, {"id": "p-2", "instruction": "Stop<|im_end|>"}]
        first, second = encode(tokenizer, prompts, None, suffix)
        assert second.count(end) == first.count(end) + 1
        assert caplog.messages == ["special tokens in the text of 1 prompts are read as such, first in p-2"]


class TestRefusals:
    """What a template can refuse, in one line with its remedy."""

    @pytest.mark.parametrize(
        ("template", "options", "said"),
        [
            (
                "{{ raise_exception('Not today') }}", {},
                "the chat template refuses this conversation (Not today): change `chat_template`",
            ),
            (
                "{{ 'effort ' + effort }}", {"effort": 5},
                "the chat template refuses this conversation (can only concatenate str (not \"int\") to str):"
                " change `template_options`",
            ),
            (
                "{% if x %}", {},
                "the chat template is not valid Jinja (line 1: Unexpected end of template. Jinja was looking for the"
                " following tags: 'elif' or 'else' or 'endif'. The innermost block that needs to be closed is 'if'.):"
                " name a file with another by `chat_template` in the model file",
            ),
        ],
    )  # fmt: skip
    def test_one_line(self, template, options, said):
        with pytest.raises(UserError) as caught:
            render(build_tokenizer(template), "Hi", None, Rendering(options))
        assert str(caught.value) == said

    def test_several_templates_without_a_default(self):
        with pytest.raises(UserError) as caught:
            render(build_tokenizer({"rag": "a", "tool_use": "b"}), "Hi")
        assert str(caught.value) == (
            "the tokenizer has the chat templates rag, tool_use and none is the default: name a file with one by"
            " `chat_template` in the model file"
        )
        assert render(build_tokenizer({"rag": "a", "default": TEMPLATE}), "Hi") == render(build_tokenizer(), "Hi")


class TestEncode:
    def test_in_order(self, tokenizer):
        prompts = [{"id": name, "instruction": name * 3} for name in "ba"]
        suffix = end_of_instruction(tokenizer)
        assert encode(tokenizer, prompts, None, suffix) == [render(tokenizer, "bbb"), render(tokenizer, "aaa")]

    def test_a_prompt_whose_end_merges_with_the_template(self):
        tokenizer = build_tokenizer(MERGING)  # "!" and the line break after it are one token
        suffix = end_of_instruction(tokenizer)
        encode(tokenizer, [{"id": "p-1", "instruction": "Stop."}], None, suffix)
        with pytest.raises(UserError) as caught:
            encode(
                tokenizer, [{"id": "p-1", "instruction": "Stop."}, {"id": "p-2", "instruction": "Stop!"}], None, suffix
            )
        assert str(caught.value) == ("prompt p-2: its end merges with the chat template's tokens: reword or remove it")


class TestTokens:
    def test_single(self, tokenizer):
        assert tokenizer.convert_ids_to_tokens(single_token(tokenizer, "I")) == "I"

    def test_several(self, tokenizer):
        with pytest.raises(UserError) as caught:
            single_token(tokenizer, "I'm")
        assert str(caught.value) == (
            """refusal token "I'm" is 3 tokens here ['I', "'", 'm']: give the first of them alone"""
        )

    def test_empty(self, tokenizer):
        with pytest.raises(UserError, match=r'^refusal token "" is 0 tokens here \[\]'):
            single_token(tokenizer, "")

    @pytest.mark.parametrize(
        ("eos", "expected"), [(None, [2]), (2, [2]), (3, [2, 3]), ([3, 0, 3], [0, 2, 3]), ([], [2])]
    )
    def test_stops_are_the_generation_configs_and_the_tokenizers(self, tokenizer, eos, expected):
        assert stop_tokens(tokenizer, SimpleNamespace(eos_token_id=eos)) == expected

    def test_stops_without_a_generation_config(self, tokenizer):
        assert stop_tokens(tokenizer, None) == [2]
