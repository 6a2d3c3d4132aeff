"""Many functions in one artifact, and compiled results compared with the interpreter's."""

from __future__ import annotations

import ctypes
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from threading import Thread

import numpy as np

from nncompiler.codegen.emit import build
from nncompiler.codegen.module.abi import is_parallel
from nncompiler.codegen.target import Target, host
from nncompiler.ir.body import loads, reads_and_writes
from nncompiler.ir.graph import Function, Value
from nncompiler.ir.interp import retype, run
from nncompiler.ir.kernel import Buffer, Kernel, Plan
from nncompiler.ir.model import EntryPoint, Program, StateLayout, lay_out
from nncompiler.ir.op import lookup
from nncompiler.ir.types import F32, F64, Array, DType
from nncompiler.ir.verify_workers import verify_workers
from nncompiler.passes.arithmetic.ahead import ahead
from nncompiler.passes.arithmetic.known_zeros import leave_out_zeros
from nncompiler.passes.arithmetic.partial_sums import begin_sums
from nncompiler.passes.arithmetic.slices import SHARED, take_slices
from nncompiler.passes.arithmetic.winograd import convolution, winograd
from nncompiler.passes.arithmetic.winograd_gradient import gradient, winograd_gradients
from nncompiler.passes.layout.images import choose_layouts
from nncompiler.passes.layout.panels import pack_panels
from nncompiler.passes.layout.stacks import stack_steps
from nncompiler.passes.lowering.schedule import schedule
from nncompiler.passes.manager import Pass, run_passes
from nncompiler.passes.memory.arena import place
from nncompiler.passes.memory.loop_fusion import fuse_loops
from nncompiler.passes.parallel import share
from nncompiler.passes.pipelines import OPTIMISE
from nncompiler.passes.planning import plan_function
from nncompiler.passes.tiling.alternate import alternate
from nncompiler.passes.tiling.split_rounds import split_rounds
from nncompiler.passes.tiling.tile import choose, tile_plan
from tests.guarded import NOBODY, PAGE, forbid, guarded, spread
from tests.networks import fill_state, read_state

#: Bytes of a cache that tests take to be near, for rows as short as theirs.
NEAR = 2048


def state_of(functions: Sequence[Function], dtype: DType) -> StateLayout:
    """One state that holds the parameters and slots of all functions; equal names are one
    entry."""
    found: dict[str, dict] = {"param": {}, "slot": {}, "state": {}}
    for f in functions:
        for kind, entries in found.items():
            entries.update((v.name, v.type) for v in f.params_of(kind))
    params, slots, states = (tuple(found[k].items()) for k in ("param", "slot", "state"))
    return lay_out(dtype, params, slots, states)


