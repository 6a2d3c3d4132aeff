"""From a program to the bytes of an artifact.

`build` lowers the program to LLVM modules, compiles each on its own (so that a caller may keep the
objects, or compile them in parallel), links them without any outside symbol, and adds manifest and
texts as sections. The same arguments give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from nncompiler.codegen.elf.link import link
from nncompiler.codegen.module import abi
from nncompiler.codegen.module.header import header_text
from nncompiler.codegen.module.manifest import NO_DIGEST, kernel_texts, manifest
from nncompiler.codegen.module.program import Modules, lower, lowering
from nncompiler.codegen.objects.object_code import assembly_of
from nncompiler.codegen.objects.processes import compile_modules
from nncompiler.codegen.target import Target
from nncompiler.errors import Limitation
from nncompiler.ir.model import Network, Program
from nncompiler.record import dataclass, field

#: Object code of LLVM modules, taken as they come; `compile_modules` is the plain one.
Compile: TypeAlias = Callable[[Iterable[str], Target], Sequence[bytes]]

#: Texts of the compiler's stages: stage -> function -> text.
Texts: TypeAlias = Mapping[str, Mapping[str, str]]

MANIFEST_SECTION = ".nnmanifest"
TEXTS_SECTION = ".nntexts"


@dataclass(frozen=True, slots=True)
class Artifact:
    """A shared library, its C header, and its manifest (also a section of the library)."""

    so: bytes = field(repr=False)
    header: str = field(repr=False)
    manifest: dict[str, Any] = field(repr=False)


def build(
    program: Program,
    target: Target,
    *,
    networks: Sequence[Network] = (),
    texts: Callable[[], Texts] | None = None,
    source_sha256: str = "",
    version: str = "",
    weights: bytes | None = None,
    compile: Compile | None = None,
    timed: bool = False,
) -> Artifact:
    """The artifact of `program`.

    `networks`, one for each binding of the free sizes, say what the manifest tells of the model.
    `texts` are asked for while helpers compile.
    `weights` are the bytes of the state from the end of its header to `infer_bytes`; `init` then
    gives these parameters instead of random ones. With `timed`, a table of the kernels' times is
    built in, and `NAME_ticks` gives it (see `ticks`).
    """
    found: list[Modules] = []
    sections: dict[str, bytes] = {}

    def modules_of() -> Iterator[str]:
        found.append((yield from lowering(program, target, weights, timed)))
        if texts is not None:  # while helpers are at work
            kernels = kernel_texts(found[0].calls)
            sections[TEXTS_SECTION] = _packed({**texts(), "kernels": kernels})

    made = (compile or compile_modules)(modules_of(), target)
    (modules,) = found
    objects = [*made[-2:], *made[:-2]]  # what everybody calls is first
    record = manifest(
        program, target, networks, source_sha256, version, weights is not None
    )
    unsigned = json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
    sections = {MANIFEST_SECTION: unsigned, **sections}
    exports = abi.exports(program) + [abi.symbol(program, "ticks")] * timed
    image = link(objects, exports, f"{abi.identifier(program.name)}.so", sections)
    record["digest"] = digest = hashlib.sha256(image).hexdigest()
    at = image.index(unsigned) + unsigned.index(NO_DIGEST.encode())
    image = image[:at] + digest.encode() + image[at + len(digest) :]
    return Artifact(image, header_text(program, target, weights is not None), record)


def _packed(texts: Texts) -> bytes:
    """As they come: a text behind one that is much like it takes little room, for which the window
    of deflate is too short. LZMA weighs how to say what repeats, but takes the first repetition
    that is long: a fifth less room than its preset that takes as long.
    """
    try:
        import lzma  # only who compiles waits for it
    except ImportError as error:
        raise Limitation("NN0504", "expected a Python that has the module lzma") from error

    seek = {"mode": lzma.MODE_NORMAL, "mf": lzma.MF_HC4, "nice_len": 64, "depth": 4, "pb": 0}
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 1, **seek}]
    return lzma.compress(
        json.dumps({k: dict(v) for k, v in texts.items()}).encode(), filters=filters
    )


def llvm_text(program: Program, target: Target) -> dict[str, str]:
    """LLVM IR as emitted: ``entries``, ``helpers``, then each kernel under its function's name."""
    return lower(program, target).parts


def assembly(program: Program, target: Target) -> dict[str, str]:
    """Assembly after optimisation, in the same parts."""
    parts = lower(program, target).parts
    return {n: assembly_of(text, target) for n, text in parts.items()}
