"""LLVM text under construction: what is shared, where it stands, and loops around it."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from nncompiler.codegen.elf.link import link
from nncompiler.codegen.instructions.blocks import Counter
from nncompiler.codegen.instructions.value import Value
from nncompiler.codegen.instructions.writer import Writer
from nncompiler.codegen.objects.object_code import compile_module
from nncompiler.codegen.target import TRIPLE, host
from nncompiler.ir.scalar import I32


def number(text: str) -> Value:
    return Value(text, I32)


def run(writer: Writer, result: str, n: int, folder: Path) -> int:
    """What the body returns for an argument %n."""
    text = f"define i32 @f(i64 %n) {{\nentry:\n{writer.text()}\n  ret i32 {result}\n}}\n"
    module = f'target triple = "{TRIPLE}"\n{text}'
    path = folder / "f.so"
    path.write_bytes(link([compile_module(module, host())], ["f"], "f.so", {}))
    call = ctypes.CDLL(str(path)).f
    call.argtypes = [ctypes.c_int64]
    return int(call(n))


def test_equal_instructions_are_written_once():
    """The second one is the first one's name."""
    w = Writer()
    assert w.assign("add i64 %n, 1") == w.assign("add i64 %n, 1")
    assert w.text().count("add i64") == 1


def test_fixed_instructions_are_written_where_they_stand():
    """A load of what is written may give something else the next time."""
    w = Writer()
    assert w.assign("load i64, ptr %p", fixed=True) != w.assign("load i64, ptr %p", fixed=True)


def nested(w: Writer, inner: str) -> list[str]:
    """Two loops, the instruction `inner` in the second; labels and instructions in order."""

    def outside(i: Counter, _: list[Value]) -> list[Value]:
        def inside(j: Counter, _: list[Value]) -> list[Value]:
            w.assign(inner.format(i=i, j=j))
            return []

        w.loop(0, 4, 1, [], inside)
        return []

    w.loop(0, 4, 1, [], outside)
    return w.text().splitlines()


@pytest.mark.parametrize(
    "inner, place", [("mul i64 %n, 3", 0), ("mul i64 {i}, 3", 1), ("mul i64 {j}, 3", 2)]
)
def test_what_loops_do_not_change_stands_in_front_of_them(inner, place):
    """An instruction is in the loop of its innermost operand."""
    lines = nested(Writer(), inner)
    at = next(k for k, line in enumerate(lines) if " = mul " in line)
    assert sum(line.startswith("head") for line in lines[:at]) == place


def test_multiples_of_an_innermost_counter_are_carried():
    """Those of a loop around it would take registers, and are products there."""
    inner = nested(Writer(), "mul nsw i64 {j}, 12")
    assert not any("mul" in line for line in inner)
    assert any("phi i64 [ 0, %head" in line for line in inner)
    assert any(line.endswith(", 12") and "= add i64" in line for line in inner)
    assert any("= mul nsw i64" in line for line in nested(Writer(), "mul nsw i64 {i}, 12"))


@pytest.mark.parametrize(("factor", "start"), [(5, 0), (-3, 2)])
def test_carried_multiples_have_the_values_of_products(factor, start, tmp_path):
    """From a start known at compile time, and from one that is not."""

    def once(begin: Counter, sums: list[Value]) -> list[Value]:
        def add(i: Counter, carried: list[Value]) -> list[Value]:
            product = w.assign(f"mul nsw i64 {i}, {factor}")
            small = w.assign(f"trunc i64 {product} to i32")
            return [number(w.assign(f"add i32 {carried[0].text}, {small}"))]

        return w.span(begin, stop, sums, add)

    w = Writer()
    stop = w.assign("add i64 %n, 0")
    early = w.assign(f"add i64 %n, {-start - 2}")
    (total,) = once(early, once(start, [number("0")]))
    expected = factor * (sum(range(start, 9)) + sum(range(9 - start - 2, 9)))
    assert run(w, total.text, 9, tmp_path) == expected


def test_nothing_leaves_a_condition_for_its_own_sake():
    """What is needed on a condition only is computed on it, but not in a loop inside of it."""
    w = Writer()

    def body(_: Counter, __: list[Value]) -> list[Value]:
        w.loop(0, 4, 1, [], lambda i, c: [w.assign("mul i64 %n, 3"), []][1])
        return []

    w.when("%n", 0, 7, body)
    lines = w.text().splitlines()
    at = next(k for k, line in enumerate(lines) if " = mul " in line)
    assert sum(line.startswith("then") for line in lines[:at]) == 1
    assert not any(line.startswith("head") for line in lines[:at])


@pytest.mark.parametrize("n, expected", [(0, 7), (1, 7), (2, 8), (5, 17)])
def test_spans_that_may_be_empty_hand_on_what_they_carry(n, expected, tmp_path):
    """7 + 1 + ... + (n - 1) over two spans, the second of three steps."""
    w = Writer()

    def outer(i: Counter, total: list[Value]) -> list[Value]:
        def inner(_: Counter, carried: list[Value]) -> list[Value]:
            part = w.assign(f"trunc i64 {i} to i32")
            return [number(w.assign(f"add i32 {carried[0].text}, {part}"))]

        return w.some(0, "%one", total, inner)

    w.line("%one = add i64 0, 1")
    (total,) = w.unless_empty(
        [(1, "%n"), (0, "%one")], [number("7")], lambda c: w.some(1, "%n", c, outer)
    )
    assert run(w, total.text, n, tmp_path) == expected


def test_results_of_loops_belong_to_what_is_around_them(tmp_path):
    """A value that a loop made is used after it, in another loop."""
    w = Writer()

    def step(i: Counter, carried: list[Value]) -> list[Value]:
        part = w.assign(f"trunc i64 {i} to i32")
        return [number(w.assign(f"add i32 {carried[0].text}, {part}"))]

    first = w.loop(0, 4, 1, [number("0")], step)
    twice = w.loop(0, 3, 1, first, lambda i, c: [number(w.assign(f"add i32 {c[0].text}, 1"))])
    assert run(w, twice[0].text, 0, tmp_path) == 9


@pytest.mark.parametrize("start, stop", [(0, 0), (3, 3), (4, 2)])
def test_empty_loops_hand_on_what_they_carry(start, stop):
    """Nothing is written for a loop that never runs."""
    w = Writer()
    seven = [number("7")]
    assert w.span(start, stop, seven, lambda i, c: pytest.fail("a body")) == seven
    assert w.text() == ""
