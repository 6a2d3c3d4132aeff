"""The compile cache: artifact bytes on disk, found by a hash of everything that decides them.

An entry is one file, a digest of key and payload and then the payload. It is renamed into place
whole and checked when read: a damaged one is removed and counts as missing. Any number of
processes may use a cache at once, and be killed at any time. A cache that cannot be written is no
error; what is missing is compiled again. Beyond `LIMIT` bytes, what was used least recently goes.

NNCOMPILER_CACHE names the folder, or is `off`; without it, the cache is the folder `nncompiler` in
XDG_CACHE_HOME or ~/.cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path

LIMIT = 256 * 2**20
_DIGEST = 32
_STALE_SECONDS = 3600.0  # after that, a temporary file is of a process that was killed


def folder() -> Path | None:
    """Where the cache is, or None when it is switched off or there is no home."""
    named = os.environ.get("NNCOMPILER_CACHE", "")
    if named.lower() == "off":
        return None
    if named:
        return Path(os.path.abspath(os.path.expanduser(named)))
    shared = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(shared):  # the specification: relative paths there do not count
        shared = os.path.expanduser("~/.cache")
    return Path(shared) / "nncompiler" if os.path.isabs(shared) else None


class Cache:
    """Bytes by key below `root`; a key is a hex digest."""

    def __init__(self, root: Path, limit: int = LIMIT) -> None:
        self.root = root
        self.limit = limit

    def get(self, key: str) -> bytes | None:
        """The payload stored under `key`, or None."""
        path = self._path(key)
        try:
            data = path.read_bytes()
        except OSError:
            return None
        payload = data[_DIGEST:]
        if data[:_DIGEST] != _digest(key, payload):
            _remove(path)
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # the time of last use, for `prune`
        return payload

    def put(self, key: str, payload: bytes) -> None:
        """Store `payload` under `key`, if the file system lets us; `prune` keeps the limit."""
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(prefix=".tmp-", dir=path.parent)
        except OSError:
            return
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(_digest(key, payload) + payload)
            os.replace(temporary, path)
        except OSError:
            _remove(Path(temporary))
            return
        except BaseException:
            _remove(Path(temporary))
            raise

    def _path(self, key: str) -> Path:
        return self.root / key[:2] / key[2:]

    def files(self) -> Iterator[tuple[Path, os.stat_result]]:
        """Every file of the cache, entries and temporary ones."""
        for group in _listing(self.root):
            # Only what this module lays out: a folder named by a user may hold other things.
            if len(group.name) != 2 or not group.is_dir(follow_symlinks=False):
                continue
            for file in _listing(Path(group.path)):
                with contextlib.suppress(OSError):
                    if file.is_file(follow_symlinks=False) and _ours(file.name):
                        yield Path(file.path), file.stat()

    def usage(self) -> tuple[int, int]:
        """Number of entries, and bytes."""
        sizes = [s.st_size for _, s in self.files()]
        return len(sizes), sum(sizes)

    def prune(self) -> None:
        """Remove abandoned temporary files, and above the limit what was used least recently."""
        now = time.time()
        entries = []
        for path, stat in self.files():
            if not path.name.startswith(".tmp-"):
                entries.append((stat.st_mtime_ns, stat.st_size, path))
            elif now - stat.st_mtime > _STALE_SECONDS:
                _remove(path)
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= self.limit:
                break
            _remove(path)
            total -= size


def standard() -> Cache | None:
    """The user's cache, or None when it is switched off."""
    root = folder()
    return None if root is None else Cache(root)


def key_of(parts: Iterable[bytes]) -> str:
    """The key made of `parts`; their borders count."""
    found = hashlib.sha256()
    for part in parts:
        found.update(len(part).to_bytes(8, "little") + part)
    return found.hexdigest()


def environment(cpu: str) -> list[bytes]:
    """What decides the code besides source and flags: compiler, Python, LLVM, machine if `host`.

    Files of the compiler count by path, size and time, so that an edited one is a new compiler.
    """
    python = f"{sys.version_info.major}.{sys.version_info.minor} {sys.platform}"
    return [_compiler(), python.encode(), _llvmlite(), _machine() if cpu == "host" else b""]


def _compiler() -> bytes:
    root = Path(__file__).parent
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(f for f in folders if f != "__pycache__")
        for name in sorted(names):
            stat = os.stat(os.path.join(folder, name))
            found.append(f"{folder[len(str(root)) :]}/{name} {stat.st_size} {stat.st_mtime_ns}")
    return hashlib.sha256("\n".join(found).encode()).digest()


def _llvmlite() -> bytes:
    """The version of llvmlite, without the time it takes to import it."""
    spec = find_spec("llvmlite")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        with contextlib.suppress(OSError):
            return (Path(place) / "_version.py").read_bytes()
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("llvmlite").encode()
    except PackageNotFoundError:
        return b""


def _machine() -> bytes:
    """What Linux says of the first processor, its momentary speed left out."""
    kept = []
    fields = ("vendor_id", "cpu family", "model", "stepping", "flags")
    with contextlib.suppress(OSError), open("/proc/cpuinfo", "rb") as lines:
        for line in lines:
            if not line.strip():
                break
            if line.decode("ascii", "replace").startswith(fields):
                kept.append(line)
    return b"".join(kept)


def _digest(key: str, payload: bytes) -> bytes:
    return hashlib.sha256(key.encode() + payload).digest()


def _listing(path: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as found:
            return list(found)
    except OSError:
        return []


def _ours(name: str) -> bool:
    return name.startswith(".tmp-") or (len(name) == 62 and set(name) <= set("0123456789abcdef"))


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
