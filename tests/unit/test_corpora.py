"""Corpora from files: the first rows, with the fields of their format, or the fault by row."""

import json

import pytest

from refusal.corpora import read_hub, read_local
from refusal.errors import UserError

CHAT = [{"instruction": "a", "response": "b", "more": 1}, {"instruction": "c", "response": "d"}]


def message(*arguments):
    with pytest.raises(UserError) as caught:
        read_local(*arguments)
    return str(caught.value)


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_first_rows_with_the_fields_of_the_format(tmp_path):
    path = written(tmp_path / "chat.jsonl", CHAT)
    assert read_local(path, "chat", 1) == [{"instruction": "a", "response": "b"}]
    assert read_local(path, "chat", 2)[1] == {"instruction": "c", "response": "d"}


def test_paragraphs_of_a_text_file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("one\nline\n\n\n\n two \n\nthree")
    assert read_local(path, "text", 3) == [{"text": "one\nline"}, {"text": "two"}, {"text": "three"}]


def test_fewer_rows_than_asked(tmp_path):
    path = written(tmp_path / "chat.jsonl", CHAT)
    assert message(path, "chat", 3) == f"{path}: 3 rows are asked for and it has 2: lower `rows` of this corpus"


@pytest.mark.parametrize("value", ["", " ", None, 3])
def test_an_empty_field(tmp_path, value):
    path = written(tmp_path / "chat.jsonl", [CHAT[0], {"instruction": "c", "response": value}])
    assert message(path, "chat", 2) == f"{path}: row 2: `response` is empty or no text: mend or remove it"
    assert read_local(path, "chat", 1)  # not among the rows that are used


def test_missing_files_fields_and_other_endings(tmp_path):
    for name in ("gone.txt", "gone.jsonl"):
        assert message(tmp_path / name, "text", 1) == f"{tmp_path / name}: no such file"
    path = written(tmp_path / "text.jsonl", [{"content": "a"}])
    assert message(path, "text", 1) == f"{path}: line 1 has no `text`: every line needs text"
    path = tmp_path / "text.csv"
    assert message(path, "text", 1) == f"{path}: a text corpus is a .jsonl file or a .txt file"
    path = tmp_path / "chat.txt"
    assert message(path, "chat", 1) == f"{path}: a chat corpus is a .jsonl file"


class TestHub:
    """The data set itself is never asked for here."""

    @pytest.fixture
    def stream(self, monkeypatch):
        rows = [
            {"instruction": "a", "input": "context", "output": "no"},
            {"instruction": "b", "input": "", "output": "yes"},
            {"instruction": "c", "output": "also"},
        ]
        asked, read = [], []

        def load_dataset(*arguments, **options):
            asked.append((arguments, options))
            return (read.append(row) or row for row in [*rows, {"instruction": "d", "output": ""}])

        import datasets

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        return asked, read

    def test_alpaca_rows_without_context_and_no_more_than_needed(self, stream):
        asked, read = stream
        assert read_hub("a/b", None, "train", "abc", "chat", 2) == [
            {"instruction": "b", "response": "yes"},
            {"instruction": "c", "response": "also"},
        ]
        assert asked == [(("a/b", None), {"split": "train", "revision": "abc", "streaming": True})]
        assert len(read) == 3

    def test_faults(self, stream):
        with pytest.raises(UserError) as caught:
            read_hub("a/b", None, "train", None, "chat", 3)
        assert str(caught.value) == "a/b: row 3: `response` is empty or no text: mend or remove it"
        with pytest.raises(UserError) as caught:
            read_hub("a/b", None, "train", None, "chat", 9)
        assert str(caught.value) == "a/b: 9 rows are asked for and it has 3: lower `rows` of this corpus"
