"""The compile cache: damaged, abandoned and concurrent entries, its size, what makes up a key."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nncompiler import api, cache
from nncompiler.cache import Cache, key_of
from tests.cli.conftest import LINE, REPOSITORY

KEY = key_of([b"key"])


def test_what_is_put_is_found(tmp_path: Path) -> None:
    """A payload comes back under its key, and under no other."""
    store = Cache(tmp_path)
    store.put(KEY, b"payload")
    assert store.get(KEY) == b"payload"
    assert store.get(key_of([b"other"])) is None
    assert store.usage() == (1, 7 + 32)


@pytest.mark.parametrize("damage", [
    lambda d: b"", lambda d: d[:20], lambda d: d[:-1], lambda d: d + b"x",
    lambda d: d[:40] + bytes([d[40] ^ 1]) + d[41:],
])  # fmt: skip
def test_damaged_entry_is_removed(tmp_path: Path, damage: object) -> None:
    """An entry that is cut, longer or changed is missing, and gone."""
    store = Cache(tmp_path)
    store.put(KEY, b"payload of some length")
    (path, _), = store.files()
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    assert store.get(KEY) is None
    assert not path.exists()


def test_entry_under_another_key_is_damaged(tmp_path: Path) -> None:
    """The digest covers the key: an entry that was renamed does not count."""
    store = Cache(tmp_path)
    store.put(KEY, b"payload")
    other = key_of([b"other"])
    target = tmp_path / other[:2] / other[2:]
    target.parent.mkdir(exist_ok=True)
    os.rename(next(iter(store.files()))[0], target)
    assert store.get(other) is None


def test_least_recently_used_goes_first(tmp_path: Path) -> None:
    """Above the limit the oldest entries go; reading one makes it new."""
    store = Cache(tmp_path, limit=3 * 132)
    keys = [key_of([bytes([n])]) for n in range(4)]
    for age, key in enumerate(keys[:3]):
        store.put(key, bytes(100))
        past = time.time() - 100 + age
        os.utime(tmp_path / key[:2] / key[2:], (past, past))
    assert store.get(keys[0]) is not None
    store.put(keys[3], bytes(100))
    store.prune()
    assert [store.get(k) is not None for k in keys] == [True, False, True, True]


def test_abandoned_temporary_files_go(tmp_path: Path) -> None:
    """Temporary files of killed processes are removed once they are old; others are left alone."""
    (tmp_path / "ab").mkdir()
    old, new = tmp_path / "ab" / ".tmp-old", tmp_path / "ab" / ".tmp-new"
    foreign = tmp_path / "ab" / "readme.txt"
    for path in (old, new, foreign):
        path.write_text("x")
    os.utime(old, (0, 0))
    os.utime(foreign, (0, 0))
    Cache(tmp_path, limit=0).prune()
    assert [p.exists() for p in (old, new, foreign)] == [False, True, True]


def test_unwritable_folder_is_no_error(tmp_path: Path) -> None:
    """Where the cache cannot be, nothing is kept and nothing raised."""
    blocker = tmp_path / "file"
    blocker.write_text("in the way")
    store = Cache(blocker / "cache")
    store.put(KEY, b"payload")
    assert store.get(KEY) is None and store.usage() == (0, 0)
    store.prune()


def test_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """NNCOMPILER_CACHE, then XDG_CACHE_HOME if absolute, then the home; `off` is none."""
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.delenv("NNCOMPILER_CACHE", raising=False)
    assert cache.folder() == Path("/home/me/.cache/nncompiler")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache.folder() == Path("/xdg/nncompiler")
    monkeypatch.setenv("NNCOMPILER_CACHE", "~/here")
    assert cache.folder() == Path("/home/me/here")
    monkeypatch.setenv("NNCOMPILER_CACHE", "OFF")
    assert cache.folder() is None


def test_borders_of_the_parts_of_a_key_count() -> None:
    """Moving bytes from one part to the next gives another key."""
    assert key_of([b"ab", b"c"]) != key_of([b"a", b"bc"])


def test_everything_that_decides_the_code_is_in_the_key() -> None:
    """Name, source, sizes, float type, processor, functions: each changes the key."""
    base = {"name": "a.nn", "source": b"model", "bindings": ((("batch", 1),),), "dtype": "f32",
            "cpu": "x86-64-v2", "functions": ("infer",)}  # fmt: skip
    changes = {"name": "b.nn", "source": b"modem", "bindings": ((("batch", 2),),), "dtype": "f64",
               "cpu": "x86-64-v3", "functions": None}  # fmt: skip
    keys = {key_of(api._parts(api.Request(**base)))}  # type: ignore[arg-type]
    for name, value in changes.items():
        keys.add(key_of(api._parts(api.Request(**{**base, name: value}))))  # type: ignore[arg-type]
    assert len(keys) == 1 + len(changes)


def test_an_edited_compiler_is_another_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Size and time of the compiler's files are part of the key."""
    (tmp_path / "nncompiler").mkdir()
    file = tmp_path / "nncompiler" / "fuse.py"
    file.write_text("a")
    monkeypatch.setattr(cache, "__file__", str(tmp_path / "nncompiler" / "cache.py"))
    before = cache.environment("x86-64-v2")
    os.utime(file, (1, 1))
    assert cache.environment("x86-64-v2") != before


WRITER = """
import sys
from pathlib import Path
from nncompiler.cache import Cache, key_of
store = Cache(Path(sys.argv[1]), limit=20_000)
for turn in range(40):
    for n in range(8):
        key, payload = key_of([bytes([n])]), bytes([n]) * 5000
        found = store.get(key)
        assert found in (None, payload), (n, found[:5])
        store.put(key, payload)
        store.prune()
"""


def test_processes_at_once(tmp_path: Path) -> None:
    """Processes that read, write and prune the same entries see whole ones or none."""
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    running = [subprocess.Popen(command, cwd=REPOSITORY) for _ in range(3)]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    assert not [p for p, _ in Cache(tmp_path).files() if p.name.startswith(".tmp-")]


def test_killed_while_writing(tmp_path: Path) -> None:
    """Whatever a killed process leaves, entries are whole."""
    for _ in range(5):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], cwd=REPOSITORY)
        time.sleep(0.25)
        process.kill()
        process.wait()
    store = Cache(tmp_path)
    for n in range(8):
        assert store.get(key_of([bytes([n])])) in (None, bytes([n]) * 5000)


def test_artifact_is_the_same_from_the_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A second build gives the same bytes from the cache; a damaged entry is compiled again."""
    monkeypatch.setenv("NNCOMPILER_CACHE", str(tmp_path))
    monkeypatch.setattr(cache, "_compiler", lambda: b"as it is")  # not edited in the meantime
    wanted = api.Request("line.nn", LINE.encode(), functions=("init", "infer"))
    first, second = api.build(wanted), api.build(wanted)
    assert (first.cached, second.cached) == (False, True)
    assert (first.so, first.header, first.stages) == (second.so, second.header, second.stages)
    for path, stat in Cache(tmp_path).files():
        path.write_bytes(path.read_bytes()[: stat.st_size // 2])
    third = api.build(wanted)
    assert not third.cached and third.so == first.so
    monkeypatch.setenv("NNCOMPILER_CACHE", "off")
    assert not api.build(wanted).cached
