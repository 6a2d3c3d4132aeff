"""A hand-built linear regression with momentum.

`line` has input x f32[4,3], target t f32[4,1] and target group i32[4] (0 or 1, doubling the loss
of a row). Its plans are written here as data; compiled, they must do what NumPy does.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from nncompiler.codegen.emit import Artifact, build
from nncompiler.codegen.target import host
from nncompiler.errors import Source
from nncompiler.ir.kernel import Argument, Axis, Buffer, Check, Fold, For, Kernel, Let, Plan, Store
from nncompiler.ir.model import EntryPoint, Program, lay_out
from nncompiler.ir.scalar import Affine, Expr, Load, Ref, apply, cast, const
from nncompiler.ir.text.scan import Scanner
from nncompiler.ir.types import F32, I32, TensorType
from nncompiler.runtime.artifact import open_artifact
from nncompiler.runtime.call import aligned

ROWS, FEATURES = 4, 3
STATE = lay_out(
    F32,
    (("W", TensorType(F32, (FEATURES, 1))), ("b", TensorType(F32, (1,)))),
    (("opt.m.W", TensorType(F32, (FEATURES, 1))), ("opt.m.b", TensorType(F32, (1,)))),
)


def at(*names: str | int) -> tuple[Affine, ...]:
    return tuple(Affine((), n) if isinstance(n, int) else Affine.axis(n) for n in names)


def load(name: str, *index: str | int) -> Load:
    return Load(name, at(*index), I32 if name == "group" else F32)


def axis(name: str) -> tuple[Axis, ...]:
    return (Axis(name, {"i": ROWS, "k": FEATURES}[name]),)


def number(value: float) -> Expr:
    return const(value, F32)


def state_buffers(*names: str) -> list[Buffer]:
    entries = [STATE.entry(n) for n in names]
    return [Buffer(e.name, e.type, "state", e.offset) for e in entries]


def argument_buffer(name: str, type: str) -> Buffer:
    return Buffer(name, Scanner(Source("<type>", type)).type(), "argument")


GIVEN = [
    argument_buffer("x", "f32[4,3]"), argument_buffer("t", "f32[4,1]"),
    argument_buffer("group", "i32[4]"),
]
ARGUMENTS = (Argument("x", "input"), Argument("t", "target"), Argument("group", "target"))


def errors_kernel(target: str) -> Kernel:
    """e[i] = x[i,:] W + b - t[i]"""
    term = apply("mul", load("x", "i", "k"), load("W", "k", 0))
    product = Fold(("s",), "sum", axis("k"), (term,))
    value = apply("add", Ref("s", F32), load("b", 0))
    if target == "e":
        value = apply("sub", value, load("t", "i", 0))
    return Kernel("k0", (For(axis("i"), (product, Store(target, at("i", 0), value))),))


def loss_kernel() -> Kernel:
    """loss = sum (1 + group[i]) e[i]^2 / 4, and e[i] becomes its gradient."""
    weight = apply("mul", cast(apply("add", load("group", "i"), const(1, I32)), F32), number(0.25))
    weighted = apply("mul", Ref("w", F32), Ref("e0", F32))
    body = (
        Let("e0", load("e", "i", 0)),
        Let("w", weight),
        Store("e", at("i", 0), apply("add", weighted, weighted)),
    )
    square = apply("mul", weighted, Ref("e0", F32))
    fold = Fold(("total",), "sum", axis("i"), (square,), body)
    return Kernel("k1", (fold, Store("loss", (), Ref("total", F32))))


def update_kernel() -> Kernel:
    """Momentum: m = 0.9 m + g; p -= rate m; step += 1."""

    def update(slot: str, name: str, index: tuple[str | int, ...], g: Expr) -> tuple[Any, ...]:
        m = f"m.{name}"
        new = apply("add", apply("mul", number(0.9), load(slot, *index)), g)
        moved = apply("sub", load(name, *index), apply("mul", load("rate"), Ref(m, F32)))
        return Let(m, new), Store(slot, at(*index), Ref(m, F32)), Store(name, at(*index), moved)

    product = apply("mul", load("x", "i", "k"), load("e", "i", 0))
    weights = For(
        axis("k"),
        (Fold(("gw",), "sum", axis("i"), (product,)),
         *update("opt.m.W", "W", ("k", 0), Ref("gw", F32))),
    )
    bias = Fold(("gb",), "sum", axis("i"), (load("e", "i", 0),))
    count = apply("add", Load("step", (), I32), const(1, I32))
    return Kernel(
        "k2",
        (weights, bias, *update("opt.m.b", "b", (0,), Ref("gb", F32)), Store("step", (), count)),
    )


def step_plan() -> Plan:
    buffers = [
        *GIVEN, argument_buffer("loss", "f32[]"),
        Buffer("e", TensorType(F32, (4, 1)), "arena", 64),
        *state_buffers("W", "b", "opt.m.W", "opt.m.b", "rate", "step"),
    ]
    return Plan(
        "line.train_step", (*ARGUMENTS, Argument("loss", "output")), tuple(buffers),
        (errors_kernel("e"), loss_kernel(), update_kernel()), arena_bytes=128, bound=128,
        checks=(Check("group", 2),),
    )


def infer_plan() -> Plan:
    buffers = [GIVEN[0], argument_buffer("y", "f32[4,1]"), *state_buffers("W", "b")]
    kernel = errors_kernel("y")
    arguments = (ARGUMENTS[0], Argument("y", "output"))
    return Plan("line.infer", arguments, tuple(buffers), (kernel,))


def init_plan() -> Plan:
    """W[k] = table[k] * seed; a constant, and the seed as the only source of randomness."""
    data = np.float32([1, 2, 3]).tobytes()
    buffers = [
        Buffer("table", TensorType(F32, (3,)), "constant", data=data), *state_buffers("W", "seed"),
    ]
    seed = cast(Load("seed", at(0), STATE.entry("seed").type.dtype), F32)
    value = apply("mul", load("table", "k"), seed)
    return Plan(
        "line.init", (), tuple(buffers),
        (Kernel("k0", (For(axis("k"), (Store("W", at("k", 0), value),)),)),),
    )


@cache
def program() -> Program:
    return Program(
        "line", F32, STATE,
        (EntryPoint("init", "", init_plan()),
         EntryPoint("infer", "b4", infer_plan(), ROWS, ("x", "y")),
         EntryPoint("train_step", "b4", step_plan(), ROWS, ("x", "t", "group"))),
        initial_rate=0.1,
    )


@cache
def artifact() -> Artifact:
    texts = {"graph": {"infer": "graph text"}}
    return build(program(), host(), texts=lambda: texts, source_sha256="ab" * 32, version="1.2")


class Line:
    """The same model in NumPy."""

    def __init__(self, seed: int) -> None:
        self.w = np.float32([[1], [2], [3]]) * np.float32(seed & 0xFFFFFFFF)
        self.b = np.zeros(1, np.float32)
        self.mw, self.mb = np.zeros_like(self.w), np.zeros_like(self.b)

    def infer(self, x: np.ndarray) -> np.ndarray:
        return x @ self.w + self.b

    def step(self, x: np.ndarray, t: np.ndarray, group: np.ndarray) -> float:
        e = self.infer(x) - t
        weight = ((group + 1) / np.float32(4)).astype(np.float32)[:, None]
        g = 2 * weight * e
        self.mw = np.float32(0.9) * self.mw + x.T @ g
        self.mb = np.float32(0.9) * self.mb + g.sum(axis=0)
        self.w = self.w - np.float32(0.1) * self.mw
        self.b = self.b - np.float32(0.1) * self.mb
        return float((weight * e * e).sum())


def data(rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(rows)
    x = rng.normal(size=(rows, FEATURES)).astype(np.float32)
    group = rng.integers(0, 2, rows).astype(np.int32)
    return x, rng.normal(size=(rows, 1)).astype(np.float32), group


class Library:
    """An artifact in memory with one state; arrays are passed as pointers."""

    def __init__(self, made: Artifact) -> None:
        self._opened = open_artifact(made.so)
        self._sizes = made.manifest["state"]["bytes"], made.manifest["arena_bytes"]
        self.state = aligned(self._sizes[0])
        self.arena = aligned(self._sizes[1])
        self.arena[:] = 0xAA

    def function(self, name: str) -> Callable[..., int]:
        return self._opened.lookup(name)

    def __call__(self, name: str, *arguments: Any) -> int:
        self._kept = [
            ctypes.c_void_p(a.ctypes.data) if isinstance(a, np.ndarray) else a for a in arguments
        ]
        return self.function(name)(*self._kept)

    def fit(self, *arguments: Any) -> int:
        *arrays, rows, total = arguments
        given = (self.state, self.arena, *arrays, ctypes.c_int64(rows), total)
        return self("line_fit_b4", *given)

    def view(self, name: str) -> np.ndarray:
        e = STATE.entry(name)
        return self.state[e.offset : e.offset + e.type.nbytes].view(e.type.dtype.numpy)

    def init(self, seed: int) -> None:
        self.state[:] = 0x55
        assert self("line_init", self.state, ctypes.c_uint64(seed)) == 0
