"""Graphs and plans of every form that text has, which no operator need produce."""

from __future__ import annotations

import math
import random

from nncompiler.errors import Span
from nncompiler.ir.combine import COMBINES
from nncompiler.ir.graph import Function, Node, Param, Value
from nncompiler.ir.kernel import (
    Argument,
    Axis,
    Buffer,
    Check,
    Fold,
    For,
    Kernel,
    Let,
    Loop,
    Plan,
    Schedule,
    Store,
)
from nncompiler.ir.scalar import (
    F32,
    F64,
    I32,
    PRIMITIVES,
    U32,
    Affine,
    Bitcast,
    Cast,
    Iota,
    Load,
    Ref,
    apply,
    const,
)
from nncompiler.ir.types import BOOL, DTYPES, I64, U8, TensorType

TYPE = TensorType(F32, (2, 3))


def random_graph(rng):
    """Elementwise nodes, literals, regions: names and spans of every kind."""
    names = iter(rng.sample([f"{a}{b}" for a in ("v", "b[1].", "x'", "") for b in range(20)], 60))

    def body(name, values, depth):
        params = [Param("operand" if depth else "input", v) for v in values]
        nodes, values, names_used = [], list(values), set()
        for _ in range(rng.randrange(1, 6)):
            span = Span("m.nn", rng.randrange(1, 99), 3) if rng.random() < 0.5 else None
            if depth < 2 and rng.random() < 0.3:
                inputs = rng.sample(values, min(2, len(values)))
                inner = body("body", [Value(f"p{k}", TYPE) for k in range(len(inputs))], depth + 1)
                outputs = [Value(next(names), TYPE) for _ in inner.results]
                node = Node("fused", tuple(inputs), tuple(outputs), (), inner, span)
            else:
                value = rng.choice([0.5, -1.0, math.inf])
                c = Value(f"const{len(nodes)}", TensorType(F32))
                if rng.random() < 0.4:
                    attrs = (("dtype", "f32"), ("value", value))
                    nodes.append(Node("constant", (), (c,), attrs))
                    inputs = (rng.choice(values), c)
                else:
                    inputs = (rng.choice(values), rng.choice(values))
                outputs = [Value(next(names), TYPE)]
                op = rng.choice(["add", "mul", "max"])
                node = Node(op, tuple(inputs), tuple(outputs), (), None, span)
            nodes.append(node)
            values += outputs
            names_used.update(outputs)
        chosen = rng.sample(values, min(len(values), 2))
        return Function(name, tuple(params), tuple(nodes), tuple((v.name, v) for v in chosen))

    return body("f", [Value("input", TYPE)], 0)


