"""Files are whole or not there, come back as they were written, and say what is wrong with them by line."""

import errno
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from refusal import artifacts
from refusal.errors import UserError

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)
)


def message(call, *arguments):
    with pytest.raises(UserError) as caught:
        call(*arguments)
    return str(caught.value)


@pytest.mark.parametrize(
    ("error", "named"),
    [
        (OSError(errno.ENOSPC, "full"), "mine"),
        (OSError(errno.ENOSPC, "full", "theirs"), "theirs"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "mine"),
    ],
)
def test_an_error_that_does_not_know_its_file_is_one_of_this(error, named):
    with pytest.raises(type(error)) as caught, artifacts.naming(Path("mine")):
        raise error
    assert caught.value.filename == named


class TestAtomic:
    def test_makes_folders_and_leaves_the_file_alone(self, tmp_path):
        path = tmp_path / "a" / "b" / "file.txt"
        with artifacts.atomic(path) as temporary:
            temporary.write_text("new")
            assert temporary.parent == path.parent  # on one file system, so that the replacement is atomic
            assert not path.exists()
        assert path.read_text() == "new"
        assert list(path.parent.iterdir()) == [path]
        assert path.stat().st_mode & 0o777 == 0o644

    @pytest.mark.parametrize("error", [ValueError("no"), OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
    def test_an_error_leaves_the_old_file_and_nothing_else(self, tmp_path, error):
        path = tmp_path / "file.txt"
        path.write_text("old")

        def half():
            with artifacts.atomic(path) as temporary:
                temporary.write_text("half")
                raise error

        with pytest.raises(type(error)):
            half()
        assert path.read_text() == "old"
        assert list(tmp_path.iterdir()) == [path]

    def test_a_folder_that_takes_no_file_is_said_by_the_files_name(self, tmp_path, monkeypatch):
        def closed(dir, prefix):
            raise OSError(errno.EROFS, "read-only", f"{dir}/{prefix}x1")

        monkeypatch.setattr(artifacts.tempfile, "mkstemp", closed)
        with pytest.raises(OSError, match="read-only") as caught:
            artifacts.write_json(tmp_path / "file.json", {})
        assert caught.value.filename == str(tmp_path / "file.json")

    def test_what_cannot_be_written_leaves_the_old_file(self, tmp_path):
        path = tmp_path / "rows.jsonl"
        artifacts.write_jsonl(path, [{"a": 1}])
        with pytest.raises(TypeError):
            artifacts.write_jsonl(path, [{"a": 2}, {"a": object()}])
        assert artifacts.read_jsonl(path) == [{"a": 1}]
        assert list(tmp_path.iterdir()) == [path]

    def test_copy(self, tmp_path):
        (tmp_path / "source").write_bytes(b"\x00content")
        artifacts.copy(tmp_path / "source", tmp_path / "folder" / "target")
        assert (tmp_path / "folder" / "target").read_bytes() == b"\x00content"

    @pytest.mark.parametrize(
        "write",
        [
            lambda path: artifacts.write_json(path, {"a": 1}),
            lambda path: artifacts.write_jsonl(path, [{"a": 1}]),
            lambda path: artifacts.write_tensors(path, {"x": np.ones(2)}, {}),
            lambda path: artifacts.write_table(path, pd.DataFrame({"a": [1]})),
            lambda path: artifacts.copy(path.with_name("source"), path),
        ],
        ids=["json", "jsonl", "tensors", "table", "copy"],
    )
    def test_every_writer_is_atomic(self, tmp_path, monkeypatch, write):
        """The disk fills at the last moment: the old file stays, and the error names it."""
        path = tmp_path / "file"
        path.write_text("old")
        (tmp_path / "source").write_text("new")

        def full(_self, _target):
            raise OSError(errno.ENOSPC, "full")

        with monkeypatch.context() as patch:
            patch.setattr(type(path), "replace", full)
            with pytest.raises(OSError, match="full") as caught:
                write(path)
        assert caught.value.filename == str(path)
        assert path.read_text() == "old"
        assert sorted(one.name for one in tmp_path.iterdir()) == ["file", "source"]
        write(path)
        assert path.read_bytes() != b"old"


class TestHashes:
    def test_sha256(self, tmp_path):
        (tmp_path / "empty").write_bytes(b"")
        assert (
            artifacts.sha256(tmp_path / "empty") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        )

    @given(st.dictionaries(st.text(), values, min_size=2, max_size=5))
    def test_digest_whatever_the_order_of_keys(self, value):
        assert artifacts.digest(value) == artifacts.digest(dict(reversed(value.items())))

    @given(values, values)
    def test_digest_tells_values_apart(self, first, second):
        same = json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)
        assert (artifacts.digest(first) == artifacts.digest(second)) == same


class TestJson:
    @given(values)
    def test_round_trip(self, tmp_path, value):
        artifacts.write_json(tmp_path / "value.json", value)
        assert artifacts.read_json(tmp_path / "value.json") == value

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_no_nan(self, tmp_path, value):
        for write in (artifacts.write_json, lambda path, value: artifacts.write_jsonl(path, [value])):
            with pytest.raises(ValueError, match="not JSON compliant"):
                write(tmp_path / "value.json", {"a": value})
        assert list(tmp_path.iterdir()) == []

    def test_missing(self, tmp_path):
        assert message(artifacts.read_json, tmp_path / "a.json") == f"{tmp_path / 'a.json'}: no such file"

    def test_malformed(self, tmp_path):
        (tmp_path / "a.json").write_text('{"a": 1,\n "b" 2}')
        assert message(artifacts.read_json, tmp_path / "a.json") == (
            f"{tmp_path / 'a.json'}: not valid JSON (Expecting ':' delimiter: line 2 column 6 (char 14)):"
            " delete it, and the step that makes it runs again"
        )


class TestJsonl:
    @given(st.lists(st.dictionaries(st.text(), values, max_size=3), max_size=5))
    def test_round_trip(self, tmp_path, rows):
        artifacts.write_jsonl(tmp_path / "rows.jsonl", rows)
        assert artifacts.read_jsonl(tmp_path / "rows.jsonl") == rows

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (
                '{"id": 1}\n{"id": \n',
                "line 2 is not valid JSON (Expecting value): mend it, or delete the file if a step made it",
            ),
            (
                '{"id": 1}\n\n{"id": 2}\n',
                "line 2 is not valid JSON (Expecting value): mend it, or delete the file if a step made it",
            ),
            ('{"id": 1}\n[2]\n', "line 2 is not a JSON object: write one object a line"),
            ('{"id": 1, "text": ""}\n{"id": 2}\n', "line 2 has no `text`: every line needs id, text"),
        ],
    )
    def test_faults_name_the_line(self, tmp_path, content, said):
        path = tmp_path / "rows.jsonl"
        path.write_text(content)
        fields = ("id", "text") if "text" in content else ("id",)
        assert message(artifacts.read_jsonl, path, fields) == f"{path}: {said}"

    def test_missing_or_not_text(self, tmp_path):
        path = tmp_path / "rows.jsonl"
        assert message(artifacts.read_jsonl, path) == f"{path}: no such file"
        path.write_bytes(b'{"a": "\xff"}')
        assert message(artifacts.read_jsonl, path).startswith(f"{path}: not UTF-8 text (")


