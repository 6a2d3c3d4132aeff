"""Entry points, linking and manifest of a small program (`line_program`)."""

from __future__ import annotations

import ctypes
import hashlib
import json
import lzma
import shutil
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from nncompiler.codegen.emit import assembly, build, llvm_text
from nncompiler.codegen.module import abi
from nncompiler.codegen.module.program import lower
from nncompiler.codegen.objects.processes import compile_modules
from nncompiler.codegen.target import host, select
from nncompiler.errors import CompilerBug, Limitation
from nncompiler.ir.kernel import Argument, Check
from nncompiler.ir.model import HEADER_BYTES, EntryPoint
from nncompiler.runtime import elf
from nncompiler.runtime.artifact import open_artifact
from tests.codegen.line_program import (
    ARGUMENTS,
    ROWS,
    STATE,
    Library,
    Line,
    artifact,
    data,
    program,
    step_plan,
)


@pytest.fixture
def line() -> Library:
    library = Library(artifact())
    library.init(2)
    return library


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
        "limits": [{"below": 2, "part": []}],
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
