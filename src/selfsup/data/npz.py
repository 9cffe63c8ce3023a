"""Arrays of .npz files, read without unpickling."""

from __future__ import annotations

import math
import os
import tokenize
import zlib
from typing import Any
from zipfile import ZIP_STORED, BadZipFile, ZipFile, ZipInfo

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from selfsup.errors import UserError

EASY, DENSE = 1 << 30, 100  # bytes that are always unpacked; beyond that, the largest ratio of unpacked to packed bytes

OBJECTS = "it holds Python objects, which are not read: save an array of numbers, or of texts"


def read_npz(path: str, name: str) -> NDArray[Any] | None:
    """Return an array of an .npz file, None if there is none of that name. Nothing is unpickled."""
    try:
        with open(path, "rb") as file:
            if file.read(len(npy.MAGIC_PREFIX)) == npy.MAGIC_PREFIX:
                raise ValueError("it is a single array; save it with numpy.savez(path, x=images)")
        with ZipFile(path) as archive:
            member = f"{name}.npy"
            if member not in archive.NameToInfo:
                return None
            _check_npy(archive, archive.getinfo(member))
            with archive.open(member) as stored:
                return npy.read_array(stored, allow_pickle=False)
    except _NPZ_ERRORS as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{path} is not a readable .npz file: {reason}") from None


def npz_names(path: str) -> str:
    """Return a line on which arrays an .npz file holds instead of those that are needed."""
    with ZipFile(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
    return f"it holds {', '.join(map(repr, names[:8])) or 'none'}"


def read_npy(path: str) -> NDArray[Any]:
    """Return the array of a .npy file. Nothing is unpickled."""
    try:
        size = os.path.getsize(path)
        with open(path, "rb") as file:
            version = npy.read_magic(file)
            if version not in ((1, 0), (2, 0)):
                raise ValueError(f"it has an array of the format {version}")
            shape, _, dtype = (npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0)(file)
            if math.prod(shape) * dtype.itemsize > size:
                raise ValueError(f"it declares an array of {shape} {dtype} in {size:,} bytes")
            if dtype.hasobject:
                raise ValueError(OBJECTS)
            if 0 not in shape and dtype.itemsize:
                return np.load(path, mmap_mode="r", allow_pickle=False)  # of many images only those that are read
            file.seek(0)
            return npy.read_array(file, allow_pickle=False)
    except _NPZ_ERRORS as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{path} is not a readable .npy file: {reason}") from None


def _check_npy(archive: ZipFile, about: ZipInfo) -> None:
    """Raise `ValueError` for an array that declares more than its file can hold, before memory is allocated."""
    with archive.open(about) as file:
        version = npy.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"it has an array of the format {version}")
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read(file)
    if dtype.hasobject:
        raise ValueError(OBJECTS)
    declared = math.prod(shape) * max(dtype.itemsize, 1)
    size = os.path.getsize(archive.filename or "")
    packed = min(about.compress_size, size)
    most = packed if about.compress_type == ZIP_STORED else max(packed * DENSE, EASY)
    if declared > most:
        raise ValueError(f"it declares an array of {shape} {dtype} in {size:,} bytes")


# everything that numpy and zipfile raise for a file that is damaged or that they cannot read
_NPZ_ERRORS = (
    OSError, ValueError, EOFError, KeyError, TypeError, SyntaxError, MemoryError, NotImplementedError, RuntimeError,
    OverflowError, BadZipFile, zlib.error, tokenize.TokenError,
)  # fmt: skip