class TestTensors:
    @given(
        arrays.arrays(st.sampled_from([np.float64, np.float32, np.int64]), arrays.array_shapes(min_side=0, max_side=4)),
        st.dictionaries(st.text("abc", min_size=1), values, max_size=3),
    )
    def test_round_trip(self, tmp_path, array, metadata):
        path = tmp_path / "a.safetensors"
        artifacts.write_tensors(path, {"x": array}, metadata)
        tensors, found = artifacts.read_tensors(path)
        assert found == metadata
        assert tensors["x"].dtype == array.dtype
        np.testing.assert_array_equal(tensors["x"], array)

    def test_the_same_content_is_the_same_bytes(self, tmp_path):
        """As often as needed to notice an order drawn anew for each file."""
        tensors, metadata = {"b": np.ones(3), "a": np.zeros(2)}, {name: name for name in "fbcdae"}
        for number in range(5):
            artifacts.write_tensors(tmp_path / f"{number}.safetensors", tensors, metadata)
        assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1
        assert list(artifacts.read_tensors(tmp_path / "0.safetensors")[1]) == list(metadata)

    def test_a_file_of_another_program(self, tmp_path):
        from safetensors.numpy import save_file

        path = tmp_path / "a.safetensors"
        for metadata in (None, {"format": "pt"}):
            save_file({"x": np.ones(1)}, path, metadata=metadata)
            tensors, facts = artifacts.read_tensors(path)
            assert (tensors["x"].tolist(), facts) == ([1.0], {})

    def test_missing_or_damaged(self, tmp_path):
        path = tmp_path / "a.safetensors"
        assert message(artifacts.read_tensors, path) == f"{path}: no such file"
        artifacts.write_tensors(path, {"x": np.ones(9)}, {})
        path.write_bytes(path.read_bytes()[:-5])
        said = message(artifacts.read_tensors, path)
        assert said.startswith(f"{path}: damaged safetensors (")
        assert said.endswith("): delete it, and the step that makes it runs again")


class TestTables:
    @given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=9))
    def test_floats_come_back_to_the_last_bit(self, tmp_path, floats):
        artifacts.write_table(tmp_path / "a.csv", pd.DataFrame({"x": floats}))
        found = artifacts.read_table(tmp_path / "a.csv", ("x",)).x
        assert [float(value) for value in found] == floats

    def test_floats_are_written_as_repr(self, tmp_path):
        artifacts.write_table(tmp_path / "a.csv", pd.DataFrame({"x": [0.1 + 0.2, 1e-17, -2.0]}))
        assert (tmp_path / "a.csv").read_text() == "x\n0.30000000000000004\n1e-17\n-2.0\n"

    def test_missing_is_empty_and_text_stays_text(self, tmp_path):
        table = pd.DataFrame(
            {
                "combination": ["none", "0", "0-1"],
                "note": ["NA", "null", "a, b"],
                "p": [np.nan, 0.5, 1.0],
                "rank": pd.array([pd.NA, 0, 1], dtype="Int64"),
            }
        )
        artifacts.write_table(tmp_path / "a.csv", table)
        assert (tmp_path / "a.csv").read_text().splitlines()[1] == "none,NA,,"
        found = artifacts.read_table(tmp_path / "a.csv")
        assert list(found.combination) == ["none", "0", "0-1"]
        assert list(found.note) == ["NA", "null", "a, b"]
        assert found.p.isna().tolist() == found["rank"].isna().tolist() == [True, False, False]

    def test_a_table_of_singles_keeps_its_names(self, tmp_path):
        artifacts.write_table(tmp_path / "a.csv", pd.DataFrame({"combination": ["0", "10"]}))
        assert list(artifacts.read_table(tmp_path / "a.csv").combination) == ["0", "10"]

    def test_faults(self, tmp_path):
        path = tmp_path / "a.csv"
        assert message(artifacts.read_table, path) == f"{path}: no such file"
        path.write_text("")
        assert message(artifacts.read_table, path) == (
            f"{path}: not a CSV table (No columns to parse from file): delete it and run again"
        )
        path.write_text("a,b\n1,2\n")
        assert message(artifacts.read_table, path, ("a", "kl")) == f"{path}: no column `kl`; it has a, b"
