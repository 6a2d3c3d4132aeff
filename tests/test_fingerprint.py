"""Fingerprints of kernels: the same for other names, another for anything that changes code; and
facts that are found once."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace

import pytest

from nncompiler.ir.body import accesses, reads_and_writes
from nncompiler.ir.fingerprint import alike, fingerprint
from nncompiler.ir.kernel import Axis, Buffer, Fold, For, Kernel, Let, Stmt, Store
from nncompiler.ir.once import once
from nncompiler.ir.scalar import Affine, Expr, Load, Ref, apply, const
from nncompiler.ir.types import F32, F64, TensorType

TYPE = TensorType(F32, (4, 8))


def buffers(a: str = "a", b: str = "b", **changes: object) -> dict[str, Buffer]:
    """Two buffers, the first changed."""
    first = replace(Buffer(a, TYPE, "arena"), **changes)  # type: ignore[arg-type]
    return {a: first, b: Buffer(b, TYPE, "arena")}


def kernel(
    a: str = "a", b: str = "b", local: str = "t", op: str = "add", number: float = 2.0,
    axes: tuple[str, str] = ("i", "j"), combine: str = "sum", back: str | None = None,
) -> Kernel:  # fmt: skip
    """b[i,j] = (sum j { a[i,j] }) op number, with what is asked for changed."""
    i, j = (Affine.axis(n) for n in axes)
    total: Expr = Ref("s", F32)
    body: tuple[Stmt, ...] = (
        Fold(("s",), combine, (Axis(axes[1], 8),), (Load(a, (i, j), F32),)),
        Let(local, apply(op, total, const(number, F32))),
        For((Axis(axes[1], 8),), (Store(back or b, (i, j), Ref(local, F32)),)),
    )
    return Kernel("k0", (For((Axis(axes[0], 4),), body),))


def same() -> Hashable:
    """Read by each test: the numbers that others have read before are forgotten at times."""
    return fingerprint(kernel(), buffers())


def test_names_of_buffers_locals_and_kernels_do_not_count() -> None:
    """Blocks of a network differ in these alone."""
    other = replace(kernel("x", "y", "u"), name="k7", nodes=("u",))
    assert fingerprint(other, buffers("x", "y")) == same()


@pytest.mark.parametrize(
    "other",
    [
        kernel(op="mul"),
        kernel(number=3.0),
        kernel(number=-0.0),
        kernel(axes=("j", "i")),
        kernel(combine="max"),
        kernel(back="a"),
    ],
)
def test_whatever_is_computed_counts(other: Kernel) -> None:
    """Operation, constant, axis, combine, and which buffer is meant."""
    assert fingerprint(other, buffers()) != same()


def test_zeros_of_either_sign_are_two_constants() -> None:
    """0.0 == -0.0, but code that divides by them differs."""
    zero, minus = (fingerprint(kernel(number=x), buffers()) for x in (0.0, -0.0))
    assert zero != minus


@pytest.mark.parametrize(
    "changes",
    [{"type": TensorType(F32, (5, 8))}, {"type": TensorType(F64, (4, 8))}, {"strides": (1, 4)},
     {"space": "state"}],
)  # fmt: skip
def test_what_a_buffer_is_counts(changes: dict[str, object]) -> None:
    """Shape, type, layout and space decide the schedule; the address does not."""
    assert fingerprint(kernel(), buffers(**changes)) != same()
    assert fingerprint(kernel(), buffers(offset=640)) == same()


def test_the_same_local_under_two_names_is_two() -> None:
    """A Let that nobody reads is not the one that is read."""
    def reads(name: str) -> Kernel:
        lets = tuple(Let(n, const(x, F32)) for n, x in (("p", 1.0), ("q", 2.0)))
        return Kernel("k", (*lets, Store("a", (Affine(), Affine()), Ref(name, F32))))

    assert fingerprint(reads("p"), buffers()) != fingerprint(reads("q"), buffers())


def test_what_is_asked_of_an_object_again_is_not_found_again() -> None:
    """Neither of the same object, nor, as another may take its place, of one that is gone."""
    asked: list[tuple[int, ...]] = []

    def find(of: tuple[int, ...]) -> int:
        asked.append(of)
        return sum(of)

    total, one, same = once(find), (1, 2), tuple(range(1, 3))
    assert (total(one), total(one), total(same)) == (3, 3, 3)
    assert len(asked) == 2
    many = [total(tuple(range(n, n + 3))) for n in range(20_000)]
    assert many == [3 * n + 3 for n in range(20_000)]


def test_facts_that_hold_for_all_kernels_alike_are_found_once() -> None:
    """Of kernels that differ in names alone the first is asked, of others each."""
    asked: list[object] = []

    def find(of: tuple[Stmt, ...]) -> int:
        asked.append(of)
        return len(asked)

    number = alike(find)
    names = [number(kernel().body), number(kernel("x", "y", "u").body)]
    assert names == [1, 1]
    assert [number(kernel(op="mul").body), number(kernel().body)] == [2, 1]


def test_facts_about_a_kernel_are_found_once() -> None:
    """Passes that name or schedule a kernel anew do not make others read it again."""
    first = kernel()
    other = replace(first, name="k9", barrier=True)
    assert reads_and_writes(first) == (frozenset("a"), frozenset("b"))
    assert reads_and_writes(other)[0] is reads_and_writes(first)[0]
    assert accesses(other.body) is accesses(first.body)
