"""A chat template as text: the variables that a study may set, and a clock that stands still."""

import datetime

import pytest
from conftest import TEMPLATE, build_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from templates import STYLES

from refusal.errors import UserError
from refusal.model.chat import Rendering, render
from refusal.model.template import TODAY, check_options, options, prints_date, source

CLOCK = "{% if strftime_now is defined %}{{ strftime_now('FORMAT') }}{% endif %}" + TEMPLATE


def shown(template, form="%d %b %Y", **given):
    tokenizer = build_tokenizer(template.replace("FORMAT", form))
    return tokenizer.decode(render(tokenizer, "Hi", None, Rendering(given)))


class TestClock:
    @pytest.mark.parametrize("form", ["%d %b %Y", "%Y-%m-%d", "%B %-d, %Y", "%A %j %y", "%F %H:%M:%S", "no date"])
    def test_it_stands_still_in_every_format(self, form):
        told = datetime.datetime(TODAY.year, TODAY.month, TODAY.day).strftime(form)
        assert shown(CLOCK, form).startswith(told + "<bos>")

    def test_no_day_changes_a_rendering(self, monkeypatch):
        """With the clock of transformers on another day, which templates do read where nobody minds."""
        from transformers.utils import chat_template_utils

        class Later(datetime.datetime):
            @classmethod
            def now(cls, tz=None):
                return cls(2031, 1, 2, tzinfo=tz)

        monkeypatch.setattr(chat_template_utils, "datetime", Later)
        tokenizer = build_tokenizer(CLOCK.replace("FORMAT", "%Y"))
        messages = [{"role": "user", "content": "Hi"}]
        assert tokenizer.apply_chat_template(messages, tokenize=False).startswith("2031")
        assert tokenizer.decode(render(tokenizer, "Hi")).startswith("2024")

    def test_a_date_that_the_study_sets_wins_where_the_template_has_a_variable_for_it(self):
        tokenizer = STYLES["llama-3.1"].tokenizer()
        told = tokenizer.decode(render(tokenizer, "Hi", None, Rendering({"date_string": "1 May 2025"})))
        assert "Today Date: 1 May 2025" in told

    @pytest.mark.parametrize("template", ["\n  {% if 1 %}\n a{% endif %}\nb ", "  {%- if 1 %}c{% endif %}\n\n", "d\n"])
    def test_the_template_itself_stays_as_it_is(self, template):
        body = template + "{{ messages[0].content }}"
        without = shown(body)
        assert shown(body + "{# strftime_now #}") == without

    def test_templates_that_print_no_date_are_not_touched(self, tokenizer):
        assert source(tokenizer) == TEMPLATE
        assert not prints_date(tokenizer)
        assert {name for name, style in STYLES.items() if prints_date(style.tokenizer())} == {
            name for name, style in STYLES.items() if style.dated
        }

    @given(st.text("%aAbBdeFHIjmMSyY- ", max_size=8).filter(lambda form: not form.endswith("%")))
    def test_formats_are_read_as_the_clock_reads_them(self, form):
        """Known directives, in any order; "%%" and directives of no date are left as they are."""
        known = ["%-d", "%-m", *(f"%{letter}" for letter in "aAbBdeFHIjmMSyY")]
        words = [word for word in form.split() if word in known]
        told = [TODAY.strftime(word) for word in words]
        assert shown(CLOCK, " ".join(words)).split("<bos>")[0] == " ".join(told)


class TestOptions:
    def test_those_that_the_template_reads(self, tokenizer):
        assert options(tokenizer) == set()
        assert "date_string" in options(STYLES["llama-3.1"].tokenizer())  # beside what it sets in its branches
        assert options(STYLES["qwen-3"].tokenizer()) == {"enable_thinking"}
        assert options(STYLES["gpt-oss"].tokenizer()) == {"reasoning_effort"}

    def test_blocks_that_transformers_knows_are_read_over(self):
        marked = "{% generation %}{{ m.content + style }}{% endgeneration %}{% break %}"
        looped = "{% for m in messages %}" + marked + "{% endfor %}"
        assert options(build_tokenizer(looped)) == {"style"}

    def test_one_that_it_does_not_read(self, tokenizer):
        check_options(tokenizer, {})
        check_options(STYLES["qwen-3"].tokenizer(), {"enable_thinking": True})
        with pytest.raises(UserError) as caught:
            check_options(STYLES["qwen-3"].tokenizer(), {"enable_thinkng": True})
        assert str(caught.value) == (
            "template_options: the chat template reads no `enable_thinkng`; it reads enable_thinking"
        )
        with pytest.raises(UserError) as caught:
            check_options(tokenizer, {"date_string": "today", "bos_token": ""})
        assert str(caught.value) == "template_options: the chat template reads no `bos_token`; it reads none"

    def test_a_template_that_is_not_jinja(self):
        with pytest.raises(UserError, match=r"^the chat template is not valid Jinja \(line 1: "):
            options(build_tokenizer("{% for %}"))
