"""Object code of many modules, made by this process and by helpers beside it.

LLVM takes most of the time of a compilation, and llvmlite lets one thread of a process into it.
Where there is enough to do, helpers are started that read modules from a pipe and answer with
objects. All take the largest module that is left, so a slow or late helper costs nothing; the
result does not depend on who made what. A helper has several modules in hand: the thread that
talks to it waits its turn while this process writes texts. Nobody waits for a helper that did not
report. One that fails loses its modules to this process, which then raises the error, if any.

NNCOMPILER_JOBS is the largest number of processes, this one included; without it, that of the
processors this process may use.
"""

from __future__ import annotations

import os
import subprocess
import sys
from bisect import insort
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Condition, Thread
from typing import IO

import llvmlite

from nncompiler.codegen.object_code import compile_module
from nncompiler.codegen.target import Target, select
from nncompiler.errors import UserError

_HELPER_BYTES = 200_000  # so much text takes some 0.25 s: twice what starting a helper takes
_HELPER_KERNELS = 8  # the same before there are texts, while nothing has to wait for it
_MOST = 8
_IN_HAND = 3  # modules that a helper has at a time
_LONGEST = 2**32
_READY = b"ready"
_START = (
    "import sys; sys.path += sys.argv[1:]; from nncompiler.codegen.processes import serve; serve()"
)

#: Helpers that nobody gave work to so far.
_WAITING: list[subprocess.Popen[bytes]] = []


def compile_modules(
    texts: Iterable[str], target: Target, done: Callable[[int, bytes], None] | None = None
) -> list[bytes]:
    """An object for each module of LLVM text; helpers begin while texts are still to come.

    `done` gets number and object of each module when it is there, in any order and thread.
    """
    work = _Work(target, _jobs() - 1 if _startable() else 0, done)
    try:
        for text in texts:
            work.add(text)
        work.finish()
    finally:
        work.end()
    return [work.objects[k] for k in range(len(work.texts))]


@contextmanager
def helpers_ahead(kernels: int) -> Iterator[None]:
    """Start helpers for about so many kernels, that load LLVM while these are being planned;
    `compile_modules` takes them. Those that nobody took are gone behind this."""
    most = min(_jobs() - 1, kernels // _HELPER_KERNELS) if _startable() else 0
    started = [p for p in (_start() for _ in range(most)) if p is not None]
    _WAITING.extend(started)
    try:
        yield
    finally:
        for process in started:
            with suppress(ValueError):  # it is at work elsewhere
                _WAITING.remove(process)
                _end(process)


def _start() -> subprocess.Popen[bytes] | None:
    """A helper, or None where the system does not let us have one."""
    roots = [str(Path(f).parents[n]) for f, n in ((__file__, 2), (llvmlite.__file__, 1))]
    try:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _START, *roots],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
    except OSError:
        return None


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):  # what was not sent has no reader
                pipe.close()
    process.wait()


def _jobs() -> int:
    given = os.environ.get("NNCOMPILER_JOBS")
    if given is None:
        return min(len(os.sched_getaffinity(0)), _MOST)
    if not given.isdecimal() or int(given) < 1:
        raise UserError(
            "NN0503", f"expected NNCOMPILER_JOBS to be a number above 0, but found '{given}'"
        )
    return int(given)


def _startable() -> bool:
    """Whether what runs here is a Python interpreter of its own, no program that contains one."""
    name = os.path.basename(sys.executable or "")
    return name.startswith("python") and not getattr(sys, "frozen", False)


