"""Every function of models between pages nobody may touch: ``python -m tests.guarded_models gpt``.

State, arena, pool, and all arrays end where such a page begins, then begin where one ends: what a
caller must provide is all that code may touch. If it touches more, the process ends; the model is
the last one said. `--full` takes models at the sizes they have, `--batch` other batch sizes.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from nncompiler.codegen.target import NAMES
from nncompiler.driver import Options, compile_artifact, read_source
from nncompiler.ir.types import Array
from nncompiler.runtime.artifact import Artifact, open_artifact
from nncompiler.runtime.manifest import Argument, Entry
from tests.guarded import NOBODY, guarded
from tests.test_models import FILES, SIZES

SEED = ctypes.c_uint64(1)


class Guarded:
    """An artifact with a state of its own; `ahead` says on which side of arrays the pages are."""

    def __init__(self, image: bytes, ahead: bool) -> None:
        self.artifact: Artifact = open_artifact(image)
        self.ahead, self.manifest = ahead, self.artifact.manifest
        self.state = self._held(np.zeros(self.manifest.state_bytes, np.uint8))
        self.generator = np.random.default_rng(1)
        self._call(f"{self.manifest.name}_init", self.state, SEED)

    def _held(self, array: Array) -> Array:
        return guarded(array, self.ahead)

    def _call(self, symbol: str, *given: Array | ctypes.c_uint64 | ctypes.c_int64) -> None:
        code = self.artifact.lookup(symbol)(
            *(ctypes.c_void_p(x.ctypes.data) if isinstance(x, np.ndarray) else x for x in given))
        assert code == 0, f"{symbol} returned {code}"

    def values(self) -> dict[str, Array]:
        """Parameters and states by name."""
        return {
            e.name: self.state[e.offset : e.offset + e.bytes].view(e.dtype).reshape(e.shape).copy()
            for e in self.manifest.state if e.kind in ("param", "state")
        }  # fmt: skip

    def call_all(self) -> None:
        """Every function, alone and with a pool, and training over rows in two orders."""
        pool = self._pool()
        for entry in self.manifest.entries:
            if entry.function != "init":
                given = self._memory(entry.arena_bytes, entry.arguments)
                self._call(entry.symbol, *given)
                if entry.parallel:
                    self._call(entry.parallel, pool, *given)
                results = zip(entry.arguments, given[2:], strict=True)
                found = [x for a, x in results if a.role == "output" and a.dtype.kind == "f"]
                assert all(np.isfinite(x).all() for x in found), entry.symbol
        for rows, symbol in self.manifest.fit.items():
            (entry,) = (
                e for e in self.manifest.entries if (e.function, e.rows) == ("train_step", rows)
            )
            self._fit(entry, symbol, rows)
            if rows in self.manifest.parallel_fit:
                self._fit(entry, self.manifest.parallel_fit[rows], rows, pool)

    def _pool(self) -> Array:
        """A pool of one thread, where there are functions that take one."""
        if not any(e.parallel for e in self.manifest.entries):
            return np.zeros(0, np.uint8)
        name = self.manifest.name
        pool = self._held(np.zeros(self.artifact.lookup(f"{name}_pool_bytes")(), np.uint8))
        self._call(f"{name}_pool", pool, ctypes.c_int64(1))
        return pool

    def _memory(self, arena_bytes: int, arguments: Sequence[Argument], times: int = 1
                ) -> list[Array]:
        """State, arena, and arrays with `times` as many rows."""
        arena = self._held(np.full(arena_bytes, NOBODY, np.uint8))
        return [self.state, arena, *(self._held(self._array(a, times)) for a in arguments)]

    def _array(self, a: Argument, times: int) -> Array:
        shape = (times * a.shape[0], *a.shape[1:]) if a.batched else a.shape
        if a.role == "output":
            return np.zeros(shape, a.dtype)
        if a.dtype.kind == "f":
            return self.generator.random(shape).astype(a.dtype)
        below = min((n.below for n in a.limits), default=2)
        return self.generator.integers(0, below, shape).astype(a.dtype)

    def _fit(self, entry: Entry, symbol: str, rows: int, *pool: Array) -> None:
        order = self._held(self.generator.permutation(2 * rows).astype(np.int64))
        total = self._held(np.zeros(len(self.manifest.losses)))
        memory = self._memory(self.manifest.arena_bytes, entry.given, 2)
        for picked in (order, ctypes.c_int64(0)):
            self._call(symbol, *pool, *memory, picked, ctypes.c_int64(2 * rows), total)
        assert np.isfinite(total).all(), symbol


def images(name: str, bindings: Sequence[Mapping[str, int]], cpu: str, direct: bool
           ) -> Iterator[bytes]:
    """The artifact of a model, and that with the parameters as constants."""
    (path,) = (f for f in FILES if f.stem == name)
    source = read_source(path)
    image = compile_artifact(source, bindings, Options(cpu=cpu, direct=direct)).so
    yield image
    frozen = Guarded(image, False).values()
    yield compile_artifact(source, bindings, Options(cpu=cpu, direct=direct, frozen=frozen)).so


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=[f.stem for f in FILES])
    parser.add_argument("--batch", type=int, nargs="*", default=[1, 3])
    parser.add_argument("--cpu", choices=NAMES, default="host")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--direct", action="store_true")
    options = parser.parse_args(arguments)
    for name in options.models:
        print(name, end=" ", flush=True)
        sizes = {} if options.full else SIZES.get(name, {})
        bindings = [{"batch": n, **sizes} for n in options.batch] or [sizes]
        for image in images(name, bindings, options.cpu, options.direct):
            for ahead in (False, True):
                Guarded(image, ahead).call_all()
                print("ahead" if ahead else "behind", end=" ", flush=True)
        print(flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
