"""The function around a nest, and what it is compiled for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nncompiler.codegen.kernel import emit_kernel
from nncompiler.codegen.target import host, machine, select, tuned
from nncompiler.errors import UserError
from nncompiler.ir.kernel import Fold, For, Let, Loop, Plan, Schedule, Store
from nncompiler.ir.scalar import (
    Affine,
    Ref,
    apply,
)
from nncompiler.ir.types import F32
from nncompiler.passes.tiling.tile import tile_plan
from tests.codegen.nests import (
    TARGETS,
    cross_entropy,
    matrices,
    product,
    scheduled,
)
from tests.nest_harness import (
    AVX2,
    Compiled,
    at,
    axes,
    buffer,
    kernel,
    load,
    module_text,
    optimised,
    run,
)


def test_text_depends_on_structure_only(rng):
    """Other names, the same text; so equal kernels are compiled once."""
    x, y = np.zeros((4, 9), np.float32), np.zeros((4, 9), np.float32)

    def code(source: str, target: str, local: str):
        body = (
            Let(local, load(source, x, "i", "j")),
            Store(target, at("i", "j"), Ref(local, F32)),
        )
        table = {source: buffer(source, x), target: buffer(target, y)}
        return emit_kernel(
            kernel(For(axes(i=4, j=9), body), vector=("j",)), table, host(), "kernel"
        )

    one, two = code("x", "y", "v"), code("%12", "dense1.W", "temporary")
    assert one.text == two.text
    assert (one.pointers, two.pointers) == ((("x",), ("y",)), (("%12",), ("dense1.W",)))


def test_counters_of_plan_loops_are_parameters():
    """An axis that no loop of the kernel binds is passed in, after the pointers."""
    x, y = np.arange(36, dtype=np.float32).reshape(4, 9), np.zeros((4, 9), np.float32)
    body = (Store("y", at("t", "j"), load("x", x, Affine((("t", -1),), 3), "j")),)
    table = {"x": buffer("x", x), "y": buffer("y", y)}
    code = emit_kernel(kernel(For(axes(j=9), body), vector=("j",)), table, host(), "kernel")
    assert code.counters == ("t",)
    Compiled.of_code(code, host(), {"t": 1})(x=x, y=y)
    np.testing.assert_array_equal(y, [np.zeros(9), x[2], np.zeros(9), np.zeros(9)])


@pytest.mark.parametrize(("m", "n", "k"), [(0, 5, 4), (5, 0, 4), (5, 4, 0)])
def test_empty_axes(rng, m, n, k):
    """Nothing is stored over an empty axis; an empty sum is zero."""
    a, b, c = matrices(rng, m, n, k, np.float32)
    c += 1
    nest = scheduled(product(a, b), a=a, b=b, c=c)
    run(nest, a=a, b=b, c=c)
    np.testing.assert_array_equal(c, a @ b)


def test_tiling_chooses_axes_by_stride(rng):
    """Rows vectorise inside, column sums over columns, and a plan keeps schedules already made."""
    x, y, z = (np.zeros(s, np.float32) for s in ((40, 50), 40, 50))
    rows = Fold(("s",), "sum", axes(j=50), (load("x", x, "i", "j"),))
    down = Fold(("s",), "sum", axes(i=40), (load("x", x, "i", "j"),))
    nest = kernel(For(axes(i=40), (rows, Store("y", at("i"), Ref("s", F32)))))
    assert scheduled(nest, x=x, y=y).schedule.vector == ("j",)
    nest = kernel(For(axes(j=50), (down, Store("z", at("j"), Ref("s", F32)))))
    assert scheduled(nest, x=x, z=z).schedule.vector == ("j",)
    kept = replace(nest, schedule=Schedule(order=("i",)))
    buffers = (buffer("x", x), buffer("z", z))
    plan = Plan("p", (), buffers, (kept, Loop("t", 2, (nest,))))
    tiled = tile_plan(plan, AVX2)
    assert [k.schedule.vector for k in tiled.kernels()] == [(), ("j",)]
    assert tile_plan(tiled, AVX2) is tiled


def test_overlapping_buffers_share_a_pointer():
    """Views and in-place partners come through one parameter; disjoint arena buffers through two.
    """
    x = np.zeros(8, np.float32)
    table = {
        "p": buffer("p", x, space="arena", offset=64),
        "q": buffer("q", x, space="arena", offset=64, in_place_of="p"),
        "r": buffer("r", x, space="arena", offset=96),
        "v": buffer("v", x.reshape(2, 4), space="view", base="r"),
    }
    body = (
        Store("q", at("j"), load("p", x, "j")),
        Store("r", at("j"), apply("add", load("v", x.reshape(2, 4), 1, 2), load("q", x, "j"))),
    )
    code = emit_kernel(kernel(For(axes(j=8), body)), table, host(), "kernel")
    assert sorted(map(sorted, code.pointers)) == [["p", "q"], ["r", "v"]]
    assert code.text.count("noalias") == 2


@pytest.mark.parametrize("name", TARGETS)
def test_every_level_compiles(rng, name):
    """The IR of every vector width verifies and becomes an object; what this machine can run, it
    runs.
    """
    target = select(name)
    a, b, c = matrices(rng, 11, 45, 20, np.float32)
    z, y = rng.standard_normal((5, 37)).astype(np.float32), rng.integers(0, 37, 5, np.int32)
    loss = np.zeros((), np.float32)
    nests = [
        (scheduled(product(a, b), target.machine, a=a, b=b, c=c), {"a": a, "b": b, "c": c}),
        (
            scheduled(cross_entropy(z, y, loss), target.machine, z=z, y=y, loss=loss),
            {"z": z, "y": y, "loss": loss},
        ),
    ]
    for nest, arrays in nests:
        code = emit_kernel(nest, {n: buffer(n, x) for n, x in arrays.items()}, target, "kernel")
        assert machine(target).emit_object(optimised(module_text(code), target))
        if target.vector_bytes <= host().vector_bytes:
            Compiled(nest, {n: buffer(n, x) for n, x in arrays.items()}, target)(**arrays)
    if target.vector_bytes <= host().vector_bytes:
        np.testing.assert_allclose(c, a @ b, rtol=1e-4, atol=1e-5)
        assert 1 < loss < 10
        np.testing.assert_allclose(z.sum(axis=1), 0, atol=1e-6)


def test_target_names():
    """Levels by name, features as the kernel lists them, a hint for a name nearly right."""
    assert select("x86-64-v3").required_features[-3:] == ("f16c", "fma", "movbe")
    assert select("host").vector_bytes in (16, 32, 64)
    assert tuned(select("x86-64-v4"), "znver4").machine.multiply_adds == 1
    assert tuned(select("x86-64-v4"), "sapphirerapids").machine.multiply_adds == 2
    assert tuned(select("x86-64-v3"), "haswell").machine == AVX2
    with pytest.raises(UserError, match="write x86-64-v4"):
        select("x86-64-v5")
