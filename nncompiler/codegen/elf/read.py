"""Reads the relocatable x86-64 ELF objects that LLVM emits: sections, symbols, relocations.

Objects come from our own code generator, so whatever is malformed here is a `CompilerBug`.
The numbers and records of the format that reading and writing share are defined here.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

from nncompiler.errors import CompilerBug
from nncompiler.record import dataclass

IDENT = b"\x7fELF\x02\x01\x01" + bytes(9)  # 64 bits, little endian, version 1, System V
ET_REL, ET_DYN, EM_X86_64 = 1, 3, 62
SHF_WRITE, SHF_ALLOC, SHF_EXECINSTR, SHF_MERGE, SHF_TLS = 0x1, 0x2, 0x4, 0x10, 0x400
SHN_UNDEF, SHN_LORESERVE = 0, 0xFF00
STB_LOCAL, STB_GLOBAL, STB_WEAK = 0, 1, 2
STT_SECTION, STT_GNU_IFUNC = 3, 10

HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
PROGRAM = struct.Struct("<IIQQQQQQ")
SECTION = struct.Struct("<IIQQQQIIQQ")
SYMBOL = struct.Struct("<IBBHQQ")
RELA = struct.Struct("<QIIq")


class SHT(IntEnum):
    """Section types."""

    NULL = 0
    PROGBITS = 1
    SYMTAB = 2
    STRTAB = 3
    RELA = 4
    HASH = 5
    DYNAMIC = 6
    NOTE = 7
    NOBITS = 8
    REL = 9
    DYNSYM = 11
    X86_64_UNWIND = 0x70000001


class Reloc(IntEnum):
    """x86-64 relocation types: the ones that are applied first, then some to name in errors."""

    R_X86_64_NONE = 0
    R_X86_64_64 = 1
    R_X86_64_PC32 = 2
    R_X86_64_PLT32 = 4
    R_X86_64_RELATIVE = 8
    R_X86_64_GOTPCREL = 9
    R_X86_64_PC64 = 24
    R_X86_64_GOTPCRELX = 41
    R_X86_64_REX_GOTPCRELX = 42

    R_X86_64_GOT32 = 3
    R_X86_64_32 = 10
    R_X86_64_32S = 11
    R_X86_64_16 = 12
    R_X86_64_8 = 14
    R_X86_64_TLSGD = 19
    R_X86_64_TLSLD = 20
    R_X86_64_DTPOFF32 = 21
    R_X86_64_GOTTPOFF = 22
    R_X86_64_TPOFF32 = 23
    R_X86_64_GOTOFF64 = 25
    R_X86_64_GOTPC32 = 26
    R_X86_64_GOT64 = 27
    R_X86_64_GOTPC64 = 29
    R_X86_64_PLTOFF64 = 31


class Relocation(NamedTuple):
    """Patch `offset` of its section with the address of a symbol, as `kind` says."""

    offset: int
    kind: int
    symbol: int
    addend: int


class Symbol(NamedTuple):
    """An entry of the symbol table; `section` is an index or one of the SHN values."""

    name: str
    binding: int
    kind: int
    section: int
    value: int
    size: int


@dataclass(frozen=True, slots=True)
class Section:
    """An input section; `data` is empty for NOBITS, whatever the `size`."""

    name: str
    kind: int
    flags: int
    size: int
    align: int
    data: memoryview
    relocations: tuple[Relocation, ...]


@dataclass(frozen=True, slots=True)
class Object:
    """A relocatable object: `index` is its place among the objects being linked."""

    index: int
    sections: tuple[Section, ...]
    symbols: tuple[Symbol, ...]

    def label(self, index: int) -> str:
        """What to call a symbol in an error: its name, or that of the section it stands for."""
        symbol = self.symbols[index]
        if symbol.kind == STT_SECTION and symbol.section < len(self.sections):
            return self.sections[symbol.section].name
        return symbol.name


class _Raw(NamedTuple):
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


def read_object(data: bytes, index: int = 0) -> Object:
    """Parse a relocatable object."""
    try:
        return _read(memoryview(data), index)
    except (struct.error, IndexError, UnicodeDecodeError, ValueError) as error:
        raise CompilerBug("NN0560", f"object {index} is a malformed ELF file: {error}") from error


def _read(data: memoryview, index: int) -> Object:
    header = HEADER.unpack_from(data)
    if header[0][:7] != IDENT[:7] or header[1:3] != (ET_REL, EM_X86_64):
        raise CompilerBug("NN0560", f"expected object {index} to be a relocatable x86-64 ELF file")
    table, count, names = header[6], header[12], header[13]
    raws = [_Raw._make(SECTION.unpack_from(data, table + i * SECTION.size)) for i in range(count)]
    bodies = [_body(data, raw) for raw in raws]
    section_names = bytes(bodies[names])
    relocations: dict[int, tuple[Relocation, ...]] = {}
    symbols: tuple[Symbol, ...] = ()
    for raw, body in zip(raws, bodies, strict=True):
        if raw.kind == SHT.RELA:
            relocations[raw.info] = tuple(map(Relocation._make, RELA.iter_unpack(body)))
        elif raw.kind == SHT.SYMTAB:
            symbols = _symbols(body, bytes(bodies[raw.link]))
        elif raw.kind == SHT.REL:
            raise CompilerBug("NN0560", f"object {index} has relocations without addends")
    sections = tuple(
        Section(_text(section_names, raw.name), raw.kind, raw.flags, raw.size, max(1, raw.align),
                body, relocations.get(i, ()))
        for i, (raw, body) in enumerate(zip(raws, bodies, strict=True))
    )  # fmt: skip
    return Object(index, sections, symbols)


def _body(data: memoryview, raw: _Raw) -> memoryview:
    if raw.kind in (SHT.NULL, SHT.NOBITS):
        return data[:0]
    if raw.offset + raw.size > len(data):
        raise ValueError("a section ends after the end of the file")
    return data[raw.offset : raw.offset + raw.size]


def _text(table: bytes, offset: int) -> str:
    """The zero-terminated string at `offset` of a string table."""
    return table[offset : table.index(0, offset)].decode()


def _symbols(body: memoryview, strings: bytes) -> tuple[Symbol, ...]:
    return tuple(
        Symbol(_text(strings, name), info >> 4, info & 15, section, value, size)
        for name, info, _, section, value, size in SYMBOL.iter_unpack(body)
    )