class RandomPlan:
    """Plans no operator produces: every form of expression, statement, buffer and schedule."""

    AXES = ("i", "j", "k2", "max", "x.y")
    BUFFERS = {"x": F32, "block[0].W": F32, "7": I32, "if": U32, "d": F64, "flag": BOOL, "u": U8}

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.locals = {}
        self.axes = ()
        self.count = 0

    def affine(self):
        total = Affine((), self.rng.randrange(-2, 3))
        for axis in self.rng.sample(self.axes, self.rng.randrange(0, min(3, len(self.axes)) + 1)):
            total = total + Affine.axis(axis) * self.rng.choice([1, 1, -1, 3])
        return total

    def index(self, depth):
        if self.rng.random() < 0.75:
            return self.affine()
        return self.expr(self.rng.choice([I32, U32]), depth - 1)

    def leaf(self, dtype, depth):
        same = [n for n, d in self.locals.items() if d == dtype]
        choice = self.rng.random()
        if same and choice < 0.3:
            return Ref(self.rng.choice(same), dtype)
        if dtype.kind == "int" and choice < 0.5 and self.axes:
            return Iota(self.affine(), dtype)
        buffers = [b for b, d in self.BUFFERS.items() if d == dtype]
        if buffers and choice < 0.8 and depth > -2:
            name = self.rng.choice(buffers)
            index = tuple(self.index(depth) for _ in range(len(name) % 3))
            if self.rng.random() < 0.2:
                return Load(name, index, dtype, self.expr(BOOL, depth - 1), self.constant(dtype))
            return Load(name, index, dtype)
        return self.constant(dtype)

    def constant(self, dtype):
        value = self.rng.choice([0, 1, 3])
        if dtype.is_float:
            value = self.rng.choice([0.5, -2.0, 0.1, math.nan, -math.inf, 1e-9, -0.0])
        return const(value, dtype)

    def expr(self, dtype, depth):
        if depth <= 0 or self.rng.random() < 0.1:
            return self.leaf(dtype, depth)
        kind = self.rng.random()
        if kind < 0.1:
            return Cast(self.expr(self.rng.choice(list(DTYPES.values())), depth - 1), dtype)
        if kind < 0.2 and dtype in (F32, I32, U32):
            return Bitcast(self.expr(self.rng.choice([F32, I32, U32]), depth - 1), dtype)
        fits = [
            p for p in PRIMITIVES.values()
            if (p.result == dtype) or (p.result is None and dtype.kind in p.kinds)
        ]  # fmt: skip
        if not fits:
            return self.leaf(dtype, depth)
        p = self.rng.choice(fits)
        inner = dtype
        if p.result is not None:
            inner = self.rng.choice([d for d in DTYPES.values() if d.kind in p.kinds])
        args = [self.expr(inner, depth - 1) for _ in range(p.arity)]
        if p.name == "select":
            args[0] = self.expr(BOOL, depth - 1)
        return apply(p.name, *args)

    def fresh(self):
        self.count += 1
        return self.rng.choice([f"t{self.count}", f"{self.count}", f"a.b{self.count}"])

    def axes_for(self):
        free = [a for a in self.AXES if a not in self.axes]
        chosen = self.rng.sample(free, self.rng.randrange(1, min(2, len(free)) + 1))
        return tuple(Axis(a, self.rng.randrange(0, 9)) for a in chosen)

    def scoped(self, axes, depth):
        before, self.axes = (dict(self.locals), self.axes), (*self.axes, *(a.name for a in axes))
        return before, tuple(self.statement(depth - 1) for _ in range(self.rng.randrange(0, 3)))

    def statement(self, depth):
        kind = self.rng.random()
        if depth > 0 and kind < 0.3 and len(self.axes) < 4:
            axes = self.axes_for()
            before, body = self.scoped(axes, depth)
            within = tuple(self.affine() for _ in range(self.rng.choice([0, 0, 1])))
            self.locals, self.axes = before
            return For(axes, body, self.rng.random() < 0.3, within)
        if depth > 0 and kind < 0.6 and len(self.axes) < 4:
            axes = self.axes_for()
            before, body = self.scoped(axes, depth)
            combine = self.rng.choice(list(COMBINES.values()))
            types = (F32, I32)[: combine.width]
            values = tuple(self.expr(d, 2) for d in types)
            within = tuple(self.affine() for _ in range(self.rng.choice([0, 0, 1, 2])))
            self.locals, self.axes = before
            names = tuple(self.fresh() for _ in types)
            self.locals.update(zip(names, types, strict=True))
            init = tuple(map(self.constant, types)) if self.rng.random() < 0.3 else None
            return Fold(names, combine.name, axes, values, body, init, within)
        if kind < 0.8:
            name, dtype = self.fresh(), self.rng.choice([F32, I32, BOOL, U32, F64, I64])
            value = self.expr(dtype, 3)
            self.locals[name] = dtype
            return Let(name, value)
        name = self.rng.choice(list(self.BUFFERS))
        index = tuple(self.index(1) for _ in range(len(name) % 3))
        return Store(name, index, self.expr(self.BUFFERS[name], 3))

    def kernel(self, number):
        self.locals = {}
        body = tuple(self.statement(3) for _ in range(self.rng.randrange(1, 4)))
        pick = self.rng.random
        schedule = Schedule(
            self.rng.choice(["loops", "contract"]),
            ("i", "max") if pick() < 0.5 else (),
            "x.y" if pick() < 0.5 else None,
            (8, 48) if pick() < 0.5 else None,
            ("i", "j", "k2") if pick() < 0.5 else (),
            96 if pick() < 0.5 else 0,
            4 if pick() < 0.5 else 1,
        )
        spans = (Span("a.nn", 3, number + 1), Span("b.nn", 1, 1))[: self.rng.randrange(3)]
        nodes = ("1", "b[0].W")[: self.rng.randrange(3)]
        return Kernel(f"k{number}", body, schedule, nodes, spans)

    def plan(self):
        buffers = []
        for name, dtype in self.BUFFERS.items():
            type = TensorType(dtype, (4,) * (len(name) % 3))
            buffers.append(Buffer(name, type, "arena", 64, type.strides, (0, 1), None, "x"))
        buffers.append(Buffer("v", TensorType(F32, (0,)), "view", base="x"))
        buffers.append(Buffer("c", TensorType(U8, (2,)), "constant", data=b"\x00\xff"))
        kernels = tuple(self.kernel(k) for k in range(2))
        self.axes = ("t",)
        loop = Loop("t", 5, (self.kernel(2), Loop("max", 2, ())), self.rng.random() < 0.5)
        self.axes = ()
        arguments = (Argument("x", "input"), Argument("block[0].W", "output"))
        checks = (Check("7", 3), Check("x", 9, (range(1, 4), range(0, 4, 3))))
        return Plan("p.q", arguments, tuple(buffers), (*kernels, loop), 1, 2, 3, checks)
