"""The parent's side of the workers: it starts them, and asks one at a time."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from harness.implementation import IMPLEMENTATIONS

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / ".peers" / "bin" / "python"


class WorkerFailed(Exception):
    """What went wrong in a worker, in one line."""


class Process:
    """A worker process pinned to `cores`. Its standard error is shown only if it dies."""

    def __init__(self, name: str, threads: int, cores: list[int]) -> None:
        entry = IMPLEMENTATIONS[name]
        python = sys.executable if entry.ours else str(PEERS)
        libraries = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        environment = {
            **os.environ, **dict.fromkeys(libraries, str(threads)),
            "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "TORCHINDUCTOR_COMPILE_THREADS": "1",
            **(entry.single if threads == 1 else {}),
        }  # fmt: skip
        self.name = name
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            [python, "-m", "harness.worker", name, str(threads), *map(str, cores)],
            cwd=ROOT / "benchmarks", env=environment, text=True, bufsize=1,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log,
        )  # fmt: skip

    def ask(self, do: str, **arguments: Any) -> Any:
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            code = self.process.wait()
            raise WorkerFailed(f"the process ended with code {code}: {self.last_line()}")
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerFailed(answer["error"])
        return answer["ok"]

    def last_line(self) -> str:
        self.log.seek(0)
        return (self.log.read().strip() or "no message").splitlines()[-1]

    def alive(self) -> bool:
        return self.process.poll() is None

    def close(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.log.close()


class Pool:
    """One process for each implementation and number of threads, kept for all rows."""

    def __init__(self, cores: list[int]) -> None:
        self.cores = cores
        self.processes: dict[tuple[str, int], Process] = {}

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes.values():
            process.close()

    def get(self, name: str, threads: int) -> Process:
        """The process, started anew if it has died."""
        process = self.processes.get((name, threads))
        if process is not None and not process.alive():
            process.close()
            process = None
        if process is None:
            process = Process(name, threads, self.cores[-threads:])
            self.processes[name, threads] = process
        return process
