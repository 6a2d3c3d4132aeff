"""Reads a compiled artifact as a file, before it is opened as a library.

Nothing here trusts the file: whatever its bytes are, the outcome is a result or a `UserError`.
`check` vouches for the form (right machine, headers that make sense, nothing cut off), not for
the contents.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from nncompiler.errors import UserError

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_CLASS_64, _LITTLE_ENDIAN = 2, 1
_ET_DYN, _EM_X86_64 = 3, 62
_PT_LOAD, _PT_DYNAMIC = 1, 2
_SHT_NULL, _SHT_NOBITS = 0, 8
_MACHINES = {3: "32-bit x86", 40: "ARM", 183: "AArch64", 243: "RISC-V"}
_FOREIGN = {
    b"MZ": "a Windows program or library",
    b"\xcf\xfa\xed\xfe": "a macOS program or library",
    b"PK\x03\x04": "a zip archive, such as .npz weights",
    b"!<arch>": "a static library",
}


class _Segment(NamedTuple):
    kind: int
    rights: int
    offset: int
    address: int
    physical: int
    file_size: int
    size: int
    align: int


class _Section(NamedTuple):
    name: int
    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    align: int
    entry: int

    @property
    def file_size(self) -> int:
        return 0 if self.kind in (_SHT_NULL, _SHT_NOBITS) else self.size


def check(data: bytes, path: str = "the file") -> None:
    """Raise a `UserError` unless `data` is a whole shared object for Linux on x86-64."""
    _sections(data, path)


def read_section(data: bytes, name: str, path: str = "the file") -> bytes | None:
    """The contents of section `name`, after a `check`; None when no section has that name."""
    start, size = place_of(data, name, path)
    return data[start : start + size] if start else None


def place_of(data: bytes, name: str, path: str = "the file") -> tuple[int, int]:
    """Where section `name` is in the file, and its size there; 0 and 0 without such a section."""
    wanted = name.encode("utf-8", "replace")
    for found, section in _sections(data, path):
        if found == wanted:
            return section.offset, section.file_size
    return 0, 0


def _sections(data: bytes, path: str) -> list[tuple[bytes, _Section]]:
    """The sections by name, every header having been checked."""
    header = _header(data, path)
    segment_table, section_table, segment_count, section_count, names_index = header
    segment_size, section_size = segment_count * _SEGMENT.size, section_count * _SECTION.size
    _within(data, path, segment_table, segment_size)
    _within(data, path, section_table, section_size)
    rows = data[segment_table : segment_table + segment_size]
    segments = [_Segment._make(row) for row in _SEGMENT.iter_unpack(rows)]
    rows = data[section_table : section_table + section_size]
    sections = [_Section._make(row) for row in _SECTION.iter_unpack(rows)]
    for segment in segments:
        _within(data, path, segment.offset, segment.file_size)
        if segment.kind == _PT_LOAD and segment.file_size > segment.size:
            raise _damaged(path, "has a segment that is larger in the file than in memory")
    if not {_PT_LOAD, _PT_DYNAMIC} <= {segment.kind for segment in segments}:
        raise _damaged(path, "has nothing to load")
    for section in sections:
        _within(data, path, section.offset, section.file_size)
    if names_index >= section_count:
        raise _damaged(path, "has no names of sections")
    table = sections[names_index]
    names = data[table.offset : table.offset + table.file_size]
    return [(_name(names, path, section.name), section) for section in sections]


def _header(data: bytes, path: str) -> tuple[int, int, int, int, int]:
    """Offsets of the two header tables, their lengths, and the index of the section of names."""
    if data[:4] != b"\x7fELF":
        found = next((what for magic, what in _FOREIGN.items() if data.startswith(magic)), None)
        raise UserError(
            "NN0660",
            f"expected a compiled model, but {path} is {found or 'not a shared library'}"
            if data else f"expected a compiled model, but {path} is empty",
            help="compile a model with `nnc compile MODEL.nn -o MODEL.so`",
        )  # fmt: skip
    if len(data) < _HEADER.size:
        raise _truncated(data, path, _HEADER.size)
    (ident, kind, machine, _, _, segments, sections, _, _, segment_size, segment_count,
     section_size, section_count, names) = _HEADER.unpack_from(data)  # fmt: skip
    if ident[4] != _CLASS_64 or ident[5] != _LITTLE_ENDIAN or machine != _EM_X86_64:
        raise UserError(
            "NN0661",
            f"expected a library for 64-bit x86-64, but {path} is for "
            f"{_MACHINES.get(machine, f'another machine ({machine})')}",
            help="compile the model for this machine",
        )
    if kind != _ET_DYN:
        raise UserError("NN0661", f"expected a shared library, but {path} is of ELF type {kind}")
    if segment_count and segment_size != _SEGMENT.size:
        raise _damaged(path, f"has program headers of {segment_size} bytes")
    if section_count and section_size != _SECTION.size:
        raise _damaged(path, f"has section headers of {section_size} bytes")
    return segments, sections, segment_count, section_count, names


def _within(data: bytes, path: str, offset: int, size: int) -> None:
    if offset + size > len(data):
        raise _truncated(data, path, offset + size)


def _name(names: bytes, path: str, offset: int) -> bytes:
    end = names.find(b"\0", offset)
    if end < 0:
        raise _damaged(path, "has a section whose name does not end")
    return names[offset:end]


def _truncated(data: bytes, path: str, size: int) -> UserError:
    return UserError(
        "NN0662",
        f"expected at least {size} bytes, but {path} has {len(data)}: it is cut off or damaged",
        help="copy the file again, or compile the model again",
    )


def _damaged(path: str, what: str) -> UserError:
    return UserError(
        "NN0663", f"{path} is damaged: it {what}",
        help="copy the file again, or compile the model again",
    )  # fmt: skip
