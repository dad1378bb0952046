"""The chat as a page: baseline and ablated side by side, with what the study has measured of the combination."""

import os
from collections.abc import Callable, Iterator, Sequence
from html import escape
from typing import Any

from refusal.combinations import BASELINE, CONTROLS, parse
from refusal.errors import UserError
from refusal.talk.finished import Figures, Finished, figures
from refusal.talk.session import ENDINGS, Talk
from refusal.talk.turns import Reply, Turn

_FONTS = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
"""Of the machine: the themes' own are fetched from elsewhere."""

_STYLE = """
.gradio-container {max-width: 80rem !important; margin: 0 auto}
.gradio-container .html-container {padding: 0 !important}
.gradio-container input[role=combobox] {text-overflow: ellipsis; padding-right: 2.5rem}
.gradio-container :is(input, textarea, .turns):focus-visible {outline: 2px solid currentColor !important;
  outline-offset: -2px !important  /* their boxes cut what stands out */}
footer {display: none !important}
.figures {overflow-x: auto; contain: inline-size; font-variant-numeric: tabular-nums; font-size: 0.85rem}
.figures table, .figures tr, .figures td, .figures th {border: 0 !important}
.figures table {width: 100%}
.figures caption {text-align: left; white-space: normal; color: var(--body-text-color-subdued)}
.figures th, .figures td {padding: 0.15rem 0 0.15rem 1rem !important; text-align: right; vertical-align: top}
.figures th {font-weight: 400; color: var(--body-text-color-subdued)}
.figures :is(th, td):first-child {text-align: left; padding-left: 0 !important}
.turns {height: calc(100dvh - 28rem); min-height: 20rem; overflow-y: auto; overflow-anchor: none;
  /* newest first, from the bottom: what is said last stays in sight */
  display: flex; flex-direction: column-reverse; gap: 1.5rem;
  padding: 1rem; border: 1px solid var(--border-color-primary); border-radius: var(--radius-lg)}
.turns > :first-child {margin-bottom: auto !important}
.nothing {color: var(--body-text-color-subdued)}
.said {white-space: pre-wrap; overflow-wrap: anywhere}
.you {width: fit-content; max-width: 85%; margin: 0 auto 0.75rem; padding: 0.4rem 0.9rem;
  border-radius: var(--radius-lg); background: var(--background-fill-secondary)}
.replies {display: grid; grid-template-columns: repeat(auto-fit, minmax(min(18rem, 100%), 1fr)); gap: 0.75rem}
.reply {padding: 0.6rem 0.9rem; border: 1px solid var(--border-color-primary); border-radius: var(--radius-lg)}
.reply header {display: flex; flex-wrap: wrap; gap: 0 1rem; font-size: 0.8rem; margin-bottom: 0.3rem;
  color: var(--body-text-color-subdued); font-variant-numeric: tabular-nums}
.reply header b {color: var(--body-text-color)}
.reply details {font-size: 0.85rem; color: var(--body-text-color-subdued); margin-bottom: 0.3rem}
.reply.grows .said:last-child::after {content: "\\258D"; opacity: 0.5}
"""

_BESIDE = ("harmful refused", "harmless refused")
"""Figures that stand beside each choice."""

_NOTHING = '<div class="nothing">Nothing was said yet.</div>'


def page(
    study: Finished, conversation: Callable[[], Talk], version: Callable[[str], Any], combination: str
) -> tuple[Any, dict[str, Any]]:
    """The page, and what it is to be launched with.

    Args:
        conversation: begins a new one, for each tab that is opened; version: the model under a combination.
        combination: chosen at first.
    Raises: UserError, gradio is not installed.
    """
    gr = _gradio()
    at_work = _AtWork(gr, study, version)
    with gr.Blocks(title=f"{study.name}: chat", analytics_enabled=False) as made:
        talking = gr.State(conversation)  # called for each tab
        gr.Markdown(
            f"## {study.described}\nEvery message is answered with nothing ablated, beside it with what is chosen here;"
            " the latter goes into the history. Nothing leaves this machine, and nothing is written down."
        )
        choice = gr.Dropdown(
            _choices(study, at_work.measured),
            value=combination,
            label="Ablated",
            info="Ranks, or any other id, such as 0-2-4, add-0 or random-k1-s0",
            allow_custom_value=True,
        )
        table = gr.HTML(_table(at_work.measured, combination), padding=False)
        shown = gr.HTML(_conversation([]), padding=False)
        with gr.Row():
            message = gr.Textbox(
                label="Message", placeholder="Message", show_label=False, container=False, scale=8, min_width=240
            )
            send = gr.Button("Send", variant="primary", min_width=90, scale=1)
            stop = gr.Button("Stop", variant="stop", visible=False, min_width=90, scale=1)
            back = gr.Button("Undo", min_width=90, scale=1)
            anew = gr.Button("Reset", min_width=90, scale=1)
        choice.change(at_work.choose, choice, table, show_progress="hidden")
        gr.on(
            [message.submit, send.click],
            at_work.ask,
            [message, choice, talking],
            [message, shown, send, stop, back, anew],
            show_progress="hidden",
        )
        stop.click(lambda talk: talk.stop(), talking, queue=False)
        back.click(_undo, talking, shown, show_progress="hidden")
        anew.click(_start_anew, talking, shown, show_progress="hidden")
    theme = gr.themes.Base(primary_hue="neutral", radius_size="sm", **_FONTS).set(
        body_text_color_subdued="*neutral_600",
        block_info_text_color="*neutral_600",
        input_placeholder_color="*neutral_600",
        input_placeholder_color_dark="*neutral_400",
    )
    return made, {"theme": theme, "css": _STYLE, "footer_links": []}


