"""Tensors of torch.save: whatever was saved comes as fp64, or a line says why not; nothing in a file is run."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from refusal.errors import UserError
from refusal.model.pickled import read_tensor

VALUES = torch.arange(24.0).reshape(2, 3, 4) / 8  # exact in every dtype


class Calls:
    """Unpickling this calls a function."""

    called = False

    def __reduce__(self):
        return (_call, ())


def _call():
    Calls.called = True
    return torch.zeros(2, 3, 4)


def saved(path, value, **options):
    torch.save(value, path, **options)
    return path


def said(path, dimensions=3):
    with pytest.raises(UserError) as caught:
        read_tensor(path, dimensions)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("zipped", [True, False])
def test_every_float(tmp_path, dtype, zipped):
    path = saved(tmp_path / "t.pt", VALUES.to(dtype), _use_new_zipfile_serialization=zipped)
    found = read_tensor(path, 3)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, VALUES.numpy())


def test_a_view_into_a_larger_storage(tmp_path):
    path = saved(tmp_path / "t.pt", VALUES[1, 2])
    assert path.stat().st_size > 500
    np.testing.assert_array_equal(read_tensor(path, 1), VALUES[1, 2].numpy())
    np.testing.assert_array_equal(read_tensor(saved(path, VALUES.transpose(0, 2)), 3), VALUES.numpy().T)


def test_a_tensor_of_a_gpu_is_read_without_one(tmp_path):
    """Its file differs by the name of the place alone."""
    path = saved(tmp_path / "t.pt", VALUES, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    place = b"X\x03\x00\x00\x00cpu"
    assert content.count(place) == 1
    path.write_bytes(content.replace(place, b"X\x06\x00\x00\x00cuda:0"))
    np.testing.assert_array_equal(read_tensor(path, 3), VALUES.numpy())


def test_a_parameter(tmp_path):
    np.testing.assert_array_equal(read_tensor(saved(tmp_path / "t.pt", torch.nn.Parameter(VALUES)), 3), VALUES.numpy())


@pytest.mark.parametrize("zipped", [True, False])
def test_code_is_not_run(tmp_path, zipped):
    path = saved(tmp_path / "t.pt", {"a": VALUES, "b": Calls()}, _use_new_zipfile_serialization=zipped)
    expected = f"{path}: holds more than tensors, and reading it could run code: save the tensor alone (torch.save)"
    assert said(path) == expected
    path.write_bytes(pickle.dumps(Calls(), protocol=2))
    assert said(path) == expected
    assert not Calls.called


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": VALUES}, "holds a dict, not one tensor: save the tensor alone (torch.save)"),
        ([VALUES], "holds a list, not one tensor: save the tensor alone (torch.save)"),
        (VALUES[0], "has 2 dimensions (3x4): 3 are needed"),
        (VALUES.sum(), "has 0 dimensions (a single number): 3 are needed"),
        (
            VALUES.int(),
            "holds a tensor of another kind (torch.int32, torch.strided): a dense one of real numbers is needed",
        ),
        (
            VALUES.to_sparse(),
            "holds a tensor of another kind (torch.float32, torch.sparse_coo): a dense one of real numbers is needed",
        ),
        (
            VALUES.to("meta"),
            "holds a tensor of another kind (torch.float32, torch.strided, without content):"
            " a dense one of real numbers is needed",
        ),
    ],
    ids=["dict", "list", "2d", "0d", "int", "sparse", "meta"],
)
def test_no_such_tensor(tmp_path, value, message):
    path = saved(tmp_path / "t.pt", value)
    assert said(path) == f"{path}: {message}"


def test_a_view_that_repeats_itself(tmp_path):
    """A kilobyte that would become terabytes."""
    path = saved(tmp_path / "t.pt", torch.zeros(1).expand(8, 10**6, 10**6))
    assert said(path) == (
        f"{path}: its tensor is larger than the file: a view that repeats itself: save the tensor whole"
    )


def test_missing(tmp_path):
    assert said(tmp_path / "t.pt") == f"{tmp_path / 't.pt'}: no such file"
    assert said(tmp_path) == f"{tmp_path}: no such file"


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\n", b"[1, 2]", bytes(600)])
def test_no_torch_file(tmp_path, content):
    (tmp_path / "t.pt").write_bytes(content)
    assert said(tmp_path / "t.pt") == (
        f"{tmp_path / 't.pt'}: not a file of torch.save, or damaged (a Git LFS pointer?): fetch it again"
    )


@given(st.booleans(), st.data())
def test_damaged_bytes_are_one_line(tmp_path, zipped, data):
    path = saved(tmp_path / "t.pt", VALUES, _use_new_zipfile_serialization=zipped)
    content = bytearray(path.read_bytes())
    places = data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=8))
    for place in places:
        content[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content[: data.draw(st.integers(len(content) // 2, len(content)))])
    try:
        found = read_tensor(path, 3)
    except UserError as error:
        found = error
    # what was damaged may be padding, or a number
    assert "\n" not in str(found) if isinstance(found, UserError) else found.ndim == 3
