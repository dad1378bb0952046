"""What of settings and paths is for other eyes: no secrets, no folders of this machine, no user's name."""

import re
from collections.abc import Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any
from urllib.parse import urlsplit, urlunsplit

HIDDEN = "(not shown)"

_SECRET = re.compile(r"(^|_)(key|token|secret|password|credentials?)$", re.IGNORECASE)
_HOME = re.compile(r"(/home/|/Users/|[A-Za-z]:\\Users\\)[^\s/\\:\"']+")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S+")


def discreet(value: Any) -> Any:
    """Plain data without what a page that is handed on must not hold.

    Of absolute paths the last part is left, of addresses no user, password or query, of home folders no name; values of
    keys that name a secret are not shown.
    """
    if isinstance(value, Mapping):
        return {
            discreet(key): HIDDEN if _SECRET.search(str(key)) and isinstance(one, str) else discreet(one)
            for key, one in value.items()
        }
    if isinstance(value, list | tuple):
        return [discreet(one) for one in value]
    return _text(value) if isinstance(value, str) else value


def _text(text: str) -> str:
    if "\n" not in text:
        if text.startswith(("/", "~/")) and len(PurePosixPath(text).parts) > 1:
            return f".../{PurePosixPath(text).name}"
        if re.match(r"[A-Za-z]:\\", text):
            return f".../{PureWindowsPath(text).name}"
    return _HOME.sub("~", _ADDRESS.sub(_address, text))


def _address(found: re.Match) -> str:
    parts = urlsplit(found[0])
    if parts.scheme == "file":
        return f".../{PurePosixPath(parts.path).name}"
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