class Compiled:
    """Functions compiled together. `run` calls one on arrays by name and gives its results by
    name.

    Images have their batch or channels last, convolutions are transformed, products are taken in
    slices, sums begun, what loops read again and again is packed in narrow panels, and loops are
    `fused`, wherever that can be; or all is `as_planned`, that is where it pays. With several
    `threads`, all kernels are shared that can be, however small, and run on them. Plans may be
    made for another processor than code is. With a `guard`, who touches memory `behind` an array
    or a buffer of the arena, or `ahead` of it, ends the process.
    """

    def __init__(
        self,
        functions: Sequence[Function],
        pipeline: Sequence[Pass] = OPTIMISE,
        dtype: DType = F32,
        target: Target | None = None,
        layout: StateLayout | None = None,
        threads: int = 1,
        planned_for: Target | None = None,
        as_planned: bool = False,
        fused: bool = True,
        guard: str | None = None,
    ) -> None:
        self.guard, self.between = guard, dict[str, tuple[int, ...]]()
        self.threads, self.as_planned, self.fused = threads, as_planned, fused
        self.target = target or host()
        self.planned_for = planned_for or self.target
        self.functions = {f.name: f for f in functions}
        self.layout = layout or state_of(functions, dtype)
        self.plans = {f.name: self._plan(f, pipeline) for f in functions}
        for name in self.plans if guard else ():
            self.plans[name], self.between[name] = spread(self.plans[name], guard == "ahead")
        entries = tuple(EntryPoint(name, "", plan) for name, plan in self.plans.items())
        program = Program("fuzz", dtype, self.layout, entries)
        self.library = _open(build(program, self.target).so)
        self.pool = self._pool() if any(map(is_parallel, self.plans.values())) else None

    def _plan(self, function: Function, pipeline: Sequence[Pass]) -> Plan:
        function, target = run_passes(function, pipeline), self.planned_for
        machine = target.machine
        if self.as_planned:
            return plan_function(function, self.layout, machine)
        plan = stack_steps(schedule(function, self.layout))
        plan = begin_sums(choose_layouts(plan, row_major), near=NEAR)
        plan = take_slices(plan, lambda kernel, buffers: SHARED)
        plan = pack_panels(plan, unpacked, 8)
        plan = winograd_gradients(winograd(plan, untransformed), untransformed)
        plan = split_rounds(ahead(plan), lambda k, buffers: choose(k, buffers, machine))
        plan = leave_out_zeros(plan)
        plan = fuse_loops(plan, free, large=1, part=256) if self.fused else plan
        plan = place(tile_plan(plan, machine))
        if self.threads > 1:
            plan = share(plan, 0.0, 0.0)
            assert verify_workers(plan) == []
        return alternate(plan)

    def _pool(self) -> Array:
        """A pool with its threads, which end with this object."""
        pool = aligned(np.zeros(self.library["fuzz_pool_bytes"](), np.uint8))
        pointer = ctypes.c_void_p(pool.ctypes.data)
        assert self.library["fuzz_pool"](pointer, ctypes.c_int64(self.threads)) == 0
        for n in range(1, self.threads):
            given = (pointer, ctypes.c_int64(n))
            Thread(target=self.library["fuzz_worker"], args=given, daemon=True).start()
        weakref.finalize(self, _stop, self.library, pool)
        return pool

    def memory(self, values: Mapping[str, Array]) -> Array:
        """A state with the given entries, for calls one after another."""
        return self._held(fill_state(self.layout, values))

    def _held(self, array: Array) -> Array:
        return guarded(array, self.guard == "ahead") if self.guard else aligned(array)

    def _arena(self, name: str) -> Array:
        arena = self._held(np.full(self.plans[name].arena_bytes, NOBODY, np.uint8))
        for start in self.between.get(name, ()):
            forbid(arena[start : start + PAGE])
        return arena

    def run(
        self, name: str, values: Mapping[str, Array], state: Array | None = None
    ) -> dict[str, Array]:
        """One call; on a `state` that was made before, what is in it counts, not `values`."""
        plan, function = self.plans[name], self.functions[name]
        state = self.memory(values) if state is None else state
        arena, arrays = self._arena(name), {}
        for a in plan.arguments:
            b = plan.buffer(a.buffer)
            given = values[a.buffer] if a.role != "output" else np.zeros(b.type.shape)
            arrays[a.buffer] = self._held(np.ascontiguousarray(given, b.type.dtype.numpy))
        pointers = [ctypes.c_void_p(x.ctypes.data) for x in (state, arena, *arrays.values())]
        symbol = f"fuzz_{name}"
        if self.pool is not None and is_parallel(plan):
            symbol = f"fuzz_parallel_{name}"
            pointers = [ctypes.c_void_p(self.pool.ctypes.data), *pointers]
        code = self.library[symbol](*pointers)
        assert code == 0, f"{name} returned {code}"
        found = {}
        for result, value in function.results:
            if result.startswith("update."):
                found[result] = read_state(self.layout, state, result.removeprefix("update."))
            else:
                found[result] = arrays[
                    f"{result}.out" if f"{result}.out" in arrays else result
                ].reshape(value.shape)
        return found


def row_major(kernel: Kernel, buffers: Mapping[str, Buffer]) -> float:
    """The cost of a kernel where nothing counts but buffers that lie as they are written."""
    touched = frozenset().union(*reads_and_writes(kernel))
    return float(sum(buffers[n].strides is None for n in touched))


def unpacked(kernel: Kernel, buffers: Mapping[str, Buffer]) -> float:
    """The cost of a kernel where every load is free but those that are not from panels."""
    return float(sum(".panels" not in x.buffer for x in loads(kernel)))


def untransformed(kernel: Kernel, buffers: Mapping[str, Buffer]) -> float:
    """The cost of a kernel where nothing counts but convolutions that could be transformed."""
    found = convolution(kernel, buffers) or gradient(kernel, buffers)
    return float(found is not None)


def free(kernel: Kernel, buffers: Mapping[str, Buffer]) -> float:
    """The cost of a kernel where nothing counts."""
    return 0.0


def _stop(library: ctypes.CDLL, pool: Array) -> None:
    library["fuzz_pool_stop"](ctypes.c_void_p(pool.ctypes.data))


