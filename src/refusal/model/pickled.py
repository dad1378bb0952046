"""Tensors of other programs' .pt files, without running what such a file may hold."""

import pickle
import warnings
from pathlib import Path

import numpy as np
import torch

from refusal.errors import UserError

_UNSAFE = ("Unsupported global", "unsupported GLOBAL", "Trying to call", "Can only build", "Can only create")
"""How torch speaks of a pickle that asks for more than tensors, as against bytes that are no pickle."""


def read_tensor(path: Path, dimensions: int) -> np.ndarray:
    """The one tensor of a file of torch.save, whatever device it was on and whatever storage it is a view of.

    Args:
        dimensions: how many the tensor must have.
    Returns: fp64, of the tensor's shape.
    Raises: UserError, missing, not a file of torch, unsafe content, not one tensor of real floats, other dimensions.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a damaged file torch may warn first; the error below says it
            loaded = torch.load(path, weights_only=True, map_location="cpu")
    except OSError:
        raise
    except pickle.UnpicklingError as error:
        if any(sign in str(error) for sign in _UNSAFE):
            raise UserError(
                f"{path}: holds more than tensors, and reading it could run code: save the tensor alone (torch.save)"
            ) from None
        raise UserError(_unreadable(path)) from None
    except Exception as error:  # damaged bytes make torch raise nearly anything: 11 classes were seen
        raise UserError(_unreadable(path)) from error
    if not isinstance(loaded, torch.Tensor):
        raise UserError(f"{path}: holds a {type(loaded).__name__}, not one tensor: save the tensor alone (torch.save)")
    if loaded.layout is not torch.strided or loaded.is_meta or not loaded.is_floating_point():
        kind = f"{loaded.dtype}, {loaded.layout}{', without content' if loaded.is_meta else ''}"
        raise UserError(f"{path}: holds a tensor of another kind ({kind}): a dense one of real numbers is needed")
    if loaded.numel() * loaded.element_size() > path.stat().st_size:
        raise UserError(
            f"{path}: its tensor is larger than the file: a view that repeats itself: save the tensor whole"
        )
    if loaded.ndim != dimensions:
        shape = "x".join(map(str, loaded.shape)) or "a single number"
        raise UserError(f"{path}: has {loaded.ndim} dimensions ({shape}): {dimensions} are needed")
    return loaded.detach().to(torch.float64).numpy()


def _unreadable(path: Path) -> str:
    return f"{path}: not a file of torch.save, or damaged (a Git LFS pointer?): fetch it again"