class _Work:
    """Modules to be compiled, and the objects so far by number; `most` helpers may take part."""

    def __init__(
        self, target: Target, most: int, done: Callable[[int, bytes], None] | None
    ) -> None:
        self.target, self.most, self.done = target, most, done
        self.changed = Condition()
        self.texts: list[str] = []
        self.objects: dict[int, bytes] = {}
        self.helpers: list[_Helper] = []
        self.bytes = 0
        self.complete = False
        self.left: list[tuple[int, int]] = []  # size and number, in order
        while _WAITING and len(self.helpers) < most:
            self.helpers.append(_Helper(self, _WAITING.pop()))

    def add(self, text: str) -> None:
        """One more module, and one more helper where there is enough for it."""
        self.texts.append(text)
        self.put(len(self.texts) - 1)
        self.bytes += len(text)
        if len(self.helpers) < min(self.most, self.bytes // _HELPER_BYTES):
            process = _start()
            if process is None:
                self.most = 0
            else:
                self.helpers.append(_Helper(self, process))

    def put(self, k: int) -> None:
        with self.changed:
            insort(self.left, (len(self.texts[k]), k))
            self.changed.notify()

    def take(self, wait: bool = True) -> int | None:
        """The largest module that is left; None where none is, and none will come or the caller
        does not `wait` for it."""
        with self.changed:
            while wait and not self.left and not self.complete:
                self.changed.wait()
            return self.left.pop()[1] if self.left else None

    def finish(self) -> None:
        """All texts are there: compile what is left together with the helpers."""
        self.close()
        self.run()
        for helper in self.helpers:
            helper.finish()
        self.run()  # what a helper gave back

    def run(self) -> None:
        while (k := self.take()) is not None:
            self.keep(k, compile_module(self.texts[k], self.target))

    def keep(self, k: int, data: bytes) -> None:
        """Module `k` is compiled."""
        self.objects[k] = data
        if self.done is not None:
            self.done(k, data)

    def close(self) -> None:
        with self.changed:
            self.complete = True
            self.changed.notify_all()

    def end(self) -> None:
        """No helper is left after this."""
        with self.changed:
            self.left.clear()
        self.close()
        for helper in self.helpers:
            helper.kill()


class _Helper:
    """A process that compiles, and the thread that talks to it."""

    def __init__(self, work: _Work, process: subprocess.Popen[bytes]) -> None:
        self.work, self.process = work, process
        self.ready = False
        self.thread = Thread(target=self._talk, daemon=True)
        self.thread.start()

    def _talk(self) -> None:
        to, answers = self.process.stdin, self.process.stdout
        assert to is not None and answers is not None
        sent: deque[int] = deque()
        try:
            _send(to, self.work.target.cpu.encode())
            self.ready = _receive(answers) == _READY
            while self.ready:
                while len(sent) < _IN_HAND and (k := self.work.take(not sent)) is not None:
                    sent.append(k)
                    _send(to, self.work.texts[k].encode())
                if not sent:
                    break
                answer = _receive(answers)
                self.work.keep(sent.popleft(), answer)
        except (OSError, EOFError, ValueError):
            pass  # it is gone
        finally:
            for k in sent:
                self.work.put(k)

    def finish(self) -> None:
        """Wait until it has answered; at once where it has not even begun."""
        if not self.ready:
            self.process.kill()
        self.thread.join()

    def kill(self) -> None:
        self.process.kill()
        self.thread.join()
        _end(self.process)


def serve() -> None:
    """What a helper does: a level, then modules until there are no more; an error ends it."""
    source, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what anybody prints is no answer
    target = select(_receive(source).decode())
    _send(answers, _READY)
    texts: SimpleQueue[bytes] = SimpleQueue()
    Thread(target=_read_all, args=(source, texts), daemon=True).start()
    while text := texts.get():
        _send(answers, compile_module(text.decode(), target))


def _read_all(source: IO[bytes], texts: SimpleQueue[bytes]) -> None:
    """Every message of `source`, at once, so that its writer is never kept; then an empty one."""
    with suppress(EOFError):
        while True:
            texts.put(_receive(source))
    texts.put(b"")


def _send(to: IO[bytes], data: bytes) -> None:
    to.write(len(data).to_bytes(8, "little") + data)
    to.flush()


def _receive(source: IO[bytes]) -> bytes:
    """The next message; `EOFError` where it is not whole, or is none of ours."""
    size = int.from_bytes(_exactly(source, 8), "little")
    if size > _LONGEST:
        raise EOFError
    return _exactly(source, size)


def _exactly(source: IO[bytes], size: int) -> bytes:
    data = source.read(size)
    if len(data) != size:
        raise EOFError
    return data
