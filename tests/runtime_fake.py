"""A compiled model whose native functions are Python callbacks: linear regression with momentum.

It has the C interface of a real artifact (pointers in, a code out), so the whole runtime above the
loader can be tested without a compiler. `line` has input x f32[b,3], target t f32[b,1], and target
`group` i32[b], which must be 0 or 1 and scales the loss by 1 or 2.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nncompiler.runtime import manifest as manifest_module
from nncompiler.runtime.artifact import Artifact
from nncompiler.runtime.manifest import Manifest

F32 = np.float32
STATE = [
    ("step", "header", "i32", (), 0), ("draws", "header", "u32", (), 4),
    ("seed", "header", "u32", (2,), 8), ("rate", "header", "f32", (), 16),
    ("W", "param", "f32", (3, 1), 64), ("b", "param", "f32", (1,), 128),
    ("opt.m.W", "slot", "f32", (3, 1), 192), ("opt.m.b", "slot", "f32", (1,), 256),
]  # fmt: skip
STATE_BYTES, INFER_BYTES, ARENA_BYTES = 320, 192, 256


def argument(name: str, role: str, dtype: str, shape: Sequence[int], batched: bool = False,
             **more: Any) -> dict[str, Any]:  # fmt: skip
    return {"name": name, "role": role, "dtype": dtype, "shape": list(shape), "batched": batched,
            **more}  # fmt: skip


def record(rows: Sequence[int] = (4,), functions: Sequence[str] = ()) -> dict[str, Any]:
    """The manifest of `line` with these batch sizes."""
    entries = [_entry("line_apply", "apply", "", 0, [
        argument("grad.W", "input", "f32", (3, 1)), argument("grad.b", "input", "f32", (1,))])]
    for n in rows:
        x = argument("x", "input", "f32", (n, 3), True)
        given = [x, argument("t", "target", "f32", (n, 1), True),
                 argument("group", "target", "i32", (n,), True, limits=[{"below": 2, "part": []}])]
        loss = argument("loss", "output", "f32", ())
        accuracy = argument("accuracy", "output", "f32", ())
        y = [argument("y", "output", "f32", (n, 1))]
        grads = [argument("grad.W", "output", "f32", (3, 1)),
                 argument("grad.b", "output", "f32", (1,))]
        for name, arguments in (("infer", [x, *y]), ("loss", [*given, loss, accuracy]),
                                ("grad", [*given, loss, *grads]), ("train_step", [*given, loss])):
            entries.append(_entry(f"line_{name}_b{n}", name, f"b{n}", n, arguments))
    if functions:
        entries = [e for e in entries if e["function"] in functions]
    return {
        "abi": 2, "name": "line", "nncompiler": "0.1.0",
        "target": {"cpu": "x86-64-v2", "features": ["sse4_2"]}, "dtype": "f32",
        "state": {"bytes": STATE_BYTES, "infer_bytes": INFER_BYTES, "entries": [
            {"name": n, "kind": k, "dtype": d, "shape": list(s), "offset": o}
            for n, k, d, s, o in STATE]},
        "arena_bytes": ARENA_BYTES, "entries": entries,
        "fit": {f"b{n}": f"line_fit_b{n}" for n in rows},
        "inputs": ["x"], "targets": ["t", "group"], "outputs": ["y"], "losses": ["loss"],
        "metrics": ["accuracy"], "sizes": {"batch": list(rows)},
        "train": {"batch": rows[0], "epochs": 3, "optimizer": "momentum"},
        "source_sha256": "0" * 64, "digest": "0" * 64,
    }  # fmt: skip


def _entry(symbol: str, function: str, suffix: str, rows: int, arguments: list[dict[str, Any]]
           ) -> dict[str, Any]:  # fmt: skip
    return {"symbol": symbol, "function": function, "suffix": suffix, "rows": rows,
            "arena_bytes": ARENA_BYTES, "bound": ARENA_BYTES, "arguments": arguments}  # fmt: skip


def parsed(rows: Sequence[int] = (4,), functions: Sequence[str] = ()) -> Manifest:
    import json

    return manifest_module.parse(json.dumps(record(rows, functions)).encode())


def view(address: int | None, shape: Sequence[int], dtype: Any = F32) -> np.ndarray[Any, Any]:
    """The memory at an address as an array."""
    count = int(np.prod(shape))
    if not count or address is None:
        return np.zeros(shape, dtype)
    buffer = (ctypes.c_char * (count * np.dtype(dtype).itemsize)).from_address(address)
    return np.frombuffer(buffer, dtype).reshape(shape)


class Fake:
    """The native code of `line`; `calls` counts calls by symbol, `chunks` lists rows per fit."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.chunks: list[tuple[int, int]] = []
        self.before: Callable[[str], None] = lambda symbol: None
        self._functions: dict[str, Any] = {}

    def artifact(self, rows: Sequence[int] = (4,), functions: Sequence[str] = ()) -> Artifact:
        return Artifact(parsed(rows, functions), self.lookup, b"")

    def lookup(self, symbol: str) -> Any:
        if symbol not in self._functions:
            name, _, suffix = symbol.removeprefix("line_").rpartition("_b")
            name, rows = (name, int(suffix)) if name else (suffix, 0)
            body, kinds = self._body(name, rows)
            self._functions[symbol] = self._native(symbol, body, kinds)
        return self._functions[symbol]

    def _native(self, symbol: str, body: Callable[..., int], kinds: list[Any]) -> Any:
        def call(*arguments: Any) -> int:
            self.calls.append(symbol)
            self.before(symbol)
            return body(*arguments)

        return ctypes.CFUNCTYPE(ctypes.c_int, *kinds)(call)

    def _body(self, name: str, rows: int) -> tuple[Callable[..., int], list[Any]]:
        p = ctypes.c_void_p
        match name:
            case "init":
                return self._init, [p, ctypes.c_uint64]
            case "load":
                return self._load, [p, p, ctypes.c_size_t]
            case "apply":
                return self._apply, [p] * 4
            case "infer":
                return lambda s, a, x, y: self._infer(rows, s, x, y), [p] * 4
            case "loss":
                return lambda *v: self._loss(rows, *v), [p] * 7
            case "grad":
                return lambda *v: self._grad(rows, *v), [p] * 8
            case "train_step":
                return lambda *v: self._step(rows, *v), [p] * 6
            case "fit":
                kinds = [p] * 6 + [ctypes.c_int64, p]
                return lambda *v: self._fit(rows, *v), kinds
        raise AttributeError(name)

    @staticmethod
    def state(address: int) -> dict[str, np.ndarray[Any, Any]]:
        return {n: view(address + o, s, manifest_module.DTYPES[d]) for n, _, d, s, o in STATE}

    def _init(self, state: int, seed: int) -> int:
        view(state, (STATE_BYTES,), np.uint8)[...] = 0
        s = self.state(state)
        s["seed"][...] = seed & 0xFFFFFFFF, seed >> 32
        s["rate"][...] = 0.1
        s["W"][...] = np.random.Generator(np.random.Philox(key=seed)).random((3, 1), F32)
        return 0

    def _load(self, state: int, blob: int, size: int) -> int:
        if size != INFER_BYTES - 64:
            return 2
        view(state + 64, (size,), np.uint8)[...] = view(blob, (size,), np.uint8)
        return 0

    def _gradients(self, s: dict[str, Any], x: Any, t: Any, group: Any
                   ) -> tuple[Any, Any, Any, Any]:  # fmt: skip
        error = x @ s["W"] + s["b"] - t
        weight = (group + 1).astype(F32)[:, None]
        scaled = weight * error * F32(2 / len(x))
        return (weight * error * error).mean(dtype=F32), error, x.T @ scaled, scaled.sum(axis=0)

    def _infer(self, rows: int, state: int, x: int, y: int) -> int:
        s = self.state(state)
        view(y, (rows, 1))[...] = view(x, (rows, 3)) @ s["W"] + s["b"]
        return 0

    def _given(self, rows: int, x: int, t: int, g: int) -> tuple[Any, Any, Any] | None:
        group = view(g, (rows,), np.int32)
        good = ((group >= 0) & (group < 2)).all()
        return (view(x, (rows, 3)), view(t, (rows, 1)), group) if good else None

    def _loss(self, rows: int, s: int, a: int, x: int, t: int, g: int, *outputs: int) -> int:
        return self._evaluate(rows, s, (x, t, g), outputs, metric=True)

    def _evaluate(self, rows: int, s: int, given: Any, outputs: Any, metric: bool) -> int:
        arrays = self._given(rows, *given)
        if arrays is None:
            return 1
        loss, error, _, _ = self._gradients(self.state(s), *arrays)
        view(outputs[0], ())[...] = loss
        view(outputs[1], ())[...] = (np.abs(error) < 0.1).mean(dtype=F32)
        return 0

    def _grad(self, rows: int, s: int, a: int, x: int, t: int, g: int, *outputs: int) -> int:
        arrays = self._given(rows, x, t, g)
        if arrays is None:
            return 1
        loss, _, dw, db = self._gradients(self.state(s), *arrays)
        for address, value in zip(outputs, (loss, dw, db), strict=True):
            view(address, value.shape)[...] = value
        return 0

    def _update(self, s: dict[str, Any], dw: Any, db: Any) -> None:
        for name, gradient in (("W", dw), ("b", db)):
            m = s[f"opt.m.{name}"]
            m[...] = F32(0.9) * m + gradient
            s[name][...] -= s["rate"] * m
        s["step"][...] += 1

    def _apply(self, state: int, arena: int, dw: int, db: int) -> int:
        self._update(self.state(state), view(dw, (3, 1)), view(db, (1,)))
        return 0

    def _step(self, rows: int, state: int, a: int, x: int, t: int, g: int, loss: int) -> int:
        arrays = self._given(rows, x, t, g)
        return 1 if arrays is None else self._train(state, arrays, view(loss, ()))

    def _train(self, state: int, arrays: Any, out: Any) -> int:
        s = self.state(state)
        loss, _, dw, db = self._gradients(s, *arrays)
        out[...] = loss
        self._update(s, dw, db)
        return 0

    def _fit(self, rows: int, state: int, a: int, x: int, t: int, g: int, order: int, n: int,
             sums: int) -> int:  # fmt: skip
        if n % rows or n <= 0:
            return 2
        self.chunks.append((rows, n))
        picks, total = view(order, (n,), np.int64), view(sums, (1,), np.float64)
        most = int(picks.max()) + 1
        loss = np.zeros((), F32)
        for start in range(0, n, rows):
            at = picks[start : start + rows]
            arrays = [view(x, (most, 3))[at], view(t, (most, 1))[at],
                      view(g, (most,), np.int32)[at]]
            if not ((arrays[2] >= 0) & (arrays[2] < 2)).all():
                return 1
            self._train(state, arrays, loss)
            total += float(loss) * rows
        return 0


def data(rows: int = 10, seed: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    """Rows of a noisy line through the three inputs."""
    random = np.random.default_rng(seed)
    x = random.random((rows, 3), F32)
    t = x @ F32([[1.0], [-2.0], [0.5]]) + F32(0.25)
    noise = random.normal(0, 0.05, (rows, 1)).astype(F32)
    return {"x": x, "t": t + noise, "group": random.integers(0, 2, rows).astype(np.int32)}
