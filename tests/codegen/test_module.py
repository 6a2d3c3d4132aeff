"""Entry points, linking, header and manifest: a hand-built linear regression with momentum.

`line` has input x f32[4,3], target t f32[4,1] and target group i32[4] (0 or 1, doubling the loss
of a row). Its plans are written here as data; compiled, they must do what NumPy does.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import lzma
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from nncompiler.codegen.emit import Artifact, assembly, build, llvm_text
from nncompiler.codegen.module import abi
from nncompiler.codegen.module.program import lower
from nncompiler.codegen.objects.processes import compile_modules
from nncompiler.codegen.target import host, select
from nncompiler.errors import CompilerBug, Limitation
from nncompiler.ir.kernel import (
    Argument,
    Axis,
    Buffer,
    Check,
    Fold,
    For,
    Kernel,
    Let,
    Plan,
    Store,
)
from nncompiler.ir.model import HEADER_BYTES, EntryPoint, Program, lay_out
from nncompiler.ir.scalar import Affine, Expr, Load, Ref, apply, cast, const
from nncompiler.ir.types import F32, I32, TensorType, parse_type
from nncompiler.runtime import elf
from nncompiler.runtime.artifact import open_artifact
from nncompiler.runtime.call import aligned

ROWS, FEATURES = 4, 3
STATE = lay_out(
    F32,
    (("W", TensorType(F32, (FEATURES, 1))), ("b", TensorType(F32, (1,)))),
    (("opt.m.W", TensorType(F32, (FEATURES, 1))), ("opt.m.b", TensorType(F32, (1,)))),
)

# --- the program ---------------------------------------------------------------------------------


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
    return Buffer(name, parse_type(type), "argument")


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
        Buffer("e", parse_type("f32[4,1]"), "arena", 64),
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
        Buffer("table", parse_type("f32[3]"), "constant", data=data), *state_buffers("W", "seed"),
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


# --- NumPy's version -----------------------------------------------------------------------------


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


@pytest.fixture
def line() -> Library:
    library = Library(artifact())
    library.init(2)
    return library


# --- running -------------------------------------------------------------------------------------


def test_init_fills_the_state(line: Library) -> None:
    """init zeroes everything, writes the header, and runs its plan."""
    line.init(2**33 + 2)
    assert line.view("seed").tolist() == [2, 2] and line.view("step")[0] == 0
    assert line.view("rate")[0] == np.float32(0.1) and line.view("draws")[0] == 0
    assert line.view("W").tolist() == [2, 4, 6] and line.view("b").tolist() == [0]
    assert not line.state[STATE.infer_bytes :].any()


def test_infer_equals_numpy(line: Library) -> None:
    """infer reads the state, writes its output, and leaves the state alone."""
    x, y = data(ROWS)[0], np.empty((ROWS, 1), np.float32)
    before = line.state.copy()
    assert line("line_infer_b4", line.state, line.arena, x, y) == 0
    np.testing.assert_allclose(y, Line(2).infer(x), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(line.state, before)


def test_train_step_equals_numpy(line: Library) -> None:
    """Three steps give NumPy's losses and parameters, and count themselves."""
    model, loss = Line(2), np.empty((), np.float32)
    for rows in (ROWS, ROWS, ROWS):
        x, t, group = data(rows)
        assert line("line_train_step_b4", line.state, line.arena, x, t, group, loss) == 0
        np.testing.assert_allclose(loss, model.step(x, t, group), rtol=1e-5)
    np.testing.assert_allclose(line.view("W"), model.w[:, 0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(line.view("opt.m.b"), model.mb, rtol=1e-4, atol=1e-5)
    assert line.view("step")[0] == 3


@pytest.mark.parametrize("shuffled", [True, False])
def test_fit_is_a_loop_of_steps(line: Library, shuffled: bool) -> None:
    """fit gathers the rows of each batch, adds row-weighted losses, and leaves the rest alone."""
    x, t, group = data(11)
    order = np.random.default_rng(0).permutation(11).astype(np.int64) if shuffled else None
    picks = order if order is not None else np.arange(11)
    total = np.float64([100])
    code = line.fit(x, t, group, order, 11, total)
    model, expected = Line(2), 100.0
    for batch in (picks[:4], picks[4:8]):
        expected += 4 * model.step(x[batch], t[batch], group[batch])
    assert code == 0 and line.view("step")[0] == 2
    np.testing.assert_allclose(total[0], expected, rtol=1e-5)
    np.testing.assert_allclose(line.view("W"), model.w[:, 0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rows", [-(2**63), -5, 0, 3])
def test_fit_without_a_whole_batch_does_nothing(line: Library, rows: int) -> None:
    """Fewer rows than a batch, or none, train nothing."""
    x, t, group = data(ROWS)
    total, before = np.zeros(1), line.state.copy()
    code = line.fit(x, t, group, None, rows, total)
    assert code == 0 and total[0] == 0
    np.testing.assert_array_equal(line.state, before)


@pytest.mark.parametrize("bad", [-1, 2, 2**31 - 1])
def test_index_out_of_range_writes_nothing(line: Library, bad: int) -> None:
    """A step with a bad index is refused whole; fit keeps the batches before it."""
    x, t, group = data(8)
    group[6] = bad
    loss, before = np.float32([7]), line.state.copy()
    arguments = (line.state, line.arena, x[4:], t[4:], group[4:])
    assert line("line_train_step_b4", *arguments, loss) == abi.INDEX_RANGE
    assert loss[0] == 7 and (line.state == before).all()
    total = np.zeros(1)
    code = line.fit(x, t, group, None, 8, total)
    assert code == abi.INDEX_RANGE and line.view("step")[0] == 1 and total[0] > 0


def test_bad_pointers_are_refused(line: Library) -> None:
    """Null and misaligned pointers give a code, not a crash."""
    x, y = data(ROWS)[0], np.empty((ROWS, 1), np.float32)
    bytes_of_x = np.zeros(64, np.uint8)[1:]
    assert line("line_infer_b4", line.state, None, x, y) == 0  # it needs no arena
    for arguments in ((None, None, x, y), (line.state[4:], None, x, y),
                      (line.state, None, None, y), (line.state, None, bytes_of_x, y)):
        assert line("line_infer_b4", *arguments) == abi.BAD_POINTER
    t, group = data(ROWS)[1:]
    loss = np.empty((), np.float32)
    for arena in (None, line.arena[8:]):
        code = line("line_train_step_b4", line.state, arena, x, t, group, loss)
        assert code == abi.BAD_POINTER
    assert line("line_init", None, ctypes.c_uint64(1)) == abi.BAD_POINTER


def test_load_copies_the_parameters(line: Library) -> None:
    """load takes an image of the parameters of exactly the right size."""
    size = STATE.infer_bytes - HEADER_BYTES
    image = np.arange(size // 4, dtype=np.float32)
    assert line("line_load", line.state, image, ctypes.c_size_t(size)) == 0
    assert line.view("W").tolist() == [0, 1, 2] and line.view("b").tolist() == [16]
    assert line.view("rate")[0] == np.float32(0.1)
    for wrong in (0, size - 1, size + 64):
        code = line("line_load", line.state, image, ctypes.c_size_t(wrong))
        assert code == abi.WRONG_SIZE


def test_sizes(line: Library) -> None:
    """The size functions say what the layout says, staging of fit included."""
    names = ("state_bytes", "infer_state_bytes", "arena_bytes")
    sizes = [line.function(f"line_{n}")() for n in names]
    assert sizes == [STATE.bytes, STATE.infer_bytes, 128 + 4 * 64]


def test_embedded_weights() -> None:
    """init of an artifact with weights gives those parameters, whatever the seed."""
    image = np.arange((STATE.infer_bytes - HEADER_BYTES) // 4, dtype=np.float32).tobytes()
    library = Library(build(program(), host(), weights=image))
    library.init(9)
    assert library.view("W").tolist() == [0, 1, 2] and library.view("b").tolist() == [16]
    assert library.view("seed").tolist() == [9, 0]


# --- what is built -------------------------------------------------------------------------------


def test_same_bytes_twice() -> None:
    """Building is deterministic, and a caller's way of compiling changes nothing."""
    def backwards(texts: Any, target: Any) -> list[bytes]:
        return compile_modules(list(texts)[::-1], target)[::-1]

    options: dict[str, Any] = {"texts": lambda: {"graph": {"infer": "graph text"}},
                               "source_sha256": "ab" * 32, "version": "1.2"}
    again = build(program(), host(), compile=backwards, **options)
    assert again.so == artifact().so and again.header == artifact().header


def test_every_level_compiles() -> None:
    """Newer processors get wider vectors, older ones code without fma; the target is named."""
    assert build(program(), select("x86-64-v4")).manifest["target"]["cpu"] == "x86-64-v4"
    made = build(program(), select("x86-64-v2"))
    assert made.manifest["target"]["cpu"] == "x86-64-v2"
    library = Library(made)
    library.init(1)
    assert library.view("W").tolist() == [1, 2, 3]


def test_only_the_interface_is_exported() -> None:
    """Dynamic symbols are the functions of the header; kernels and helpers stay inside."""
    library = Library(artifact())
    for name in abi.exports(program()):
        assert library.function(name)
    for name in (*lower(program(), host()).kernels, "nn.copy"):
        with pytest.raises(Exception, match=name):
            library.function(name)


def test_no_undefined_symbols(tmp_path: Any) -> None:
    """objdump, an independent reader, sees no undefined symbol and no needed library."""
    if shutil.which("objdump") is None:
        pytest.skip("objdump is not installed")
    path = tmp_path / "line.so"
    path.write_bytes(artifact().so)
    shown = subprocess.run(["objdump", "-Tp", path], capture_output=True, text=True, check=True)
    assert "line_fit_b4" in shown.stdout
    assert "*UND*" not in shown.stdout and "NEEDED" not in shown.stdout


def test_equal_kernels_are_compiled_once() -> None:
    """Two bindings of the same sizes share their functions; names do not matter."""
    entries = program().entries
    renamed = replace(step_plan().steps[0], name="other")
    plan = replace(step_plan(), steps=(renamed, *step_plan().steps[1:]))
    more = replace(program(), entries=(*entries, EntryPoint("grad", "b4", plan, ROWS)))
    assert lower(more, host()).kernels.keys() == lower(program(), host()).kernels.keys()
    assert len(lower(program(), host()).kernels) == 5


def test_manifest_describes_the_functions() -> None:
    """The manifest is JSON in its section, with the digest of the file and every argument."""
    made = artifact()
    section = elf.read_section(made.so, ".nnmanifest")
    assert section is not None and json.loads(section) == made.manifest
    digest = made.manifest["digest"]
    assert hashlib.sha256(made.so.replace(digest.encode(), b"0" * 64)).hexdigest() == digest
    by_name = {e["symbol"]: e for e in made.manifest["entries"]}
    assert list(by_name) == ["line_init", "line_infer_b4", "line_train_step_b4"]
    assert by_name["line_train_step_b4"]["arguments"][2] == {
        "name": "group", "role": "target", "dtype": "i32", "shape": [4], "batched": True,
        "limit": 2,
    }
    assert made.manifest["fit"] == {"b4": "line_fit_b4"} and made.manifest["nncompiler"] == "1.2"


def test_texts_ask_for_lzma(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some builds of Python have none."""
    monkeypatch.setitem(sys.modules, "lzma", None)
    with pytest.raises(Limitation, match="the module lzma"):
        artifact.__wrapped__()


def test_texts_are_embedded() -> None:
    """Texts of earlier stages come back out of the file."""
    section = elf.read_section(artifact().so, ".nntexts")
    assert section is not None
    texts = json.loads(lzma.decompress(section))
    assert list(texts) == ["graph", "kernels"] and texts["graph"] == {"infer": "graph text"}
    found = {name: text.split() for name, text in texts["kernels"].items()}
    assert list(found) == ["init", "infer_b4", "train_step_b4"]
    assert found["infer_b4"][0] == "k0" and found["infer_b4"][1].startswith("k_")
    assert open_artifact(artifact().so).text("graph", "infer") == "graph text"


def test_texts_of_the_code() -> None:
    """LLVM text and assembly come in the same parts, entry points first."""
    ir, asm = llvm_text(program(), host()), assembly(program(), host())
    assert list(ir) == list(asm) and next(iter(ir)) == "entries"
    assert "define i32 @line_fit_b4" in ir["entries"] and "line_fit_b4:" in asm["entries"]


LINKED = ("line.so", "-Wl,-rpath,$ORIGIN")
MAIN = """
#include <stdio.h>
#include <stdlib.h>
#include "line.h"
int main(void) {
    static float x[12] = {1, 2, 3, 4, 5, 6}, y[4];
    void *state = aligned_alloc(64, LINE_STATE_BYTES);
    void *arena = aligned_alloc(64, LINE_ARENA_BYTES);
    if (line_init(state, 1) != LINE_OK || line_infer_b4(state, arena, x, y) != LINE_OK) return 1;
    printf("%g %g %g", y[0], y[1], ((float *)((char *)state + LINE_OFFSET_W))[2]);
    free(state);
    free(arena);
    return line_state_bytes() != LINE_STATE_BYTES;
}
"""


def _cc(tmp_path: Any, *arguments: str) -> None:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler (cc) is installed")
    (tmp_path / "line.h").write_text(artifact().header)
    (tmp_path / "line.so").write_bytes(artifact().so)
    strict = ["-Wall", "-Wextra", "-pedantic", "-Werror"]
    command = ["cc", *strict, *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_header_is_strict_c99(tmp_path: Any) -> None:
    """The header alone compiles as C99 without a warning."""
    (tmp_path / "h.c").write_text('#include "line.h"\nint main(void) { return 0; }\n')
    _cc(tmp_path, "-std=c99", "-fsyntax-only", "h.c")


def test_c_program_runs(tmp_path: Any) -> None:
    """A C program linked against the artifact computes what Python does."""
    (tmp_path / "main.c").write_text(MAIN)
    _cc(tmp_path, "-std=c11", "main.c", *LINKED, "-o", "main")
    done = subprocess.run([tmp_path / "main"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "14 32 3")


def test_header_names_the_cpu() -> None:
    """A C program has no loader that would check it: the header says what the code runs on."""
    level = artifact().manifest["target"]["cpu"]
    assert level.startswith("x86-64-v") and f"CPUs of level {level} " in artifact().header


def test_the_example_in_the_header_compiles(tmp_path: Any) -> None:
    """The usage comment is a whole program."""
    comment = artifact().header.rpartition("/*\n * Example")[2].partition("*/")[0]
    lines = [line.removeprefix(" * ").removeprefix(" *") for line in comment.splitlines()[2:]]
    (tmp_path / "example.c").write_text("\n".join(lines) + "\n")
    _cc(tmp_path, "-std=c11", "example.c", *LINKED, "-o", "example")
    done = subprocess.run([tmp_path / "example"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "0\n")


def test_argument_names_are_safe_in_c() -> None:
    """Names that C or the interface uses, and names that collide, are changed."""
    names = ["%x.y", "x_y", "int", "state", "2d"]
    buffers = tuple(argument_buffer(n, "f32[1]") for n in names)
    plan = Plan("p", tuple(Argument(n, "input") for n in names), buffers, ())
    assert abi.argument_names(plan) == ["x_y", "x_y_", "int_", "state_", "_2d"]


# --- refusals ------------------------------------------------------------------------------------


def test_broken_programs_are_bugs() -> None:
    """What a plan of its kind must not have is refused: an init with an arena, a loss that is no
    scalar, one name twice, an infer that writes the state, a check of floats."""
    init, infer, step = program().entries
    with_arena = EntryPoint("init", "", replace(init.plan, arena_bytes=64))
    wide = replace(step, plan=replace(step.plan, arguments=(*ARGUMENTS, Argument("x", "output"))))
    writing = replace(infer, plan=step.plan)
    unchecked = replace(step, plan=replace(step.plan, checks=(Check("x", 2),)))
    for entries in ((with_arena,), (wide,), (infer, infer), (writing,), (unchecked,)):
        with pytest.raises(CompilerBug):
            build(replace(program(), entries=entries), host())
    with pytest.raises(CompilerBug, match="weights"):
        build(program(), host(), weights=b"short")
