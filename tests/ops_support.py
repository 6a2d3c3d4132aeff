"""Running one operator in tests: random inputs, its reference, its gradient, its lowering."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from nncompiler.ir import interp_scalar
from nncompiler.ir.combine import COMBINES
from nncompiler.ir.graph import Builder, Function, Node, Value
from nncompiler.ir.interp import evaluate
from nncompiler.ir.interp_kernel import run_kernel
from nncompiler.ir.kernel import Buffer, Kernel, Store
from nncompiler.ir.op import REGISTRY, Operator, Sample, lookup
from nncompiler.ir.scalar import Affine, Apply, Bitcast, Cast, Const, Expr, Index, Iota, Load, Ref
from nncompiler.ir.types import F32, F64, Array, TensorType
from nncompiler.ir.verify_kernel import verify_kernel

lookup("add")  # loads the library
OPERATORS = [op for op in REGISTRY.values() if op.kind != "region"]


def draw(type: TensorType, sample: Sample, rng: np.random.Generator) -> Array:
    """A random input in the range of the sample, as far as the dtype goes."""
    match type.dtype.kind:
        case "float":
            found = rng.uniform(sample.low, sample.high, type.shape)
        case "bool":
            found = rng.integers(0, 2, type.shape)
        case kind:
            low = max(sample.low, 0) if kind == "uint" else sample.low
            high = min(sample.high, np.iinfo(type.dtype.numpy).max)
            found = rng.integers(math.ceil(low), math.floor(high), type.shape, endpoint=True)
    return np.asarray(found, type.dtype.numpy)


def build(name: str, sample: Sample) -> tuple[Builder, Node]:
    """A builder that holds the inputs and one application of the operator."""
    b = Builder("sample")
    inputs = [b.param("input", f"x{k}", t) for k, t in enumerate(sample.inputs)]
    b.emit_many(name, inputs, dict(sample.attrs))
    return b, b.nodes[-1]


def function_of(b: Builder, *results: Value) -> Function:
    return b.finish([(f"r{k}", v) for k, v in enumerate(results)])


def value_of(b: Builder, result: Value, inputs: Sequence[Array]) -> Array:
    """What the nodes emitted so far make of the inputs, by the references."""
    return evaluate(function_of(b, result), inputs)[0]


def unbroadcast(array: Array, shape: tuple[int, ...]) -> Array:
    """Sum over the dimensions along which an operand of `shape` was broadcast."""
    array = array.sum(axis=tuple(range(array.ndim - len(shape))))
    stretched = tuple(d for d, n in enumerate(shape) if n == 1 and array.shape[d] != 1)
    return array.sum(axis=stretched, keepdims=True)


# --- lowering ------------------------------------------------------------------------------------

Bindings = dict[str, Array]
Step = Callable[[Bindings], None]


@dataclass
class Evaluator:
    """`Lowering` whose reads are loads of the inputs; `run` evaluates at many points at once.

    An unguarded load outside its input fails the test: it would touch foreign memory.
    """

    inputs: Sequence[Array]
    types: Sequence[TensorType]
    scopes: list[list[Step]] = field(default_factory=lambda: [[]])
    count: int = 0

    def read(
        self, k: int, index: Sequence[Index], guard: Expr | None = None, fill: Const | None = None
    ) -> Expr:
        assert len(index) == self.types[k].rank
        return Load(f"x{k}", tuple(index), self.types[k].dtype, guard, fill if guard else None)

    def let(self, value: Expr) -> Expr:
        ref = Ref(self.fresh(), value.dtype)
        self.scopes[-1].append(lambda env: env.__setitem__(ref.name, self.value(value, env)))
        return ref

    def fold(
        self, combine: str, extents: Sequence[int],
        element: Callable[[tuple[Affine, ...]], tuple[Expr, ...]],
    ) -> tuple[Expr, ...]:
        axes = [self.fresh() for _ in extents]
        self.scopes.append([])
        values = element(tuple(Affine.axis(a) for a in axes))
        body = self.scopes.pop()
        refs = tuple(Ref(self.fresh(), v.dtype) for v in values)

        def step(env: Bindings) -> None:
            points, total = len(next(iter(env.values()))), math.prod(extents)
            inner = {name: np.repeat(a, total) for name, a in env.items()}
            grid = np.indices(tuple(extents)).reshape(len(axes), total)
            inner.update((a, np.tile(g, points)) for a, g in zip(axes, grid, strict=True))
            for s in body:
                s(inner)
            found = tuple(self.value(v, inner).reshape(points, total) for v in values)
            init = COMBINES[combine].identity(tuple(v.dtype for v in values))
            for ref, array in zip(refs, interp_scalar.combine(combine, found, init), strict=True):
                env[ref.name] = array

        self.scopes[-1].append(step)
        return refs

    def fresh(self) -> str:
        self.count += 1
        return f"t{self.count}"

    def run(self, expr: Expr, points: Bindings) -> Array:
        for step in self.scopes[0]:
            step(points)
        return self.value(expr, points)

    def value(self, expr: Expr, env: Bindings) -> Array:
        size = len(env["point"])
        match expr:
            case Const(value, dtype):
                return np.full(size, value, dtype.numpy)
            case Ref(name):
                return env[name]
            case Iota(index, dtype):
                return self.index(index, env).astype(dtype.numpy)
            case Apply(op, args, dtype):
                return interp_scalar.evaluate(op, tuple(self.value(a, env) for a in args), dtype)
            case Cast(arg, dtype):
                return interp_scalar.convert(self.value(arg, env), dtype)
            case Bitcast(arg, dtype):
                return self.value(arg, env).view(dtype.numpy)
            case Load():
                return self.load(expr, env)

    def index(self, index: Index, env: Bindings) -> Array:
        if isinstance(index, Affine):
            start = np.full(len(env["point"]), index.const, np.int64)
            return sum((k * env[a] for a, k in index.terms), start)
        return self.value(index, env).astype(np.int64)

    def load(self, load: Load, env: Bindings) -> Array:
        array = self.inputs[int(load.buffer[1:])]
        held = np.ones(len(env["point"]), bool)
        if load.guard is not None:
            held = self.value(load.guard, env)
        places = [self.index(i, env) for i in load.index]
        for place, n in zip(places, array.shape, strict=True):
            assert np.all((place >= 0) & (place < n) | ~held), f"{load} leads outside"
        result = np.zeros(len(held), array.dtype)
        if load.fill is not None:
            result[:] = load.fill.value
        result[held] = array[tuple(p[held] for p in places)] if places else array[()]
        return result


@dataclass(frozen=True)
class Bare:
    """The operands of a node as buffers 0, 1, ... and its result as buffer `out`."""

    node: Node

    def load(self, k: int, index: Sequence[Index]) -> Load:
        return Load(str(k), tuple(index), self.node.inputs[k].dtype)

    def result(self, index: Sequence[Index]) -> Load:
        return Load("out", tuple(index), self.node.output.dtype)

    def store(self, index: Sequence[Index], value: Expr) -> Store:
        return Store("out", tuple(index), value)


def nested(node: Node, inputs: Sequence[Array]) -> Array:
    """The result of an operator that writes its own loops, in either order of the free ones."""
    kernel = Kernel("k", lookup(node.op).nest(node, Bare(node)))
    types = {**{str(k): v.type for k, v in enumerate(node.inputs)}, "out": node.output.type}
    buffers = {n: Buffer(n, t, "argument") for n, t in types.items()}
    assert verify_kernel(kernel, buffers, (), {}) == []
    results = []
    for order in (None, "forward", "backward"):
        out = np.full(node.output.shape, 77, node.output.dtype.numpy)
        arrays = {**{str(k): x for k, x in enumerate(inputs)}, "out": out}
        run_kernel(kernel, arrays, {}, order)
        results.append(out)
    assert all(np.array_equal(results[0], r) for r in results)
    return results[0]


def lowered(node: Node, inputs: Sequence[Array]) -> Array:
    """The whole result of a node, computed from its lowering."""
    if lookup(node.op).kind == "nest":
        return nested(node, inputs)
    shape = node.output.shape
    evaluator = Evaluator(inputs, [v.type for v in node.inputs])
    names = [f"i{d}" for d in range(len(shape))]
    expr = lookup(node.op).lower(node, tuple(Affine.axis(n) for n in names), evaluator)
    assert expr.dtype == node.output.dtype
    size = math.prod(shape)
    points = dict(zip(names, np.indices(shape).reshape(len(shape), size), strict=True))
    return evaluator.run(expr, {"point": np.arange(size), **points}).reshape(shape)


def widened(sample: Sample) -> Sample:
    """The sample in f64, for differences."""
    types = tuple(t.with_dtype(F64) if t.dtype == F32 else t for t in sample.inputs)
    return replace(sample, inputs=types)


def inputs_of(sample: Sample, seed: int = 0) -> list[Array]:
    """Random inputs as the sample has them."""
    rng = np.random.default_rng(seed)
    return [draw(t, sample, rng) for t in sample.inputs]


def check_gradient(op: Operator, sample: Sample) -> None:
    """The gradient of a random projection equals central differences in a random direction."""
    sample = widened(sample)
    b, node = build(op.name, sample)
    inputs, rng = inputs_of(sample), np.random.default_rng(1)
    if not node.output.dtype.is_float:
        return
    weights = rng.uniform(-1, 1, node.output.shape).astype(node.output.dtype.numpy)
    seed = b.param("input", "seed", node.output.type)
    for k, found in enumerate(op.gradient(b, node, (seed,))):
        if found is None:
            assert not sample.inputs[k].dtype.is_float or not node.output.dtype.is_float
            continue
        got = unbroadcast(value_of(b, found, [*inputs, weights]), node.inputs[k].shape)
        assert got.shape == node.inputs[k].shape
        step = rng.uniform(-1, 1, inputs[k].shape)
        shifted = [[*inputs[:k], inputs[k] + h * step, *inputs[k + 1 :]] for h in (1e-5, -1e-5)]
        ahead, behind = (op.reference(node, *x).astype(np.float64) for x in shifted)
        if node.output.dtype == F32:
            continue  # differences through a cast to f32 are noise
        expected = np.sum(weights * (ahead - behind)) / 2e-5
        assert np.sum(got * step) == pytest.approx(expected, rel=1e-6, abs=1e-7)
