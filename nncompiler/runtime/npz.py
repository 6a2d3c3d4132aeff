"""`.npz` files: read without trust, nothing in one is ever executed; the same arrays give the same
bytes."""

from __future__ import annotations

import errno
import zipfile
from collections.abc import Mapping
from typing import BinaryIO

import numpy as np

from nncompiler.runtime.checks import Array, Path

#: The array of a checkpoint that says, in JSON, how far training is.
TRAINING = "training"


def write_npz(stream: BinaryIO, arrays: Mapping[str, Array]) -> None:
    """Write an uncompressed file."""
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, array in arrays.items():
            # ZipInfo dates a member 1980 unless told; `np.savez` cannot take the name 'file'.
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)


def read_npz(path: Path) -> dict[str, Array]:
    """Every array by name; `OSError`, or `ValueError` where the file is no such one."""
    with open(path, "rb") as stream:
        try:
            # np.load, given a path, leaves the file open when it is damaged.
            file = np.load(stream, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise ValueError("it holds a single array")
            with file:
                arrays = {name: file[name] for name in file.files}
        except OSError as error:
            if error.errno in (None, errno.EINVAL):  # bad data of bz2, a place before the file
                raise ValueError(str(error)) from None
            raise
        except Exception as error:
            # Of damaged files, NumPy and its readers of archives raise almost anything: errors of
            # its tokenizer, of every kind of compression, an IndexError.
            raise ValueError(str(error)) from None
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise ValueError(f"its member '{name}' is not an array")
    return arrays


def reason(error: Exception) -> str:
    """What `error` says of why a file cannot be read, if anything."""
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    if holds_objects(error):
        return "it holds Python objects"
    # NumPy takes anything that is neither .npy nor .npz for a pickle.
    return "" if "pickle" in text else text


def holds_objects(error: Exception) -> bool:
    """Whether the file has an array of Python objects."""
    return "Object arrays" in str(error)


def is_checkpoint(arrays: Mapping[str, Array]) -> bool:
    """Whether the file has a place in training beside the tensors of the state."""
    return TRAINING in arrays and any(name.startswith("header/") for name in arrays)
