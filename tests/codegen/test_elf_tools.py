"""What the tools of a system, where they are installed, say of the libraries that are written."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest

from nncompiler.runtime.elf import check, read_section
from tests.codegen.elf_cases import EXPORTS, exercise, opened


def tool(name: str) -> str:
    """The path of a program that a test needs for a cross-check."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def output(*command: object) -> str:
    """What a command prints; warnings on standard error count as failure."""
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and not done.stderr, done.stdout + done.stderr
    return done.stdout


def test_readelf_has_no_complaint(tmp_path: Path, library: bytes) -> None:
    """readelf reads every table without a warning and sees the symbols that were meant."""
    (tmp_path / "lib.so").write_bytes(library)
    readelf = tool("readelf")
    text = output(readelf, "-aW", "--debug-dump=frames", "--lint", tmp_path / "lib.so")
    assert "Library soname: [libkernel.so]" in text and "TEXTREL" not in text
    symbols = output(readelf, "-sW", tmp_path / "lib.so")
    dynamic, full = symbols.split("Symbol table '.symtab'")
    rows = [line.split() for line in dynamic.splitlines() if " FUNC " in line]
    assert sorted(row[-1] for row in rows) == sorted(EXPORTS)
    assert all(row[4] == "GLOBAL" and int(row[2]) > 0 for row in rows)
    assert {"double", "primes", "ops"} <= {line.split()[-1] for line in full.splitlines()[2:]}


def test_objdump_names_functions(tmp_path: Path, library: bytes) -> None:
    """A disassembly shows every function under its name, exported or not."""
    (tmp_path / "lib.so").write_bytes(library)
    text = output(tool("objdump"), "-d", tmp_path / "lib.so")
    assert all(f"<{name}>:" in text for name in (*EXPORTS, "double", "negate"))
    assert "(bad)" not in text


def test_stripped_library_works(tmp_path: Path, library: bytes) -> None:
    """strip, which rewrites the file from its headers, keeps a working library and manifest."""
    (tmp_path / "lib.so").write_bytes(library)
    output(tool("strip"), "-o", tmp_path / "stripped.so", tmp_path / "lib.so")
    data = (tmp_path / "stripped.so").read_bytes()
    check(data)
    assert read_section(data, ".symtab") is None
    assert read_section(data, ".nnmanifest") == b'{"abi": 1}'
    assert ctypes.CDLL(str(tmp_path / "stripped.so")).jump(3) == -9


def test_same_results_as_the_system_linker(tmp_path: Path, kernel: bytes, library: bytes) -> None:
    """A library that ld makes of the same object gives the same results."""
    (tmp_path / "kernel.o").write_bytes(kernel)
    output(tool("ld"), "-shared", "-o", tmp_path / "ld.so", tmp_path / "kernel.o")
    theirs = exercise(ctypes.CDLL(str(tmp_path / "ld.so")))
    assert exercise(opened(tmp_path, library)) == theirs


def test_c_programs_link_and_open_it(tmp_path: Path, library: bytes) -> None:
    """A C program is linked against the library; another opens it with dlopen."""
    cc = tool("cc")
    (tmp_path / "libkernel.so").write_bytes(library)
    (tmp_path / "linked.c").write_text(
        "#include <stdio.h>\nint prime(int); int jump(int);\n"
        'int main(void) { printf("%d %d\\n", prime(3), jump(3)); }\n'
    )
    (tmp_path / "opened.c").write_text(
        "#include <stdio.h>\n#include <dlfcn.h>\n"
        "int main(int n, char **a) { void *l = dlopen(a[n - 1], RTLD_NOW); if (!l) return 1;\n"
        '  int (*f)(int) = (int (*)(int))dlsym(l, "jump"); printf("%d %d\\n", f(1), f(3));\n'
        "  return dlclose(l); }\n"
    )
    linked, loaded = tmp_path / "linked", tmp_path / "opened"
    output(cc, tmp_path / "linked.c", "-o", linked, "-L", tmp_path, "-lkernel",
           f"-Wl,-rpath,{tmp_path}")  # fmt: skip
    output(cc, tmp_path / "opened.c", "-o", loaded, "-ldl")
    assert output(linked) == "7 -9\n"
    assert output(loaded, tmp_path / "libkernel.so") == "7 -9\n"
