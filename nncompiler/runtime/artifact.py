"""Compiled models as files: everything is checked before the file is opened as a library.

`load_artifact` reads the bytes, checks ELF form, manifest, ABI, digest and CPU features, and then
opens exactly those bytes: through a memory file, since `dlopen` of a path may return an older
library that was loaded under the same name, or a file that was replaced after the check.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import platform
import sys
import weakref
from collections.abc import Callable, Collection
from functools import cache
from typing import Any, NamedTuple

from nncompiler.errors import Limitation, UserError, nearest
from nncompiler.runtime import elf
from nncompiler.runtime.manifest import Manifest, parse

MANIFEST_SECTION = ".nnmanifest"
TEXTS_SECTION = ".nntexts"
_MAX_TEXT = 2**30

Native = Callable[..., int]


class Artifact(NamedTuple):
    """A checked and opened library. `lookup` gives the native function of a symbol.

    `image` is the file itself.
    """

    manifest: Manifest
    lookup: Callable[[str], Native]
    image: bytes = b""

    def __repr__(self) -> str:
        return f"<Artifact {self.manifest.name}: {len(self.image)} bytes>"

    def text(self, stage: str, function: str | None = None) -> str:
        """The embedded text of a stage of the compiler, of one function or of all of them."""
        packed = elf.read_section(self.image, TEXTS_SECTION) if self.image else None
        texts = _unpack(packed) if packed else {}
        functions = _pick(texts, stage, "a stage")
        if function is None:
            return "\n".join(functions[name] for name in functions)
        return str(_pick(functions, function, f"a function of stage '{stage}'"))


def load_artifact(path: str | os.PathLike[str]) -> Artifact:
    """The artifact in a file; a `UserError` when it cannot run here."""
    path = os.fspath(path)
    try:
        with open(path, "rb") as stream:
            data = stream.read()
    except OSError as error:
        raise UserError(
            "NN0601", f"expected a compiled model, but '{path}' cannot be read: {error.strerror}",
            help="compile a model with `nnc compile MODEL.nn -o MODEL.so`",
        ) from None  # fmt: skip
    return open_artifact(data, f"'{path}'")


def open_artifact(
    data: bytes, where: str = "the artifact", features: Collection[str] | None = None
) -> Artifact:
    """The artifact whose file is `data`; `features` replaces those of this machine's CPU."""
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "AMD64"):
        raise Limitation(
            "NN0607", "compiled models run on Linux on x86-64 only, but this is "
            f"{platform.system()} on {platform.machine()}")  # fmt: skip
    elf.check(data, where)
    section = elf.read_section(data, MANIFEST_SECTION, where)
    if section is None:
        raise UserError(
            "NN0602", f"expected a compiled model, but {where} is a shared library without one",
            help="compile a model with `nnc compile MODEL.nn -o MODEL.so`",
        )  # fmt: skip
    manifest = parse(section, where)
    _check_digest(data, manifest, where)
    _check_features(manifest, cpu_features() if features is None else features, where)
    library = open_library(data, manifest.name, where)

    def lookup(symbol: str) -> Native:
        try:
            function = library[symbol]
        except AttributeError:
            raise UserError(
                "NN0609", f"{where} is damaged: it has no function '{symbol}'",
                help="compile the model again",
            ) from None  # fmt: skip
        function.restype = ctypes.c_int
        return function

    for symbol in manifest.symbols:
        lookup(symbol)
    return Artifact(manifest, lookup, data)


@cache
def cpu_features() -> frozenset[str]:
    """What the CPU can do, in the words of /proc/cpuinfo; empty where that cannot be read."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as stream:
            for line in stream:
                if line.startswith("flags"):
                    return frozenset(line.partition(":")[2].split())
    except OSError:
        pass
    return frozenset()


def _check_features(manifest: Manifest, features: Collection[str], where: str) -> None:
    missing = [name for name in manifest.features if name not in features]
    if missing:
        raise UserError(
            "NN0606",
            f"{where} is compiled for CPUs with {', '.join(manifest.features)}, "
            f"but this one lacks {', '.join(missing)}",
            help="compile the model on this machine, or with `--cpu x86-64-v2`",
        )


def _check_digest(data: bytes, manifest: Manifest, where: str) -> None:
    digest = manifest.record.get("digest")
    if not isinstance(digest, str) or not digest.isascii():
        raise UserError("NN0603", f"the manifest of {where} is malformed: it has no digest")
    # The digest is over the file with the digest itself blanked out.
    at = max(0, data.find(digest.encode()))
    found = hashlib.sha256(memoryview(data)[:at])
    found.update(b"0" * len(digest))
    found.update(memoryview(data)[at + len(digest) :])
    if found.hexdigest() != digest:
        raise UserError(
            "NN0605", f"{where} is damaged: its contents do not match their digest",
            help="copy the file again, or compile the model again",
        )  # fmt: skip


def open_library(data: bytes, name: str, where: str) -> ctypes.CDLL:
    """Exactly these bytes as a library; `UserError` NN0608 when that cannot be done."""
    try:
        descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
        try:
            with os.fdopen(os.dup(descriptor), "wb") as stream:
                stream.write(data)
            library = ctypes.CDLL(f"/proc/self/fd/{descriptor}")
        except BaseException:
            os.close(descriptor)
            raise
    except OSError as error:
        raise UserError("NN0608", f"{where} cannot be opened as a library: {error}") from None
    # The descriptor stays open as long as the library: dlopen knows libraries by their path, and
    # would take the next file with this number for the same one. Functions keep the library alive.
    dlclose = ctypes.CDLL(None).dlclose
    dlclose.argtypes = [ctypes.c_void_p]
    finalizer = weakref.finalize(library, _close, dlclose, library._handle, descriptor)
    finalizer.atexit = False
    return library


def _close(dlclose: Native, handle: int, descriptor: int) -> None:
    dlclose(handle)
    os.close(descriptor)


def _unpack(packed: bytes) -> dict[str, Any]:
    try:
        import lzma  # who predicts or trains never needs it
    except ImportError as error:
        raise Limitation("NN0504", "expected a Python that has the module lzma") from error
    try:
        texts = json.loads(lzma.LZMADecompressor(memlimit=_MAX_TEXT).decompress(packed, _MAX_TEXT))
        if all(isinstance(t, str) for stage in texts.values() for t in stage.values()):
            return dict(texts)
    except (lzma.LZMAError, EOFError, ValueError, RecursionError, AttributeError):
        pass
    raise UserError("NN0611", "the embedded texts of the artifact are damaged")


def _pick(texts: dict[str, Any], name: str, what: str) -> Any:
    if name not in texts:
        near = nearest(name, texts)
        raise UserError(
            "NN0611", f"expected {what} among {', '.join(texts) or 'no texts at all'}, "
            f"but found '{name}'", help=f"did you mean '{near}'?" if near else None)  # fmt: skip
    return texts[name]
