"""The reader of artifacts trusts no file."""

from __future__ import annotations

import os
import random
import struct
from pathlib import Path

import pytest

from nncompiler.errors import UserError
from nncompiler.runtime.elf import check, read_section


def test_sections_are_read_from_the_file(library: bytes) -> None:
    """Added sections come back whole; others too; unknown names are None."""
    check(library)
    assert read_section(library, ".nnmanifest") == b'{"abi": 1}'
    assert read_section(library, ".nntexts") == bytes(range(256)) * 5
    assert read_section(library, ".bss") == b""
    assert len(read_section(library, ".text") or b"") > 100
    assert read_section(library, ".nnmanifes") is None
    assert read_section(library, "\udcff") is None


def test_sections_of_a_foreign_library() -> None:
    """Another library of the system passes the check, and has no manifest."""
    path = next(
        (line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines()
         if "libc.so" in line or "libm.so" in line), None,
    )  # fmt: skip
    if path is None or not os.path.exists(path):
        pytest.skip("no C library is mapped under a known name")
    data = Path(path).read_bytes()
    check(data)
    assert read_section(data, ".nnmanifest") is None


def test_foreign_files_are_refused(kernel: bytes, library: bytes) -> None:
    """The message says what the file is instead of a model."""
    arm = library[:18] + struct.pack("<H", 183) + library[20:]
    cases = [
        (b"", "NN0660", "m.so is empty"),
        (b"network lenet { }", "NN0660", "m.so is not a shared library"),
        (b"PK\x03\x04" + bytes(100), "NN0660", "zip archive"),
        (b"\x7fELF", "NN0662", "at least 64 bytes, but m.so has 4"),
        (arm, "NN0661", "AArch64"),
        (library[:4] + b"\x01" + library[5:], "NN0661", "64-bit"),
        (kernel, "NN0661", "ELF type 1"),
        (library[:54] + b"\x10\0" + library[56:], "NN0663", "program headers of 16 bytes"),
    ]
    for data, code, message in cases:
        for attempt in (check, lambda d, p: read_section(d, ".nnmanifest", p)):
            with pytest.raises(UserError) as caught:
                attempt(data, "m.so")  # type: ignore[operator]
            assert caught.value.code == code and message in caught.value.message


def test_every_cut_is_noticed(library: bytes) -> None:
    """However short a copy is, it is refused."""
    for size in range(len(library)):
        with pytest.raises(UserError):
            check(library[:size])


def test_arbitrary_bytes_never_crash_the_reader(library: bytes) -> None:
    """Mutated files give a result or a `UserError`, nothing else, and at once."""
    rng = random.Random(7)
    interesting = [b"\xff" * 8, bytes(8), b"\x00\x00\x00\x80", b"\xff\x7f", b"\x01"]
    headers = [*range(64), *range(64, 400), *range(len(library) - 16 * 64, len(library))]
    refused = 0
    for _ in range(3000):
        data = bytearray(library)
        for _ in range(rng.randint(1, 6)):
            at = rng.choice(headers)
            patch = rng.choice([*interesting, rng.randbytes(rng.randint(1, 8))])
            data[at : at + len(patch)] = patch
        if rng.random() < 0.1:
            data = data[: rng.randrange(len(data))]
        try:
            check(bytes(data))
            read_section(bytes(data), ".nnmanifest")
        except UserError as error:
            assert error.code in {"NN0660", "NN0661", "NN0662", "NN0663"}
            refused += 1
    assert 300 < refused < 3000
