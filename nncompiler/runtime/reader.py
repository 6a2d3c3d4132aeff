"""Typed access to JSON that may be anything: whatever is not as expected is a `UserError`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, TypeVar

from nncompiler.errors import UserError

_LIMIT = 2**48
_T = TypeVar("_T")


class Reader:
    """Typed access to a JSON object; `place` says where in the manifest it is."""

    def __init__(self, items: Any, where: str, place: str) -> None:
        self.where, self.place = where, place
        if not isinstance(items, dict):
            raise self.malformed("expected an object")
        self.items: dict[str, Any] = items

    def malformed(self, what: str, key: str = "") -> UserError:
        place = ".".join(part for part in (self.place, key) if part)
        return malformed(self.where, f"at '{place}': {what}" if place else what)

    def _get(self, key: str, kind: type[_T]) -> _T:
        value = self.items.get(key)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self.malformed(f"expected {kind.__name__}", key)
        return value

    def optional(self, key: str, kind: type[_T], default: _T) -> _T:
        return default if self.items.get(key) is None else self._get(key, kind)

    def text(self, key: str) -> str:
        return self._get(key, str)

    def identifier(self, key: str) -> str:
        return self._such_that(self.text(key), key, re.compile(r"[A-Za-z_]\w*\Z", re.A).match)

    def one_of(self, key: str, choices: tuple[str, ...]) -> str:
        return self._such_that(self.text(key), key, choices.__contains__)

    def size(self, key: str) -> int:
        return self._such_that(self._get(key, int), key, lambda n: 0 <= n < _LIMIT)

    def shape(self, key: str) -> tuple[int, ...]:
        shape = self._get(key, list)
        good = all(type(n) is int and 0 <= n < _LIMIT for n in shape)
        if not good or len(shape) > 32 or math.prod(shape) >= _LIMIT:
            raise self.malformed(f"{str(shape)[:60]} is not a shape", key)
        return tuple(shape)

    def texts(self, key: str) -> tuple[str, ...]:
        items = self._get(key, list)
        return self._such_that(tuple(items), key, lambda t: all(isinstance(i, str) for i in t))

    def record(self, key: str) -> Reader:
        return Reader(self.items.get(key), self.where, f"{self.place}.{key}".lstrip("."))

    def records(self, key: str) -> list[Reader]:
        place = f"{self.place}.{key}".lstrip(".")
        items = self._get(key, list)
        return [Reader(item, self.where, f"{place}[{i}]") for i, item in enumerate(items)]

    def _such_that(self, value: _T, key: str, good: Callable[[Any], Any]) -> _T:
        if not good(value):
            raise self.malformed(f"{str(value)[:60]!r} is not allowed", key)
        return value


def malformed(where: str, what: str) -> UserError:
    """The error for a manifest that is not one."""
    return UserError(
        "NN0603", f"the manifest of {where} is malformed: {what}",
        help="compile the model again with this version of nncompiler",
    )  # fmt: skip
