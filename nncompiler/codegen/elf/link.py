"""Writes an ELF shared object from relocatable x86-64 objects, without linker or toolchain.

`link` places the sections of the objects, binds their symbols among each other, applies the
relocations and adds what the dynamic loader needs. The result depends on nothing outside: a
symbol that no object defines is a `CompilerBug`, as is everything else that kernels never need
(thread-local storage, constructors, common symbols, 32-bit absolute addresses). Only `exports`
are visible from outside. The same arguments give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nncompiler.codegen.elf.dynamic import DynamicTables, OutputSymbol, symbol_sections
from nncompiler.codegen.elf.image import PAGE, OutputSection, Region, finish, lay_out, load
from nncompiler.codegen.elf.read import (
    SHF_ALLOC,
    SHF_EXECINSTR,
    SHF_MERGE,
    SHF_TLS,
    SHF_WRITE,
    SHN_LORESERVE,
    SHN_UNDEF,
    SHT,
    STB_GLOBAL,
    STB_LOCAL,
    STB_WEAK,
    STT_GNU_IFUNC,
    STT_SECTION,
    Object,
    Reloc,
    Section,
    Symbol,
    read_object,
)
from nncompiler.codegen.elf.relocate import (
    Definitions,
    Homes,
    Place,
    apply,
    bind,
    offset_table,
    symbol_places,
)
from nncompiler.errors import CompilerBug

_READ = (".hash", ".dynsym", ".dynstr", ".rela.dyn", ".rodata", ".eh_frame")
_WRITE = (".data.rel.ro", ".dynamic", ".got", ".data", ".bss")
_ORDER = (*_READ, ".text", *_WRITE)
_RUN_BY_LOADER = (".ctors", ".dtors", ".init", ".fini", ".preinit")
_NAMELESS = ".L"  # constants that LLVM numbers; they would hide the functions
_OWN_NAMES = {*_ORDER, ".symtab", ".strtab", ".shstrtab"}


def link(
    objects: Sequence[bytes], exports: Sequence[str], soname: str, sections: Mapping[str, bytes]
) -> bytes:
    """The shared object `soname` made of `objects`; `sections` are added by name, not loaded."""
    inputs = [read_object(data, index) for index, data in enumerate(objects)]
    outputs, homes = _place(inputs)
    definitions = _definitions(inputs)
    places = symbol_places(inputs, homes, definitions)
    _check_exports(exports, definitions, homes)
    extra = _extra_sections(sections)

    fixups = bind(inputs, homes, places)
    slots, got = offset_table(fixups)
    pointers = [fixup for fixup in fixups if fixup.kind == Reloc.R_X86_64_64]
    tables = DynamicTables(soname, exports, len(pointers) + len(slots))
    loaded = sorted((*outputs, *got, *tables.sections), key=lambda s: _ORDER.index(s.name))
    lay_out(loaded)

    relatives = [(f.section.address + f.offset, f.target.address + f.addend) for f in pointers]
    relatives += [(slot.address, target.address) for target, slot in slots.items()]
    symbols = _symbols(inputs, places, definitions, loaded, set(exports))
    visible = {symbol.name: symbol for symbol in symbols if symbol.binding != STB_LOCAL}
    tables.fill([visible[name] for name in exports], relatives)
    image = load(loaded)
    apply(image, fixups, slots)
    finish(image, loaded, [*extra, *symbol_sections(symbols)])
    return bytes(image)


def _place(objects: Sequence[Object]) -> tuple[list[OutputSection], dict[tuple[int, int], Place]]:
    """Append every loaded input section to an output section; where each went. Constants that are
    there already, as kernels share many, are not written again."""
    outputs: dict[str, OutputSection] = {}
    homes: dict[tuple[int, int], Place] = {}
    constants: list[tuple[Section, Place]] = []
    inputs = [(o.index, n, section) for o in objects for n, section in enumerate(o.sections)]
    # the largest first, for a smaller one may be found in it
    for item, index, section in sorted(inputs, key=lambda x: _merged(x[2]) * -x[2].size):
        if (home := _home(section)) is None:
            continue
        if _merged(section) and (found := _among(section, constants)):
            homes[item, index] = found
            continue
        name, region = home
        if name not in outputs:
            kind = SHT.NOBITS if name == ".bss" else SHT.PROGBITS
            outputs[name] = OutputSection(name, region, kind, align=1)
        offset = outputs[name].append(section.data, section.size, section.align)
        homes[item, index] = Place(outputs[name], offset)
        if _merged(section):
            constants.append((section, homes[item, index]))
    if frames := outputs.get(".eh_frame"):
        frames.append(bytes(4))  # a record of length zero ends the list
    return list(outputs.values()), homes


def _merged(section: Section) -> bool:
    """Whether it has constants that may lie anywhere, beside each other or not."""
    return bool(section.flags & SHF_MERGE) and not section.flags & SHF_WRITE


def _among(section: Section, constants: Sequence[tuple[Section, Place]]) -> Place | None:
    """Where its bytes are in a section placed before, None if nowhere."""
    for other, place in constants:
        at = bytes(other.data).find(section.data)
        if at >= 0 and at % section.align == 0 and other.align % section.align == 0:
            return Place(place.section, place.offset + at)
    return None


def _home(section: Section) -> tuple[str, Region] | None:
    """The output section for an input section; None when it is not loaded."""
    if not section.flags & SHF_ALLOC or section.kind == SHT.NOTE:
        return None
    if section.align > PAGE:
        raise CompilerBug(
            "NN0564", f"expected alignment within {PAGE}, but {section.name} has {section.align}"
        )
    if section.name.startswith(_RUN_BY_LOADER):
        raise CompilerBug(
            "NN0564", f"expected nothing to run at load time, but found section {section.name}"
        )
    has_bytes = section.kind in (SHT.PROGBITS, SHT.X86_64_UNWIND)
    rights = section.flags & (SHF_WRITE | SHF_EXECINSTR | SHF_TLS)
    if rights == 0 and has_bytes:
        return ".eh_frame" if section.name == ".eh_frame" else ".rodata", Region.READ
    if rights == SHF_EXECINSTR and has_bytes:
        return ".text", Region.EXEC
    if rights == SHF_WRITE and has_bytes:
        if section.name.startswith(".data.rel.ro"):
            return ".data.rel.ro", Region.RELRO
        return ".data", Region.WRITE
    if rights == SHF_WRITE and section.kind == SHT.NOBITS:
        return ".bss", Region.WRITE
    raise CompilerBug(
        "NN0564",
        f"expected sections of code, constants and variables, but found {section.name} "
        f"(type {section.kind:#x}, flags {section.flags:#x})",
    )


def _definitions(objects: Sequence[Object]) -> dict[str, tuple[Object, Symbol]]:
    """The one definition of every global name; every name that is used has one."""
    found: dict[str, tuple[Object, Symbol]] = {}
    names: set[str] = set()
    for item in objects:
        for symbol in item.symbols:
            if symbol.binding == STB_LOCAL:
                continue
            names.add(symbol.name)
            if symbol.section == SHN_UNDEF:
                continue
            if symbol.section >= SHN_LORESERVE or symbol.kind == STT_GNU_IFUNC:
                raise CompilerBug(
                    "NN0564", f"expected a function or a variable, but symbol {symbol.name} is not"
                )
            old = found.get(symbol.name)
            if old is None or (old[1].binding == STB_WEAK and symbol.binding != STB_WEAK):
                found[symbol.name] = item, symbol
            elif symbol.binding != STB_WEAK:
                raise CompilerBug(
                    "NN0562",
                    f"expected one definition of symbol {symbol.name}, but found it in objects "
                    f"{old[0].index} and {item.index}",
                )
    if missing := sorted(names - found.keys()):
        raise CompilerBug(
            "NN0561",
            f"undefined symbols: {', '.join(missing)}",
            help="define them in an object, or keep LLVM from making up library calls",
        )
    return found


def _check_exports(exports: Sequence[str], definitions: Definitions, homes: Homes) -> None:
    if len(set(exports)) != len(exports):
        raise CompilerBug("NN0565", f"expected distinct exports, but found {', '.join(exports)}")
    for name in exports:
        found = definitions.get(name)
        if found is None or (found[0].index, found[1].section) not in homes:
            raise CompilerBug("NN0565", f"exported symbol {name} is not defined")


def _extra_sections(sections: Mapping[str, bytes]) -> list[OutputSection]:
    """The named sections of the caller, in the caller's order."""
    found = []
    for name, data in sections.items():
        if not name.startswith(".") or "\0" in name or name in _OWN_NAMES:
            raise CompilerBug("NN0566", f"expected a free section name, but found {name!r}")
        found.append(OutputSection(name, Region.FILE, align=64))
        found[-1].append(data)
    return found


def _symbols(
    objects: Sequence[Object],
    places: Sequence[Sequence[Place | None]],
    definitions: Definitions,
    loaded: Sequence[OutputSection],
    exports: set[str],
) -> list[OutputSymbol]:
    """Named functions and variables, once each; those that are not exported become local."""
    index = {section.name: i for i, section in enumerate(loaded, 1)}
    found = []
    for item in objects:
        for symbol, place in zip(item.symbols, places[item.index], strict=True):
            is_global = symbol.binding != STB_LOCAL
            if place is None or symbol.kind == STT_SECTION:
                continue
            if not is_global and symbol.name.startswith(_NAMELESS):
                continue
            if is_global and definitions[symbol.name][1] is not symbol:
                continue
            binding = STB_GLOBAL if symbol.name in exports and is_global else STB_LOCAL
            found.append(
                OutputSymbol(symbol.name, binding, symbol.kind, index[place.section.name],
                             place.address, symbol.size)
            )  # fmt: skip
    return found
