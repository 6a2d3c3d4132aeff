"""The tables of a shared object: what the dynamic loader reads, and symbols for gdb and perf.

The size of every loaded table follows from names and counts, so the sections are reserved before
addresses are given and filled after.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from nncompiler.codegen.elf.image import OutputSection, Region, StringTable
from nncompiler.codegen.elf.read import RELA, SHT, STB_LOCAL, SYMBOL, Reloc

_DYNAMIC = struct.Struct("<QQ")
_DT_NULL, _DT_HASH, _DT_STRTAB, _DT_SYMTAB, _DT_RELA = 0, 4, 5, 6, 7
_DT_RELASZ, _DT_RELAENT, _DT_STRSZ, _DT_SYMENT, _DT_SONAME = 8, 9, 10, 11, 14
_DT_RELACOUNT = 0x6FFFFFF9
_LONGEST_NAME = 255  # of a file


class OutputSymbol(NamedTuple):
    """A symbol of the shared object; `section` is the index of its section header."""

    name: str
    binding: int
    kind: int
    section: int
    address: int
    size: int


class DynamicTables:
    """The sections that the dynamic loader reads, for exports in a given order."""

    def __init__(self, soname: str, exports: Sequence[str], relatives: int) -> None:
        self._strings = StringTable()
        for name in exports:
            self._strings.add(name)
        self._soname = self._strings.add(soname.ljust(_LONGEST_NAME, "\0"))  # may be changed
        read, strings = Region.READ, self._strings.data
        self._hash = OutputSection(".hash", read, SHT.HASH, 8, 4, ".dynsym")
        self._hash.append(_hash_table(exports))
        self._symbols = OutputSection(".dynsym", read, SHT.DYNSYM, 8, SYMBOL.size, ".dynstr", 1)
        self._symbols.size = SYMBOL.size * (1 + len(exports))
        self._names = OutputSection(".dynstr", read, SHT.STRTAB, 1)
        self._names.append(strings)
        self._relocations = OutputSection(".rela.dyn", read, SHT.RELA, 8, RELA.size, ".dynsym")
        self._relocations.size = RELA.size * relatives
        self._dynamic = OutputSection(
            ".dynamic", Region.RELRO, SHT.DYNAMIC, 8, _DYNAMIC.size, ".dynstr"
        )
        self._dynamic.size = _DYNAMIC.size * len(self._entries())

    @property
    def sections(self) -> tuple[OutputSection, ...]:
        """The sections to lay out."""
        relocations = (self._relocations,) if self._relocations.size else ()
        return self._hash, self._symbols, self._names, *relocations, self._dynamic

    def fill(self, symbols: Sequence[OutputSymbol], relatives: Sequence[tuple[int, int]]) -> None:
        """Set the contents that need addresses; a relative is (address, the address it holds)."""
        self._symbols.pieces = [(0, symbol_table(symbols, self._strings)[0])]
        rows = [RELA.pack(at, Reloc.R_X86_64_RELATIVE, 0, target) for at, target in relatives]
        self._relocations.pieces = [(0, b"".join(rows))]
        rows = [_DYNAMIC.pack(tag, value) for tag, value in self._entries()]
        self._dynamic.pieces = [(0, b"".join(rows))]

    def _entries(self) -> list[tuple[int, int]]:
        relocations: list[tuple[int, int]] = []
        if self._relocations.size:
            relocations = [
                (_DT_RELA, self._relocations.address),
                (_DT_RELASZ, self._relocations.size),
                (_DT_RELAENT, RELA.size),
                (_DT_RELACOUNT, self._relocations.size // RELA.size),
            ]
        return [
            (_DT_SONAME, self._soname),
            (_DT_HASH, self._hash.address),
            (_DT_STRTAB, self._names.address),
            (_DT_SYMTAB, self._symbols.address),
            (_DT_STRSZ, self._names.size),
            (_DT_SYMENT, SYMBOL.size),
            *relocations,
            (_DT_NULL, 0),
        ]


def symbol_sections(symbols: Iterable[OutputSymbol]) -> tuple[OutputSection, OutputSection]:
    """.symtab and .strtab, for debuggers and profilers."""
    strings = StringTable()
    table, first_global = symbol_table(symbols, strings)
    symtab = OutputSection(
        ".symtab", Region.FILE, SHT.SYMTAB, 8, SYMBOL.size, ".strtab", first_global
    )
    symtab.append(table)
    strtab = OutputSection(".strtab", Region.FILE, SHT.STRTAB, 1)
    strtab.append(strings.data)
    return symtab, strtab


def symbol_table(symbols: Iterable[OutputSymbol], strings: StringTable) -> tuple[bytes, int]:
    """The encoded table, local symbols first, and the index of the first that is not local."""
    ordered = sorted(symbols, key=lambda symbol: symbol.binding != STB_LOCAL)
    local_count = sum(symbol.binding == STB_LOCAL for symbol in ordered)
    rows = [
        SYMBOL.pack(strings.add(s.name), s.binding << 4 | s.kind, 0, s.section, s.address, s.size)
        for s in ordered
    ]
    return bytes(SYMBOL.size) + b"".join(rows), local_count + 1


def _hash_table(names: Sequence[str]) -> bytes:
    """The System V hash table of dynamic symbols 1, 2, ... with these names."""
    size = max(1, len(names))
    buckets, chains = [0] * size, [0] * (len(names) + 1)
    for i, name in enumerate(names, 1):
        bucket = _hash(name) % size
        chains[i], buckets[bucket] = buckets[bucket], i
    words = [size, len(chains), *buckets, *chains]
    return struct.pack(f"<{len(words)}I", *words)


def _hash(name: str) -> int:
    value = 0
    for byte in name.encode():
        value = (value << 4) + byte
        high = value & 0xF0000000
        value = (value ^ high >> 24) & ~high
    return value
