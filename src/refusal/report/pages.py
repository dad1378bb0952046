"""From data and templates to one HTML file that loads nothing and runs nothing but its own script."""

import base64
import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

_FOLDER = Path(__file__).parent
ASSETS = tuple(sorted(path for kind in ("html", "css", "js") for path in _FOLDER.glob(f"*.{kind}")))
"""The files that pages are made of, beside code."""


def render(template: str, scripts: Sequence[str], values: Mapping[str, Any]) -> bytes:
    """A page.

    Args:
        template: its file here. scripts: NAME.js of each, in order. values: of the template; text is escaped.
    """
    style = _text("style.css")
    script = "\n".join(['"use strict";', *(_text(f"{name}.js") for name in scripts)])
    page = _environment().get_template(template)
    text = page.render({**values, "style": Markup(style), "script": Markup(script), "policy": policy(style, script)})
    # half an emoji, as a model may write it, has no UTF-8
    return text.encode("utf-8", "replace")


def policy(style: str, script: str) -> str:
    """A content security policy by which nothing is loaded, and no other script runs or style sheet holds.

    Attributes may style: plots have them by the thousand, and with nothing to load they can do no more.
    """
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src '{_hash(script)}'",
            f"style-src-elem '{_hash(style)}'",
            "style-src-attr 'unsafe-inline'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
        ]
    )


def packed(value: Any) -> str:
    """Plain data for a script to unpack: JSON, gzip, base64; letters, digits, +, / and = alone."""
    return base64.b64encode(gzip.compress(json.dumps(value, separators=(",", ":")).encode(), mtime=0)).decode()


def as_yaml(value: Any) -> str:
    """Settings as a person would write them."""
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100)


def duration(seconds: float) -> str:
    """12 s, 3 min 7 s, 2 h 5 min."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"yaml": as_yaml, "duration": duration}
    return made


def _text(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
