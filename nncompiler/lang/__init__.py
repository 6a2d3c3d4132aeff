"""The language: text -> syntax tree -> network. Importing this package loads none of it."""

from __future__ import annotations

from typing import Any

_HOMES = {
    "parse": "nncompiler.lang.parse",
    "format_source": "nncompiler.lang.fmt",
    "elaborate": "nncompiler.lang.elaborate",
    "free_sizes": "nncompiler.lang.elaborate",
}
__all__ = ["elaborate", "format_source", "free_sizes", "parse"]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
