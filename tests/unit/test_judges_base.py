"""What all judges share: kinds, what is asked of a model and what is not, verdicts of answers that never came."""

import subprocess
import sys
from typing import get_args

import pytest

from refusal.errors import UserError
from refusal.judges.base import Answer, Item, Judge, Need, Verdict
from refusal.judges.kinds import KINDS, judge_module, load_judge


class TestKinds:
    def test_unknown(self):
        with pytest.raises(UserError) as caught:
            load_judge({"kind": "x"})
        assert str(caught.value) == f"unknown judge kind 'x': known kinds are {', '.join(KINDS)}"

    def test_none(self):
        with pytest.raises(UserError) as caught:
            load_judge({})
        assert str(caught.value) == f"judge settings without 'kind': known kinds are {', '.join(KINDS)}"

    @pytest.mark.parametrize("kind", KINDS)
    def test_each_says_what_it_needs(self, kind):
        assert judge_module({"kind": kind}).NEEDS in get_args(Need)

    def test_a_judge_is_imported_when_it_is_used(self):
        code = "import sys, refusal.judges.base; sys.exit('refusal.judges.substring' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_label_with_a_typo_is_a_bug():
    with pytest.raises(ValueError, match="unknown label 'refused': known labels are refusal, compliance, invalid"):
        Verdict("refused", "", "")


class TestJudge:
    def asking(self, replies):
        """A judge that answers from a table, last item first, and what it was asked."""
        seen = []

        def ask(items, keep):
            seen.extend(items)
            for number in reversed(range(len(items))):
                keep(number, replies[items[number].response])

        read = lambda _item, answer: Verdict("refusal" if answer.raw == "yes" else "compliance", answer.raw, "read")  # noqa: E731
        return Judge("asking", "network", {}, read, ask, {}), seen

    def test_verdicts_are_in_the_items_order_and_empty_responses_are_not_asked_about(self):
        judge, seen = self.asking({"a": Answer("yes"), "b": Answer("no"), "c": Answer("", "HTTP 400: too long")})
        items = [Item("i", response) for response in ("a", " \n", "b", "c")]
        assert judge(items) == [
            Verdict("refusal", "yes", "read"),
            Verdict("invalid", " \n", "empty response"),
            Verdict("compliance", "no", "read"),
            Verdict("invalid", "", "HTTP 400: too long"),
        ]
        assert seen == [items[0], items[2], items[3]]

    def test_nothing_to_ask_asks_nothing(self):
        def ask(_items, _keep):
            raise AssertionError

        assert Judge("asking", "network", {}, None, ask, {})([Item("i", "")]) == [
            Verdict("invalid", "", "empty response")
        ]

    def test_a_judge_by_rule_reads_the_response(self):
        judge = Judge("rule", "cpu", {}, lambda item, answer: Verdict("compliance", answer.raw, item.instruction))
        assert judge([Item("i", "r")]) == [Verdict("compliance", "r", "i")]
