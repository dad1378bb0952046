"""Files in and out: whole or not at all, and read with errors that name the row."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refusal.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

_FACTS = "facts"


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it takes the place of `path` only if the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        error.filename = str(path)  # nobody knows the temporary one
        raise
    os.close(handle)
    temporary = Path(name)
    try:
        with naming(path):
            yield temporary
            temporary.chmod(0o644)
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Within the block, an error of the system that does not know its file (a write's) is one of `path`."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # of libraries in Rust too, whose errors are no OSError
        error.filename = getattr(error, "filename", None) or str(path)
        raise


def copy(source: Path, path: Path) -> None:
    """Copy a file, atomically."""
    with atomic(path) as temporary:
        shutil.copyfile(source, temporary)


def sha256(path: Path) -> str:
    """Hash of a file's content, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value: Any) -> str:
    """Hash of a JSON-able value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON; NaN and infinity are refused, since JSON has none."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises: UserError, missing or malformed, with the line.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid JSON ({error}): delete it, and the step that makes it runs again") from None


def write_jsonl(path: Path, rows: list[dict]) -> None:
    """Write one JSON object a line."""
    with atomic(path) as temporary, temporary.open("w") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")


def read_jsonl(path: Path, fields: tuple[str, ...] = ()) -> list[dict]:
    """Read one JSON object a line; each must have `fields`.

    Raises: UserError that names the file and the line.
    """
    try:
        text = path.read_text()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error})") from None
    rows = []
    # not splitlines(): it also splits at separators that may stand in a response (U+0085, U+2028)
    for number, line in enumerate(text.removesuffix("\n").split("\n") if text else (), 1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(
                f"{path}: line {number} is not valid JSON ({error.msg}): mend it, or delete the file if a step made it"
            ) from None
        if not isinstance(row, dict):
            raise UserError(f"{path}: line {number} is not a JSON object: write one object a line")
        if missing := [field for field in fields if field not in row]:
            raise UserError(f"{path}: line {number} has no `{missing[0]}`: every line needs {', '.join(fields)}")
        rows.append(row)
    return rows


def write_tensors(path: Path, tensors: "Mapping[str, np.ndarray]", metadata: Mapping[str, Any]) -> None:
    """Write arrays as safetensors, with metadata of any JSON-able values; the same content gives the same bytes."""
    from safetensors.numpy import save

    # under one key: safetensors writes several in an order that differs from run to run
    encoded = {_FACTS: json.dumps(dict(metadata), ensure_ascii=False)}
    with atomic(path) as temporary:
        # written by Python, so that a full disk is the OSError that it is elsewhere
        temporary.write_bytes(save(dict(tensors), metadata=encoded))


def read_tensors(path: Path) -> "tuple[dict[str, np.ndarray], dict[str, Any]]":
    """Arrays and metadata of a file of `write_tensors`; arrays alone of another program's.

    Raises: UserError, missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            metadata = json.loads((file.metadata() or {}).get(_FACTS, "{}"))
            return {key: file.get_tensor(key) for key in file.keys()}, metadata  # noqa: SIM118 (not a dict)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (SafetensorError, json.JSONDecodeError) as error:
        message = f"{path}: damaged safetensors ({error}): delete it, and the step that makes it runs again"
        raise UserError(message) from None


def write_table(path: Path, table: "pd.DataFrame") -> None:
    """Write a table as CSV, floats in full precision (repr), missing values empty."""
    with atomic(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")


def read_table(path: Path, columns: tuple[str, ...] = ()) -> "pd.DataFrame":
    """Read a CSV that has `columns`; an empty cell is a missing value, text stays text.

    Raises: UserError that names the file and the column.
    """
    import pandas as pd

    try:
        table = pd.read_csv(path, keep_default_na=False, na_values=[""], dtype={"combination": str})
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a CSV table ({error}): delete it and run again") from None
    if missing := [column for column in columns if column not in table]:
        raise UserError(f"{path}: no column `{missing[0]}`; it has {', '.join(table.columns)}")
    return table
