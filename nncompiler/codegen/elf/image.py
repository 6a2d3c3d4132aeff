"""The shared object as a file: output sections, their addresses, segments and tables.

Every loaded section lies in the file at its address, so an offset and an address are the same
number; pages of different rights never share, which keeps writable and executable apart (what is
not loaded may lie in the gaps between):

    R   headers .hash .dynsym .dynstr .rela.dyn .rodata .eh_frame
    RX  .text
    RW  .data.rel.ro .dynamic .got (read-only once relocated) | .data .bss
    --  further sections, .symtab .strtab .shstrtab, section headers (not loaded)
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from itertools import pairwise

from nncompiler.codegen.elf.read import (
    EM_X86_64,
    ET_DYN,
    HEADER,
    IDENT,
    PROGRAM,
    SECTION,
    SHF_ALLOC,
    SHF_EXECINSTR,
    SHF_WRITE,
    SHT,
)
from nncompiler.record import dataclass, field

PAGE = 4096
_MAX_SEGMENTS = 6
_PT_LOAD, _PT_DYNAMIC, _PT_GNU_STACK, _PT_GNU_RELRO = 1, 2, 0x6474E551, 0x6474E552
_R, _W, _X = 4, 2, 1


class Region(IntEnum):
    """Where a section goes, in file order."""

    READ = 0
    EXEC = 1
    RELRO = 2
    WRITE = 3
    FILE = 4

    @property
    def flags(self) -> int:
        """The section flags that all sections of this region have."""
        return (0, SHF_EXECINSTR, SHF_WRITE, SHF_WRITE)[self] | SHF_ALLOC if self < 4 else 0


@dataclass(slots=True, eq=False)
class OutputSection:
    """A section of the shared object, grown piece by piece, then given its address."""

    name: str
    region: Region
    kind: int = SHT.PROGBITS
    align: int = 8
    entry: int = 0
    link: str = ""
    info: int = 0
    flags: int = 0
    size: int = 0
    address: int = 0
    pieces: list[tuple[int, bytes | memoryview]] = field(default_factory=list)

    def append(self, data: bytes | memoryview, size: int | None = None, align: int = 1) -> int:
        """Add `data`, or `size` bytes that are zero where data ends; returns their offset."""
        size = len(data) if size is None else size
        offset = round_up(self.size, align)
        self.pieces.append((offset, data))
        self.align = max(self.align, align)
        self.size = offset + size
        return offset

    @property
    def end(self) -> int:
        return self.address + self.size

    @property
    def file_end(self) -> int:
        return self.address + (0 if self.kind == SHT.NOBITS else self.size)


def round_up(value: int, align: int) -> int:
    """The least multiple of `align` that is not below `value`."""
    return -(-value // align) * align


class StringTable:
    """Zero-terminated strings, each once."""

    def __init__(self) -> None:
        self._chunks = [b"\0"]
        self._size = 1
        self._offsets = {"": 0}

    def add(self, name: str) -> int:
        """The offset of `name`, which is added if it is new."""
        if name not in self._offsets:
            self._offsets[name] = self._size
            self._chunks.append(name.encode() + b"\0")
            self._size += len(self._chunks[-1])
        return self._offsets[name]

    @property
    def data(self) -> bytes:
        return b"".join(self._chunks)


def lay_out(sections: Sequence[OutputSection]) -> None:
    """Give addresses to the loaded sections, which are in region order."""
    cursor, region = HEADER.size + _MAX_SEGMENTS * PROGRAM.size, Region.READ
    for section in sections:
        if section.region != region:
            cursor, region = round_up(cursor, PAGE), section.region
        section.address = round_up(cursor, section.align)
        cursor = section.end


def load(sections: Sequence[OutputSection]) -> bytearray:
    """The file up to the end of the loaded sections, filled with their pieces."""
    image = bytearray(max(section.file_end for section in sections))
    for section in sections:
        if section.region == Region.EXEC:  # the gaps between functions trap
            image[section.address : section.end] = b"\xcc" * section.size
        _fill(image, section)
    return image


def _fill(image: bytearray, section: OutputSection) -> None:
    for offset, data in section.pieces:
        start = section.address + offset
        image[start : start + len(data)] = data


def finish(
    image: bytearray, loaded: Sequence[OutputSection], rest: Sequence[OutputSection]
) -> None:
    """Append the sections that are not loaded, but for those that fit into gaps, and the section
    headers; write the file header.
    """
    names = StringTable()
    name_section = OutputSection(".shstrtab", Region.FILE, SHT.STRTAB, align=1)
    sections = [*loaded, *rest, name_section]
    offsets = [names.add(section.name) for section in sections]
    name_section.append(names.data)
    gaps = [(a.file_end, b.address) for a, b in pairwise(loaded)]
    for section in sections[len(loaded) :]:
        section.address = _room(section, gaps, len(image))
        image.extend(bytes(max(section.end - len(image), 0)))
        _fill(image, section)
    index = {section.name: i for i, section in enumerate(sections, 1)}
    table = round_up(len(image), 8)
    image.extend(bytes(table - len(image) + SECTION.size))
    file_end = max(section.file_end for section in loaded)
    for name, section in zip(offsets, sections, strict=True):
        loaded_here = section.region != Region.FILE
        image += SECTION.pack(
            name, section.kind, section.region.flags | section.flags,
            section.address if loaded_here else 0,
            file_end if section.kind == SHT.NOBITS else section.address,
            section.size, index.get(section.link, 0), section.info, section.align, section.entry,
        )  # fmt: skip
    programs = _segments(loaded)
    image[: HEADER.size] = HEADER.pack(
        IDENT, ET_DYN, EM_X86_64, 1, 0, HEADER.size, table, 0, HEADER.size, PROGRAM.size,
        len(programs), SECTION.size, len(sections) + 1, len(sections),
    )  # fmt: skip
    image[HEADER.size : HEADER.size + len(programs) * PROGRAM.size] = b"".join(programs)


def _room(section: OutputSection, gaps: list[tuple[int, int]], end: int) -> int:
    """Where a section goes: into the first of the `gaps` that is large enough, else to the `end`.
    """
    for n, (start, stop) in enumerate(gaps):
        address = round_up(start, section.align)
        if address + section.size <= stop:
            gaps[n] = address + section.size, stop
            return address
    return round_up(end, section.align)


def _segments(loaded: Sequence[OutputSection]) -> list[bytes]:
    """The program headers."""

    def segment(kind: int, rights: int, start: int, file_end: int, end: int, align: int) -> bytes:
        sizes = file_end - start, end - start
        return PROGRAM.pack(kind, rights, start, start, start, *sizes, align)

    by_region = {region: [s for s in loaded if s.region == region] for region in Region}
    read_end = by_region[Region.READ][-1].end
    found = [segment(_PT_LOAD, _R, 0, read_end, read_end, PAGE)]
    code = by_region[Region.EXEC]
    if code and code[-1].end > code[0].address:
        found.append(segment(_PT_LOAD, _R | _X, code[0].address, code[-1].end, code[-1].end, PAGE))
    # The loader protects whole pages, so the read-only part of RW is padded to one.
    relro, data = by_region[Region.RELRO], by_region[Region.WRITE]
    start, relro_end = relro[0].address, round_up(relro[-1].end, PAGE)
    file_end = max(section.file_end for section in relro + data)
    end = max([relro_end, *(section.end for section in data)])
    found.append(segment(_PT_LOAD, _R | _W, start, file_end, end, PAGE))
    dynamic = next(section for section in relro if section.kind == SHT.DYNAMIC)
    found.append(segment(_PT_DYNAMIC, _R | _W, dynamic.address, dynamic.end, dynamic.end, 8))
    found.append(segment(_PT_GNU_RELRO, _R, start, relro[-1].end, relro_end, 1))
    found.append(segment(_PT_GNU_STACK, _R | _W, 0, 0, 0, 16))
    return found
