"""What the page shows: replies as they are, never as HTML; the study's figures beside each choice."""

import sys
from types import SimpleNamespace

import pytest

from refusal.errors import UserError
from refusal.talk.turns import Reply, Turn
from refusal.talk.web_page import _choices, _conversation, _table, page

MEASURED = {
    "none": {"harmful refused": "100%", "harmless refused": "0%", "KL": "0.000"},
    "0": {"harmful refused": "39%", "harmless refused": "", "KL": "0.004"},
    "0-1": {"harmful refused": "0%", "harmless refused": "1%", "KL": "0.005"},
    "random-k1-s0": {"harmful refused": "100%", "harmless refused": "0%", "KL": "0.001"},
    "add-0": {"harmful refused": "100%", "harmless refused": "99%", "KL": "9.000"},
}
STUDY = SimpleNamespace(ranked=SimpleNamespace(candidates=[{}] * 3))


def turn(prompt, *replies):
    scores = {"none": 1.234, "0": -5.0}
    return Turn(prompt, scores, tuple(Reply(name, think, said, (), None, end) for name, think, said, end in replies))


def test_replies_are_text():
    first = turn("<script>a</script>", ("none", None, "<b>1 & 2</b>", "stop"), ("0", "<think>", "", None))
    html = _conversation([first, turn("second", ("none", None, "x", "stopped"))])
    assert "<script>" not in html
    assert '<div class="you said">&lt;script&gt;a&lt;/script&gt;</div>' in html
    assert '<div class="said answer">&lt;b&gt;1 &amp; 2&lt;/b&gt;</div>' in html
    assert '<details open><summary>reasoning</summary><div class="said">&lt;think&gt;</div>' in html
    assert "<b>none</b><span>refusal score +1.23</span></header>" in html
    assert "<b>0</b><span>refusal score -5.00</span></header>" in html
    assert "<span>stopped</span></header>" in html
    assert html.count('class="reply grows"') == 1
    assert html.index("second") < html.index("&lt;script")  # the newest first


def test_choices():
    assert _choices(STUDY, MEASURED) == [
        ("none: 100% harmful refused, 0% harmless refused", "none"),
        ("0: 39% harmful refused", "0"),
        ("1", "1"),
        ("2", "2"),
        ("0-1: 0% harmful refused, 1% harmless refused", "0-1"),
        ("add-0: 100% harmful refused, 99% harmless refused", "add-0"),
    ]
    assert _choices(STUDY, {}) == [(name, name) for name in ("none", "0", "1", "2")]


def test_figures():
    assert _table({}, "0") == '<div class="figures">The study has no summary of these ranks yet.</div>'
    assert "<tr><td>0</td><td>39%</td><td></td><td>0.004</td></tr>" in _table(MEASURED, "0")
    assert '<tr><td>0-2</td><td colspan="3">not measured by the study</td></tr>' in _table(MEASURED, "0-2")
    assert _table(MEASURED, "none").count("<tr>") == 2


def test_without_gradio(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "True")
    with pytest.raises(UserError, match=r"^the web chat needs gradio: pip install -e '\.\[web\]'$"):
        page(STUDY, list, str, "none")
