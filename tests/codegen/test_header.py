"""The header of a small program (`line_program`), and programs in C that include it."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

import pytest

from nncompiler.codegen.module import abi
from nncompiler.ir.kernel import Argument, Plan
from tests.codegen.line_program import argument_buffer, artifact

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
