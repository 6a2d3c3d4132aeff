"""What an artifact and its header say of their own file names.

A C program asks for a library under the name that stands inside it (SONAME), whatever file it was
linked to. Compiled code is kept under the model's name and gets that of its file when written.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
from typing import TYPE_CHECKING

from nncompiler.runtime import elf

if TYPE_CHECKING:
    from nncompiler.runtime.checks import Path

_SONAME = 14
_ENTRY = struct.Struct("<QQ")
_PLAIN = re.compile(r"[\w.+-]+", re.A)  # what needs no quotes in a shell, nor in C


def named_library(image: bytes, path: Path) -> bytes:
    """The artifact `image` as a library called like the file `path`; as it is, where the name is
    longer than the room for it."""
    place, room = _soname(image)
    name = os.fsencode(os.path.basename(path)) + b"\0"
    if not place or len(name) > room:
        return image
    return _signed(image[:place] + name.ljust(room, b"\0") + image[place + room :])


def named_header(text: str, header: Path, library: Path) -> str:
    """The header with its example for these files."""
    for kind, path in (("h", header), ("so", library)):
        name = os.path.basename(path)
        if _PLAIN.fullmatch(name):
            before = r'#include "' if kind == "h" else r"Example: cc -std=c11 example\.c "
            text = re.sub(rf"(?m)^( \* +{before})\w+\.{kind}", rf"\g<1>{name}", text)
    return text


def _soname(image: bytes) -> tuple[int, int]:
    """Where the name is in the file, and how many bytes it may have, the zero behind it too."""
    dynamic = elf.read_section(image, ".dynamic") or b""
    start, size = elf.place_of(image, ".dynstr")
    offset = next((v for tag, v in _ENTRY.iter_unpack(dynamic) if tag == _SONAME), size)
    strings = image[start + offset : start + size]
    if strings.rstrip(b"\0").count(b"\0"):  # other names follow it
        return 0, 0
    return start + offset, len(strings)


def _signed(image: bytes) -> bytes:
    """`image` with the digest that fits its bytes."""
    start, size = elf.place_of(image, ".nnmanifest")
    digest = json.loads(image[start : start + size])["digest"].encode()
    at = image.index(digest, start)
    blank = image[:at] + b"0" * len(digest) + image[at + len(digest) :]
    return blank[:at] + hashlib.sha256(blank).hexdigest().encode() + blank[at + len(digest) :]
