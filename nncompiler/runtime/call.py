"""Calls into native code: memory, pointers, and calls whose arguments are checked or bound.

`Call` checks and converts its arrays every time, `FreshCall` only looks whether they are as they
should be; `BoundCall` did so once and only calls.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from nncompiler.errors import CompilerBug, UserError
from nncompiler.runtime import checks
from nncompiler.runtime.artifact import Native
from nncompiler.runtime.checks import Array
from nncompiler.runtime.manifest import Argument, Entry, describe

if TYPE_CHECKING:
    import numpy.typing as npt

ALIGNMENT = 64
INDEX_OUT_OF_RANGE = 1
_CODES = {2: "wrong size", 3: "a pointer is not aligned"}

_empty = np.empty
_byref = ctypes.byref
_char: Callable[[Any], Any] = ctypes.c_char.from_buffer


def aligned(size: int) -> Array:
    """`size` bytes of zeros at a multiple of 64."""
    memory = np.zeros(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size]


def pointer(array: Array, offset: int = 0) -> Any:
    """A pointer into a C-contiguous array, for a native call; keeps the array alive."""
    if array.flags.writeable and array.nbytes:
        # Twice as fast as the address; NumPy gives a buffer of bytes only where it may be written.
        return _byref(_char(array), offset)
    address = ctypes.c_void_p(array.ctypes.data + offset)
    address.array = array  # type: ignore[attr-defined]
    return address


def check_code(
    code: int, symbol: str, given: Mapping[str, Array], arguments: tuple[Argument, ...]
) -> None:  # fmt: skip
    """Raise the error that a native function returned, if any."""
    if code == INDEX_OUT_OF_RANGE:
        raise checks.out_of_range(given, arguments)
    if code:
        what = _CODES.get(code, "an unknown code")
        raise CompilerBug("NN0690", f"'{symbol}' returned {code}: {what}")


class Call:
    """One entry point over one state. Calling it checks the arrays; results are overwritten.

    `results` are arrays that belong to the call: read or copy them before the next one.
    """

    __slots__ = (
        "_arguments", "_first", "_given", "_known", "_last", "_native", "entry", "results",
    )  # fmt: skip

    def __init__(
        self, entry: Entry, native: Native, memory: tuple[Any, ...], known: tuple[str, ...]
    ) -> None:
        self.entry = entry
        self.results = {a.name: np.zeros(a.shape, a.dtype) for a in entry.results}
        self._native = native
        self._known = known
        self._first = len(memory)
        self._given = tuple((a.name, a.dtype, a.shape) for a in entry.given)
        self._last: list[object] = [None] * (len(memory) + len(self._given))
        outputs = [pointer(array) for array in self.results.values()]
        self._arguments = [*memory, *(None for _ in self._given), *outputs]

    def __call__(self, arrays: Mapping[str, npt.ArrayLike]) -> None:
        arguments, last, at = self._arguments, self._last, self._first
        for name, dtype, shape in self._given:
            array = arrays.get(name)
            if (
                type(array) is np.ndarray
                and array.dtype is dtype and array.shape == shape
                and array.flags.carray
            ):  # fmt: skip
                # The address of an array does not change as long as there is a pointer to it.
                if array is not last[at]:
                    arguments[at], last[at] = _byref(_char(array)), array
            else:
                arguments[at], last[at] = pointer(self._check(arrays, name)), None
            at += 1
        if len(arrays) != len(self._given):
            checks.names(arrays, [name for name, _, _ in self._given], self._known)
        if code := self._native(*arguments):
            given = {a.name: self._check(arrays, a.name) for a in self.entry.given}
            check_code(code, self.entry.symbol, given, self.entry.given)

    def _check(self, arrays: Mapping[str, npt.ArrayLike], name: str) -> Array:
        checks.names(arrays, [n for n, _, _ in self._given], self._known)
        argument = next(a for a in self.entry.given if a.name == name)
        return checks.array(arrays[name], argument, self.entry.rows)


class FreshCall:
    """One entry point over one state, for arrays that are as native code reads them. Its results
    are new arrays at each call.
    """

    __slots__ = ("_given", "_last", "_memory", "_native", "_pointers", "_results", "entry")

    def __init__(self, entry: Entry, native: Native, memory: tuple[Any, ...]) -> None:
        self.entry = entry
        self._native, self._memory = native, memory
        self._given = tuple((a.name, a.dtype, a.shape) for a in entry.given)
        self._results = tuple((a.name, a.dtype, a.shape) for a in entry.results)
        self._pointers: list[Any] = [None] * len(self._given)
        self._last: list[object] = [None] * len(self._given)

    def __call__(self, arrays: Mapping[str, object]) -> dict[str, Array] | None:
        """The results by name; None where `arrays` are others, or need more than a look."""
        if len(arrays) != len(self._given):
            return None
        pointers, last = self._pointers, self._last
        for at, (name, dtype, shape) in enumerate(self._given):
            array = arrays.get(name)
            if not (
                type(array) is np.ndarray
                and array.dtype is dtype and array.shape == shape
                and array.flags.carray
            ):  # fmt: skip
                return None
            if array is not last[at]:
                pointers[at], last[at] = _byref(_char(array)), array
        arguments = [*self._memory, *pointers]
        results = {}
        for name, dtype, shape in self._results:
            results[name] = array = _empty(shape, dtype)
            arguments.append(_byref(_char(array)))
        if code := self._native(*arguments):
            given = {name: arrays[name] for name, _, _ in self._given}
            check_code(code, self.entry.symbol, given, self.entry.given)  # type: ignore[arg-type]
        return results


class BoundCall:
    """A prepared call: all arguments are fixed; `call()` runs the native function, nothing else.

    The arrays given are read (and results written) in place at each call: change their contents,
    not the arrays. It has an arena of its own, so bound calls of `infer` may run in several
    threads. `results` holds the outputs by name.
    """

    __slots__ = ("_call", "_given", "entry", "results")

    def __init__(
        self, entry: Entry, native: Native, memory: tuple[Any, ...], arrays: Mapping[str, Array]
    ) -> None:
        checks.names(arrays, [a.name for a in entry.given], [a.name for a in entry.arguments])
        self.entry = entry
        self._given = {a.name: in_place(arrays[a.name], a) for a in entry.given}
        self.results = {
            a.name: in_place(arrays[a.name], a, write=True)
            if a.name in arrays else np.zeros(a.shape, a.dtype)
            for a in entry.results
        }  # fmt: skip
        pointers = map(pointer, (*self._given.values(), *self.results.values()))
        self._call = partial(native, *memory, *pointers)

    def __call__(self) -> None:
        if code := self._call():
            check_code(code, self.entry.symbol, self._given, self.entry.given)


def in_place(array: object, argument: Argument, write: bool = False) -> Array:
    """`array`, if native code may use its memory as it is; otherwise a `UserError`."""
    if not isinstance(array, np.ndarray):
        found = f"{type(array).__name__}"
    elif array.dtype != argument.dtype or array.shape != argument.shape:
        found = describe(array.dtype, array.shape)
    elif not (array.flags.c_contiguous and array.flags.aligned):
        found = "an array that is not contiguous"
    elif write and not array.flags.writeable:
        found = "an array that is read-only"
    else:
        return array
    raise UserError(
        "NN0714", f"expected {argument.role} '{argument.name}' to be an array {argument}, used in "
        f"place at every call, but found {found}",
        help=f"make it with np.ascontiguousarray(array, dtype='{argument.dtype}')",
    )  # fmt: skip
