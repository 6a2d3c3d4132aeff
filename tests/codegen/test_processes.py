"""Object code made by several processes: the same bytes, whatever becomes of the helpers."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nncompiler.codegen.objects import processes
from nncompiler.codegen.objects.object_code import compile_module
from nncompiler.codegen.objects.processes import compile_modules, helpers_ahead
from nncompiler.codegen.target import host
from nncompiler.errors import UserError

TEXTS = [
    f"define i64 @f{n}(i64 %x) {{\n  %y = mul i64 %x, {n + 2}\n  ret i64 %y\n}}\n"
    for n in range(40)
]
Started = list[subprocess.Popen[bytes]]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    """Two helpers for any amount of work; the processes that were started."""
    found: Started = []
    start = subprocess.Popen

    def recorded(*arguments: object, **settings: object) -> subprocess.Popen[bytes]:
        found.append(start(*arguments, **settings))  # type: ignore[call-overload]
        return found[-1]

    monkeypatch.setattr(processes, "_HELPER_BYTES", 1)
    monkeypatch.setenv("NNCOMPILER_JOBS", "3")
    monkeypatch.setattr(subprocess, "Popen", recorded)
    return found


def interpreter(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
    """Make `sys.executable` a program that does something else than Python."""
    program = folder / "python3"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))


def plain() -> list[bytes]:
    return [compile_module(text, host()) for text in TEXTS]


def check_all_ended(started: Started) -> None:
    """No helper is left, and none is a zombie."""
    assert all(p.returncode is not None for p in started)


def test_helpers_give_the_bytes_of_one_process(
    started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every module is made by a helper here: this process waits until they have begun."""
    monkeypatch.setattr(processes._Work, "run", _until_done)
    assert compile_modules(TEXTS, host()) == plain()
    assert len(started) == 2
    check_all_ended(started)


def test_every_object_is_told_once(started: Started) -> None:
    """With its number, whoever made it."""
    told: list[tuple[int, bytes]] = []
    made = compile_modules(TEXTS, host(), lambda k, data: told.append((k, data)))
    assert sorted(told) == list(enumerate(made)) == list(enumerate(plain()))
    check_all_ended(started)


def test_helpers_compile_while_texts_are_written(started: Started) -> None:
    """What they made is taken whenever one more text is there."""
    told: list[int] = []

    def slowly() -> Iterator[str]:
        for text in TEXTS * 150:
            yield text
            if told:
                return
            time.sleep(0.01)

    made = compile_modules(slowly(), host(), lambda k, _: told.append(k))
    assert told and len(made) < 150 * len(TEXTS)
    check_all_ended(started)


def _until_done(work: processes._Work) -> None:
    for _ in range(6_000):
        work.share_out(1)
        if len(work.objects) == len(work.texts):
            return
        time.sleep(0.01)
    raise AssertionError(f"the helpers made {len(work.objects)} of {len(work.texts)} modules")


@pytest.mark.parametrize(
    "script",
    [
        "exit 1", "exec sleep 60", "echo hello; exec sleep 60",
        "head -c 100000 /dev/zero; cat > /dev/null",
    ],
)  # fmt: skip
def test_helpers_that_do_nothing_useful_cost_nothing(
    started: Started, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str
) -> None:
    """One that ends at once, hangs, or answers nonsense: this process compiles everything."""
    interpreter(monkeypatch, tmp_path, script)
    assert compile_modules(TEXTS, host()) == plain()
    assert len(started) == 2
    check_all_ended(started)


def test_a_helper_that_dies_gives_its_module_back(
    started: Started, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It reports, takes a module, and ends without an answer."""
    ready = r"\005\000\000\000\000\000\000\000ready"
    interpreter(monkeypatch, tmp_path, f"printf '{ready}'; sleep 0.2")
    assert compile_modules(TEXTS, host()) == plain()
    check_all_ended(started)


def test_a_helper_that_answers_nonsense_gives_its_module_back(
    started: Started, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It reports, takes a module, and says what no helper would; then it does not even end."""
    ready = r"\005\000\000\000\000\000\000\000ready"
    script = f"printf '{ready}'; sleep 0.2; echo good morning; exec sleep 60"
    interpreter(monkeypatch, tmp_path, script)
    assert compile_modules(TEXTS, host()) == plain()
    check_all_ended(started)


class Contested(list[subprocess.Popen[bytes]]):
    """Helpers of which another thread takes the last one whenever this one has seen it."""

    def __len__(self) -> int:
        return 1


def test_another_thread_takes_the_last_helper(
    started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two threads compile at once; this one starts helpers of its own."""
    monkeypatch.setattr(processes, "_WAITING", Contested())
    assert compile_modules(TEXTS, host()) == plain()
    assert len(started) == 2
    check_all_ended(started)


def test_a_program_that_cannot_be_started(
    started: Started, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without helpers, this process compiles everything."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python-is-not-here"))
    assert compile_modules(TEXTS, host()) == plain()
    assert not started


def test_a_program_that_contains_python_is_not_started(
    started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`sys.executable` of an application would open its window."""
    monkeypatch.setattr(sys, "executable", "/usr/bin/painter")
    assert compile_modules(TEXTS, host()) == plain()
    assert not started


def test_a_module_that_is_wrong_raises_here(started: Started) -> None:
    """The error is that of LLVM, whoever met it first; the helpers are gone."""
    with pytest.raises(RuntimeError, match="parsing"):
        compile_modules([*TEXTS, "define nonsense " * 100], host())
    check_all_ended(started)


def test_texts_that_fail_to_come_leave_no_helper(started: Started) -> None:
    """The error passes through while helpers wait for more."""

    def broken() -> Iterator[str]:
        yield from TEXTS
        raise KeyError("broken")

    with pytest.raises(KeyError, match="broken"):
        compile_modules(broken(), host())
    assert len(started) == 2
    check_all_ended(started)


def test_little_work_starts_nothing(started: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    """A helper takes longer to start than a few small modules take."""
    monkeypatch.setattr(processes, "_HELPER_BYTES", 250_000)
    assert compile_modules(TEXTS, host()) == plain()
    assert not started


@pytest.mark.parametrize("given", ["0", "many", "-1", ""])
def test_jobs_must_be_a_number(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    """NN0503 names the variable."""
    monkeypatch.setenv("NNCOMPILER_JOBS", given)
    with pytest.raises(UserError, match="NNCOMPILER_JOBS") as error:
        compile_modules(TEXTS, host())
    assert error.value.code == "NN0503"


def test_helpers_started_ahead_take_part(started: Started) -> None:
    """They are there before the first module, and no more are started for it."""
    with helpers_ahead(1000):
        assert len(started) == 2
        assert compile_modules(TEXTS, host()) == plain()
        assert len(started) == 2
    check_all_ended(started)


def test_helpers_started_ahead_for_nothing_end(started: Started) -> None:
    """Where all was in the cache, or a plan failed."""
    with pytest.raises(KeyError), helpers_ahead(1000):
        raise KeyError("plan")
    assert len(started) == 2
    check_all_ended(started)


def test_few_kernels_start_nothing_ahead(started: Started) -> None:
    """A model of a few kernels is compiled before a helper has loaded LLVM."""
    with helpers_ahead(processes._HELPER_KERNELS - 1):
        assert not started
