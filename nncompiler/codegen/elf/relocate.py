"""Relocations of a link: bound to places before there are addresses, applied after."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

from nncompiler.codegen.elf.image import OutputSection, Region
from nncompiler.codegen.elf.read import (
    SHF_WRITE,
    STB_LOCAL,
    Object,
    Reloc,
    Relocation,
    Section,
    Symbol,
)
from nncompiler.errors import CompilerBug

_MOV_LOAD, _LEA = 0x8B, 0x8D
_WORD, _QUAD = struct.Struct("<i"), struct.Struct("<q")
_GOT_LOADS = (Reloc.R_X86_64_GOTPCREL, Reloc.R_X86_64_GOTPCRELX, Reloc.R_X86_64_REX_GOTPCRELX)
_RELATIVE = (Reloc.R_X86_64_PC32, Reloc.R_X86_64_PLT32, Reloc.R_X86_64_PC64)


class Place(NamedTuple):
    """A byte of the shared object, which can be named before it has an address."""

    section: OutputSection
    offset: int

    @property
    def address(self) -> int:
        return self.section.address + self.offset


# Where each loaded input section went, by the index of its object and its own.
Homes: TypeAlias = Mapping[tuple[int, int], Place]
# The object that defines each global name, and the symbol there.
Definitions: TypeAlias = Mapping[str, tuple[Object, Symbol]]


class Fixup(NamedTuple):
    """A relocation whose symbol is bound.

    GOTPCREL reads the address of the target from the offset table; GOTPCRELX is such a load that
    becomes an address computation and needs no table.
    """

    section: OutputSection
    offset: int
    kind: int
    target: Place
    addend: int


def symbol_places(
    objects: Sequence[Object], homes: Homes, definitions: Definitions
) -> list[list[Place | None]]:
    """Where each symbol of each object lies; None for what is not in memory, as a file's name."""

    def place(owner: Object, symbol: Symbol) -> Place | None:
        if symbol.binding != STB_LOCAL:
            owner, symbol = definitions[symbol.name]
        home = homes.get((owner.index, symbol.section))
        return home and Place(home.section, home.offset + symbol.value)

    return [[place(item, symbol) for symbol in item.symbols] for item in objects]


def bind(
    objects: Sequence[Object], homes: Homes, places: Sequence[Sequence[Place | None]]
) -> list[Fixup]:
    """Every relocation of what is loaded."""
    fixups: list[Fixup] = []
    for item in objects:
        for index, section in enumerate(item.sections):
            home = homes.get((item.index, index))
            for relocation in section.relocations if home else ():
                assert home is not None
                if relocation.kind == Reloc.R_X86_64_NONE:
                    continue
                kind = _kind(section, relocation)
                target = places[item.index][relocation.symbol]
                if kind is None or target is None:
                    raise _refusal(item, section, relocation)
                offset = home.offset + relocation.offset
                fixups.append(Fixup(home.section, offset, kind, target, relocation.addend))
    return fixups


def _kind(section: Section, relocation: Relocation) -> int | None:
    """How to apply a relocation; None when it cannot be."""
    offset, kind, _, addend = relocation
    if kind in _RELATIVE:
        return kind
    if kind == Reloc.R_X86_64_64:
        return kind if section.flags & SHF_WRITE else None
    if kind not in _GOT_LOADS:
        return None
    is_load = offset >= 2 and section.data[offset - 2] == _MOV_LOAD
    if kind != Reloc.R_X86_64_GOTPCREL and addend == -4 and is_load:
        return Reloc.R_X86_64_GOTPCRELX
    return Reloc.R_X86_64_GOTPCREL


def _refusal(item: Object, section: Section, relocation: Relocation) -> CompilerBug:
    kind = relocation.kind
    name = Reloc(kind).name if kind in Reloc.__members__.values() else f"of type {kind}"
    return CompilerBug(
        "NN0563",
        f"expected relocations that position-independent code needs, but found {name} against "
        f"{item.label(relocation.symbol)} in object {item.index} at {section.name}"
        f"+{relocation.offset:#x}",
        help="emit objects with reloc='pic' and codemodel='small'; pointers lie in writable data",
    )


def offset_table(fixups: Sequence[Fixup]) -> tuple[dict[Place, Place], list[OutputSection]]:
    """The slot of each target whose address is loaded, and the section of the slots, if any."""
    got = OutputSection(".got", Region.RELRO, entry=8)
    slots: dict[Place, Place] = {}
    for fixup in fixups:
        if fixup.kind == Reloc.R_X86_64_GOTPCREL and fixup.target not in slots:
            slots[fixup.target] = Place(got, got.append(bytes(8)))
    return slots, [got] if slots else []


def apply(image: bytearray, fixups: Sequence[Fixup], slots: Mapping[Place, Place]) -> None:
    """Patch the image; addresses are final."""
    for section, offset, kind, target, addend in fixups:
        if kind == Reloc.R_X86_64_GOTPCREL:
            target = slots[target]
        at = section.address + offset
        value = target.section.address + target.offset + addend
        distance = value - at
        if kind == Reloc.R_X86_64_64:
            _QUAD.pack_into(image, at, value)
        elif kind == Reloc.R_X86_64_PC64:
            _QUAD.pack_into(image, at, distance)
        elif -(2**31) <= distance < 2**31:
            if kind == Reloc.R_X86_64_GOTPCRELX:
                image[at - 2] = _LEA
            _WORD.pack_into(image, at, distance)
        else:
            raise CompilerBug(
                "NN0567",
                f"expected {target.section.name} within 2 GiB of {section.name}, "
                f"but found a distance of {distance}",
            )
