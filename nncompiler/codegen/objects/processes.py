"""Object code of many modules, made by this process and by helpers beside it.

LLVM takes most of the time of a compilation, and llvmlite lets one thread of a process into it.
Where there is enough to do, helpers are started that read modules from a pipe and answer with
objects. All take the largest module that is left, so a slow or late helper costs nothing; the
result does not depend on who made what. Between two modules, and whenever a text is there, this
process takes what helpers made, and gives them what to do until the next time. Nobody waits for a
helper that did not report. One that fails loses its modules to this process, which then raises
the error, if any.

NNCOMPILER_JOBS is the largest number of processes, this one included; without it, that of the
processors this process may use.
"""

from __future__ import annotations

import os
import subprocess
import sys
from bisect import insort
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from select import POLLIN, poll
from threading import Thread
from typing import IO

import llvmlite

from nncompiler.codegen.objects.object_code import compile_module
from nncompiler.codegen.target import Target, select
from nncompiler.errors import UserError

_HELPER_BYTES = 200_000  # so much text takes some 0.25 s: twice what starting a helper takes
_HELPER_KERNELS = 8  # the same before there are texts, while nothing has to wait for it
_MOST = 8
_AHEAD = 100_000  # so much text is compiled until the next one is written, or nearly always
_HEAD = 8  # bytes in front of a message, its size
_LONGEST = 2**32
_MOST_BYTES = 2**20  # more than a pipe holds
_READY = b"ready"
_START = (
    "import sys; sys.path += sys.argv[1:]; "
    "from nncompiler.codegen.objects.processes import serve; serve()"
)

#: Helpers that nobody gave work to so far.
_WAITING: list[subprocess.Popen[bytes]] = []


def compile_modules(
    texts: Iterable[str], target: Target, done: Callable[[int, bytes], None] | None = None
) -> list[bytes]:
    """An object for each module of LLVM text; helpers begin while texts are still to come.

    `done` gets number and object of each module when it is there, in any order.
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
    roots = [str(Path(f).parents[n]) for f, n in ((__file__, 3), (llvmlite.__file__, 1))]
    try:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _START, *roots],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
    except OSError:
        return None


def _waiting() -> subprocess.Popen[bytes] | None:
    """A helper that waits for work, if there is one: several threads may take them at once."""
    try:
        return _WAITING.pop()
    except IndexError:
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
        self.texts: list[str] = []
        self.objects: dict[int, bytes] = {}
        self.helpers: list[_Helper] = []
        self.bytes = 0
        self.left: list[tuple[int, int]] = []  # size and number, in order
        while len(self.helpers) < most and (process := _waiting()) is not None:
            self.helpers.append(_Helper(process, target))

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
                self.helpers.append(_Helper(process, self.target))
        self.share_out(_AHEAD)

    def put(self, k: int) -> None:
        insort(self.left, (len(self.texts[k]), k))

    def finish(self) -> None:
        """All texts are there: compile what is left together with the helpers."""
        self.run()
        while busy := [h for h in self.helpers if h.sent]:
            _wait(busy)
            self.share_out(0)
            self.run()  # what a helper gave back

    def run(self) -> None:
        """Compile the largest module until none is left."""
        while self.left:
            size, k = self.left.pop()
            self.share_out(size)
            self.keep(k, compile_module(self.texts[k], self.target))

    def share_out(self, size: int) -> None:
        """Take what helpers have made; give each the largest modules, until it has as much to do
        as `size` characters are."""
        for helper in self.helpers:
            for k, data in helper.receive():
                self.keep(k, data)
            while helper.gone and helper.sent:
                self.put(helper.sent.pop())
        for helper in self.helpers:
            while self.left and helper.ready and not helper.gone and self.in_hand(helper) <= size:
                k = self.left.pop()[1]
                helper.sent.append(k)
                helper.send(self.texts[k].encode())

    def in_hand(self, helper: _Helper) -> float:
        """Characters that a helper has to do, half of those of the module it is at."""
        sizes = [len(self.texts[k]) for k in helper.sent]
        return sum(sizes) - sizes[0] / 2 if sizes else 0

    def keep(self, k: int, data: bytes) -> None:
        """Module `k` is compiled."""
        self.objects[k] = data
        if self.done is not None:
            self.done(k, data)

    def end(self) -> None:
        """No helper is left after this."""
        for helper in self.helpers:
            _end(helper.process)


class _Helper:
    """A process that compiles: `sent` are the modules it has, in order. Once it has reported, it
    is `ready`; when it is `gone`, nothing more will come of it."""

    def __init__(self, process: subprocess.Popen[bytes], target: Target) -> None:
        assert process.stdin is not None and process.stdout is not None
        self.process, self.texts, self.answers = process, process.stdin, process.stdout
        self.sent: deque[int] = deque()
        self.ready = self.gone = False
        self.bytes = b""  # of an answer that is not whole
        os.set_blocking(self.answers.fileno(), False)
        self.send(target.cpu.encode())

    def send(self, data: bytes) -> None:
        """Helpers read at once whatever is sent, so this does not wait."""
        try:
            _send(self.texts, data)
        except OSError:
            self.gone = True

    def receive(self) -> list[tuple[int, bytes]]:
        """Modules it has made by now, and their objects."""
        with suppress(BlockingIOError):
            new = os.read(self.answers.fileno(), _MOST_BYTES)
            self.bytes += new
            self.gone |= not new
        found = []
        while (data := self._message()) is not None:
            if self.ready and self.sent:
                found.append((self.sent.popleft(), data))
            elif data == _READY:
                self.ready = True
            else:
                self.gone = True
        return found

    def _message(self) -> bytes | None:
        """The next answer, if it is whole. What is none of ours would never be."""
        size = int.from_bytes(self.bytes[:_HEAD], "little")
        self.gone |= size > _LONGEST
        end = _HEAD + size
        if len(self.bytes) < end:
            return None
        data, self.bytes = self.bytes[_HEAD:end], self.bytes[end:]
        return data


def _wait(helpers: Sequence[_Helper]) -> None:
    """Until one of them answers, or ends."""
    some = poll()
    for helper in helpers:
        some.register(helper.answers, POLLIN)
    some.poll()


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
    try:
        while True:
            texts.put(_receive(source))
    except EOFError:
        pass
    finally:  # whatever ended it, or the process would wait for ever
        texts.put(b"")


def _send(to: IO[bytes], data: bytes) -> None:
    to.write(len(data).to_bytes(_HEAD, "little") + data)
    to.flush()


def _receive(source: IO[bytes]) -> bytes:
    """The next message; `EOFError` where it is not whole, or is none of ours."""
    size = int.from_bytes(_exactly(source, _HEAD), "little")
    if size > _LONGEST:
        raise EOFError
    return _exactly(source, size)


def _exactly(source: IO[bytes], size: int) -> bytes:
    data = source.read(size)
    if len(data) != size:
        raise EOFError
    return data
