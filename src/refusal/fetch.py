"""Published prompt sets: fetched from their repository or a mirror, and kept only if their sha256 is right."""

import csv
import difflib
import logging
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pooch

from refusal.artifacts import atomic
from refusal.errors import UserError

log = logging.getLogger("refusal")

_COLUMNS = ("path", "bytes", "sha256", "rows")
_ATTEMPTS = 3
_PAUSE = 1.0  # seconds; times 1, 2, ... between attempts


@dataclass(frozen=True)
class Published:
    """A row of data/published.csv: a file's path under the base, its size in bytes, hash, and number of prompts."""

    path: str
    bytes: int
    sha256: str
    rows: int


def read_registry(path: Path) -> dict[str, Published]:
    """The published files by path.

    Args:
        path: CSV with columns path, bytes, sha256, rows; lines that begin with # are comments.
    Raises: UserError, no such file, other columns, or a row that cannot be read.
    """
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file: give the table of published files, data/published.csv") from None
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line and not line.startswith("#")]
    table = csv.reader(line for _, line in numbered)
    if tuple(next(table, ())) != _COLUMNS:
        raise UserError(f"{path}: the first line must name the columns {','.join(_COLUMNS)}")
    registry = {}
    for (number, line), row in zip(numbered[1:], table, strict=True):
        if len(row) != len(_COLUMNS) or not re.fullmatch("[0-9a-f]{64}", row[2]) or not (row[1] + row[3]).isdecimal():
            raise UserError(f"{path}: line {number}: {line!r}: give a path, bytes, 64 small hexadecimal digits, rows")
        registry[row[0]] = Published(row[0], int(row[1]), row[2], int(row[3]))
    return registry


def fetch(name: str, registry: Path, base: str, output: Path, timeout: float = 30.0) -> None:
    """Make `output` the published file `name`, or leave it as it is.

    An output with the right hash is kept, without a request; one with another hash is replaced.

    Args:
        name: a path in the registry.
        registry: the table of published files; see `read_registry`.
        base: what `name` is appended to: an http(s) address, or a folder (a mirror for machines without the network).
        output: written whole or not at all.
        timeout: seconds to wait for the server to connect, and between parts of its answer.
    Raises: UserError, an unknown name, a base that cannot be reached or lacks the file, a connection that breaks off
        each time, or content with another hash.
    """
    published = _find(name, registry)
    if output.exists():
        if _sha256(output) == published.sha256:
            log.info("%s: kept, its sha256 is right", output)
            return
        log.warning("%s: its sha256 is not that of %s: fetching it again", output, registry)
    remote = "://" in base
    source = f"{base.rstrip('/')}/{quote(name)}" if remote else str(Path(base).expanduser() / name)
    with atomic(output) as part:
        if remote:
            _download(source, part, timeout)
        else:
            _copy(source, part)
        found = _sha256(part)
        if found != published.sha256:
            raise UserError(
                f"{source}: wrong content, not kept: expected sha256 {published.sha256} ({published.bytes} bytes), "
                f"got {found} ({part.stat().st_size} bytes); see that its origin has the version that {registry} lists"
            )
    log.info("%s: fetched from %s, %d bytes", output, source, published.bytes)


def _find(name: str, path: Path) -> Published:
    registry = read_registry(path)
    if name not in registry:
        near = difflib.get_close_matches(name, registry)
        known = f"near matches are {', '.join(near)}" if near else f"it has {', '.join(registry)}"
        raise UserError(f"'{name}' is not in {path}: {known}")
    return registry[name]


def _copy(source: str, part: Path) -> None:
    try:
        shutil.copyfile(source, part)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"{source}: no such file in the mirror: copy it there, or change datasets.mirror in config/config.yaml"
        ) from None


def _download(url: str, part: Path, timeout: float) -> None:
    # Not pooch's own retry: it also asks again for what is not there (404) or is another version (wrong hash).
    from requests.exceptions import ChunkedEncodingError, HTTPError, InvalidSchema, RequestException

    download = pooch.HTTPDownloader(timeout=timeout, chunk_size=1 << 16)
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return download(url, part, None)
        except InvalidSchema:
            raise UserError(f"{url}: not an http(s) address: give one, or a folder") from None
        except HTTPError as error:
            status = error.response.status_code
            problem = (
                f"{url}: the server answers {status} {error.response.reason}; "
                "set datasets.mirror in config/config.yaml to a folder or URL that has it"
            )
            if status < 500 and status != 429:
                raise UserError(problem) from None
        except ChunkedEncodingError as error:
            problem = f"{url}: the connection broke off: {_root(error)}; nothing was kept: run again"
        except RequestException as error:
            problem = (
                f"cannot reach {url}: {_root(error)}; "
                "set datasets.mirror in config/config.yaml to a folder or URL that has it, or connect"
            )
        if attempt < _ATTEMPTS:
            log.info("%s: attempt %d of %d failed; trying again", url, attempt, _ATTEMPTS)
            time.sleep(_PAUSE * attempt)
    raise UserError(problem)


def _root(error: BaseException) -> str:
    """What happened at the bottom of a chain of library errors, in a line: requests' own text is a wall."""
    while deeper := error.__cause__ or error.__context__:
        error = deeper
    return " ".join(str(error).split()) or type(error).__name__


def _sha256(path: Path) -> str:
    return pooch.file_hash(str(path), alg="sha256")
