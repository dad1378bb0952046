"""Plots as part of a page: SVG that takes the page's colours, without anything that could run or load."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from markupsafe import Markup

from refusal.artifacts import read_json
from refusal.errors import UserError

_SVG = "http://www.w3.org/2000/svg"
_LINK = "{http://www.w3.org/1999/xlink}href"
_LEFT_OUT = {f"{{{_SVG}}}{name}" for name in ("script", "foreignObject", "metadata", "style")}
_POINT = 4 / 3  # px

ElementTree.register_namespace("", _SVG)
ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")


@dataclass(frozen=True)
class Figure:
    """name: of its file; svg: to be put into a page; width: px, as drawn."""

    name: str
    title: str
    caption: str
    alt: str
    svg: Markup
    width: int


def read_figures(captions: Path) -> Iterator[Figure]:
    """The plots that a file of captions names, in its order: NAME -> `title`, `caption`, `alt`; NAME.svg beside it.

    Raises: UserError, a plot that is missing, damaged, or without one of these.
    """
    for name, words in read_json(captions).items():
        if missing := [key for key in ("title", "caption", "alt") if key not in words]:
            raise UserError(f"{captions}: {name} has no `{missing[0]}`: draw the plots again")
        path = captions.with_name(f"{name}.svg")
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise UserError(f"{path}: no such file: draw the plots again") from None
        svg, width = embedded(text, words["alt"], str(path))
        yield Figure(name, words["title"], words["caption"], words["alt"], svg, width)


def embedded(text: str, alt: str, where: str) -> tuple[Markup, int]:
    """SVG as an element of a page, and its width in px; where: it is from, for errors.

    What could run, load or restyle the page is left out: scripts, handlers, addresses, style sheets.
    """
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise UserError(f"{where}: not an SVG file ({error}): draw the plots again") from None
    if "viewBox" not in root.attrib:
        raise UserError(f"{where}: the SVG has no viewBox: draw the plots again")
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in _LEFT_OUT:
                parent.remove(child)
        for key, value in list(parent.attrib.items()):
            link = key in ("href", _LINK)
            if key.lower().startswith("on") or (link and not value.startswith(("#", "data:image/"))):
                del parent.attrib[key]
    width = _px(root.attrib.pop("width", ""), float(root.attrib["viewBox"].split()[2]))
    root.attrib.pop("height", None)
    root.attrib |= {"role": "img", "aria-label": alt}
    return Markup(ElementTree.tostring(root, encoding="unicode")), width


def _px(length: str, otherwise: float) -> int:
    if length.endswith("pt"):
        return round(float(length.removesuffix("pt")) * _POINT)
    return round(float(length.removesuffix("px") or otherwise))