def _open(image: bytes) -> ctypes.CDLL:
    with tempfile.NamedTemporaryFile(suffix=".so") as file:
        file.write(image)
        file.flush()
        return ctypes.CDLL(file.name)


def aligned(array: Array) -> Array:
    """A copy at a multiple of 64 bytes, with room behind it that reads as NaN."""
    raw = np.full(array.nbytes + 128, NOBODY, np.uint8)
    start = -raw.ctypes.data % 64
    view = raw[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


def differences(
    function: Function, values: Mapping[str, Array], found: Mapping[str, Array]
) -> list[str]:
    """Results that break the rule: the error against the f64 interpreter is at most 4 times that
    of the f32 interpreter, plus 2 ULP of the result's largest magnitude; integers and booleans
    are equal.

    One f32 run can be exact by luck, above all for a scalar. A result that breaks the rule is
    judged again by how far the exact result moves when every node's result is off by up to one
    ULP (Monte Carlo arithmetic, Parker 1997).
    """
    exact, rounded = run(function, values, F64), run(function, values)
    broken = [(n, e, a) for n, e, a in _errors(exact, rounded, found) if not e <= a]
    if not broken:
        return []
    moved = [_noisy(function, values, seed) for seed in range(6)]
    problems = []
    for name, error, allowed in broken:
        shifts = [
            np.max(np.abs(m[name].astype(np.float64) - exact[name]), initial=0.0) for m in moved
        ]
        if not error <= allowed + 4 * max(shifts):
            problems.append(f"{name}: error {error:.3g}, allowed {allowed + 4 * max(shifts):.3g}")
    return problems


def _errors(
    exact: Mapping[str, Array], rounded: Mapping[str, Array], found: Mapping[str, Array]
) -> Iterator[tuple[str, float, float]]:
    """For every result its error and what the rule allows."""
    for name, e in exact.items():
        f = found[name]
        if e.dtype.kind != "f":
            yield name, 0.0 if np.array_equal(e, f) else np.inf, 0.0
            continue
        finite = np.isfinite(e)
        if not np.array_equal(finite, np.isfinite(f)):
            yield name, np.inf, 0.0
            continue
        top = np.max(np.abs(e[finite]), initial=0.0)
        ulp = float(np.spacing(np.asarray(top, rounded[name].dtype)))
        reference = np.max(
            np.abs(rounded[name].astype(np.float64)[finite] - e[finite]), initial=0.0
        )
        yield (
            name,
            float(np.max(np.abs(f.astype(np.float64)[finite] - e[finite]), initial=0.0)),
            4 * reference + 2 * ulp,
        )


def _noisy(function: Function, values: Mapping[str, Array], seed: int) -> dict[str, Array]:
    """The function in f64 with a relative error after every node of one f32 ULP, times sqrt(n)
    for sums of n terms; and of one ULP of each term, for terms may cancel. Constants that f32
    holds, and what follows from them but for sums, stay as they are: an exponent of 2 that were
    none would make NaN of a negative base."""
    generator = np.random.default_rng(seed)
    wide = retype(function, F64)
    known = {p.value: np.asarray(values[p.value.name], p.value.dtype.numpy) for p in wide.params}
    exact: set[Value] = set()
    for node in wide.nodes:
        size = max(1, min(v.type.size for v in node.outputs))
        terms = {v for v in node.inputs if v.dtype.is_float and v.type.size > size} - exact
        operands = [_off(known[v], 1, generator) if v in terms else known[v] for v in node.inputs]
        with np.errstate(all="ignore"):
            found = lookup(node.op).reference(node, *operands)
        for value, x in zip(
            node.outputs, found if isinstance(found, tuple) else (found,), strict=True
        ):
            alone = lookup(node.op).kind in ("map", "view")
            if alone and exact.issuperset(node.inputs) and np.array_equal(x, np.float32(x)):
                exact.add(value)
            elif value.dtype.is_float:
                count = max((v.type.size for v in node.inputs), default=1) / size
                x = _off(np.asarray(x), max(1.0, count**0.5), generator)
            known[value] = np.asarray(x)
    return {name: known[v] for name, v in wide.results}


def _off(x: Array, ulps: float, generator: np.random.Generator) -> Array:
    """Every element off by up to so many f32 ULP."""
    ulp = 2.0**-23 * ulps
    return np.asarray(x * (1 + generator.uniform(-ulp, ulp, x.shape)))
