"""What the page shows: replies as they are, never as HTML; the study's figures beside each choice."""

import sys
from types import SimpleNamespace

import pytest

from refusal.errors import UserError
from refusal.talk.finished import Figures
from refusal.talk.turns import Reply, Turn
from refusal.talk.web_page import _choices, _conversation, _table, page

MEASURED = Figures(
    "refused: by a, n = 100",
    {
        "none": {"harmful refused": "100% (96% to 100%)", "harmless refused": "0%", "KL": "0.000"},
        "0": {"harmful refused": "39% (30% to 49%)", "harmless refused": "", "KL": "0.004"},
        "0-1": {"harmful refused": "0%", "harmless refused": "1%", "KL": "0.005"},
        "random-k1-s0": {"harmful refused": "100%", "harmless refused": "0%", "KL": "0.001"},
        "add-0": {"harmful refused": "100%", "harmless refused": "99%", "KL": "9.000"},
    },
)
NONE = Figures("", {})
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
    assert _choices(STUDY, NONE) == [(name, name) for name in ("none", "0", "1", "2")]


def test_figures():
    assert _table(NONE, "0") == '<div class="figures">The study has no summary of these ranks yet.</div>'
    said = _table(MEASURED, "0")
    assert (
        "<caption>the study&#x27;s figures (95%); refused: by a, n = 100</caption><tr><th></th><th>none</th><th>0</th>"
        in said
    )
    assert "<tr><td>harmful refused</td><td>100% (96% to 100%)</td><td>39% (30% to 49%)</td></tr>" in said
    assert "<tr><td>harmless refused</td><td>0%</td><td></td></tr>" in said
    assert "<th>none</th><th>0-2: not measured by the study</th>" in _table(MEASURED, "0-2")
    assert _table(MEASURED, "none").count("<th>") == 2


def test_without_gradio(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "True")
    with pytest.raises(UserError, match=r"^the web chat needs gradio: pip install -e '\.\[web\]'$"):
        page(STUDY, list, str, "none")
