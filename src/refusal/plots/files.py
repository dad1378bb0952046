"""Figures as files: SVG in the colour of the page it stands in, PNG on white; the same figure gives the same bytes."""

import re
from io import BytesIO, StringIO

from matplotlib import rc_context
from matplotlib.figure import Figure

from refusal.plots.style import FOREGROUND, TOOLTIP, styled

_DPI = 200
_STYLE = "stroke-linejoin: round; stroke-linecap: butt"


def svg(figure: Figure, name: str) -> str:
    """A figure as an SVG element that can stand in a page beside others.

    Text is text, and what is drawn in the foreground has the page's colour; ids begin with `name`. Neither a date nor a
    style sheet, which would hold for the whole page.
    """
    file = StringIO()
    with styled(), rc_context({"svg.hashsalt": name}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    figure.set_layout_engine("none")  # all has its place now
    text = re.sub(r"^.*?(?=<svg )", "", file.getvalue(), flags=re.DOTALL)
    text = re.sub(r" *<metadata>.*?</metadata>\n", "", text, flags=re.DOTALL)
    text, found = re.subn(r" *<defs>\s*<style [^>]*>\*\{[^}]*\}</style>\s*</defs>\n", "", text)
    assert found == 1, "matplotlib's style sheet is not where it was"
    text = text.replace("<svg ", f'<svg style="{_STYLE}" ', 1).replace(FOREGROUND, "currentColor")
    text = re.sub(rf"<g id=([\"']){TOOLTIP}(.*?)\1>", r'<g pointer-events="all"><title>\2</title>', text)
    return re.sub(r'(\bid="|"#|url\(#)', rf"\g<1>{name}-", text)


def png(figure: Figure) -> bytes:
    """A figure as a PNG on white."""
    file = BytesIO()
    with styled():
        figure.savefig(file, format="png", dpi=_DPI, facecolor="white", metadata={"Software": None})
    return file.getvalue()