class _AtWork:
    """What happens when something is chosen or said; what is wrong is shown, and changes nothing."""

    def __init__(self, gr: Any, study: Finished, version: Callable[[str], Any]) -> None:
        self._gr, self._study, self._version = gr, study, version
        self.measured = figures(study)

    def choose(self, chosen: str) -> Any:
        """Figures of a combination."""
        try:
            return _table(self.measured, self._study.combination(chosen).id)
        except UserError as error:
            self._gr.Warning(escape(str(error)))
            return self._gr.skip()

    def ask(self, message: str, chosen: str, talk: Talk) -> Iterator[tuple]:
        """Message, conversation and buttons while the replies grow. The message leaves its field once it is said."""
        same, field, kept = self._gr.skip(), "", False
        if not message.strip():
            yield (same,) * 6
            return
        try:
            named = self._version(chosen)
            versions = [named] if named.id == BASELINE else [self._version(BASELINE), named]
            for turn in talk.ask(message, versions, True):
                kept = bool(talk.turns) and talk.turns[-1] is turn
                said = talk.turns if kept else [*talk.turns, turn]
                yield field, _conversation(said), *self._buttons(growing=not kept)
                field = same  # the next message may stand there by now
        except UserError as error:
            self._gr.Warning(escape(str(error)))
            yield (same,) * 6  # of nothing yielded, gradio would empty all fields
            return
        if not kept:
            self._gr.Info("No answer: neither it nor your message is in the history.")
            yield field, _conversation(talk.turns), *self._buttons(growing=False)

    def _buttons(self, growing: bool) -> list:
        """Send or stop; what changes the history waits until replies have ended."""
        update = self._gr.update
        return [update(visible=not growing), update(visible=growing), *[update(interactive=not growing)] * 2]


def _undo(talk: Talk) -> str:
    del talk.turns[-1:]
    return _conversation(talk.turns)


def _start_anew(talk: Talk) -> str:
    talk.turns.clear()
    return _conversation(talk.turns)


def _gradio() -> Any:
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when it is imported
    try:
        import gradio
    except ImportError:
        raise UserError("the web chat needs gradio: pip install -e '.[web]'") from None
    return gradio


def _choices(study: Finished, measured: Figures) -> list[tuple[str, str]]:
    """Label and id of the baseline, of every rank, and of what else the study has ablated or added."""
    ids = [BASELINE, *map(str, range(len(study.ranked.candidates)))]
    ids += [name for name in measured.of if name not in ids and parse(name).kind not in CONTROLS]

    def label(name: str) -> str:
        known = measured.of.get(name, {})
        said = [f"{known[words].split(' (')[0]} {words}" for words in _BESIDE if known.get(words)]
        return ", ".join([f"{name}: {said[0]}", *said[1:]]) if said else name

    return [(label(name), name) for name in ids]


def _table(measured: Figures, combination: str) -> str:
    """The study's figures of the baseline and a combination, a row each."""
    if not measured.of:
        return '<div class="figures">The study has no summary of these ranks yet.</div>'
    shown = {name: measured.of.get(name, {}) for name in (BASELINE, combination)}
    heads = [f"<th>{name}{'' if known else ': not measured by the study'}</th>" for name, known in shown.items()]
    rows = []
    for words in shown[BASELINE]:
        cells = "".join(f"<td>{escape(known.get(words, ''))}</td>" for known in shown.values())
        rows.append(f"<tr><td>{escape(words)}</td>{cells}</tr>")
    basis = escape(f"the study's figures (95%); {measured.basis}".removesuffix("; "))
    table = f"<caption>{basis}</caption><tr><th></th>{''.join(heads)}</tr>{''.join(rows)}"
    return f'<div class="figures"><table>{table}</table></div>'


def _conversation(turns: Sequence[Turn]) -> str:
    """Turns, the newest first."""
    said = "".join(map(_turn, reversed(turns)))
    return f'<div class="turns" role="region" aria-label="Conversation" tabindex="0">{said or _NOTHING}</div>'


def _turn(turn: Turn) -> str:
    replies = "".join(_reply(reply, turn.scores[reply.combination]) for reply in turn.replies)
    return f'<section><div class="you said">{escape(turn.prompt)}</div><div class="replies">{replies}</div></section>'


def _reply(reply: Reply, score: float) -> str:
    ending = f"<span>{ENDINGS[reply.ending]}</span>" if reply.ending in ENDINGS else ""
    head = f"<header><b>{reply.combination}</b><span>refusal score {score:+.2f}</span>{ending}</header>"
    reasoning = ""
    if reply.reasoning:
        opened, said = "" if reply.response else " open", escape(reply.reasoning)
        reasoning = f'<details{opened}><summary>reasoning</summary><div class="said">{said}</div></details>'
    grows, answer = "" if reply.ending else " grows", f'<div class="said answer">{escape(reply.response)}</div>'
    return f'<article class="reply{grows}">{head}{reasoning}{answer}</article>'
