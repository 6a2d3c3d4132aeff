"""The machine's limits, measured in the same run: multiply-adds per second and read bandwidth."""

from __future__ import annotations

import llvmlite.binding as llvm

from harness.implementation import Implementation
from harness.workload import Array, Arrays, Workload
from nncompiler.cli.limits import Limits as Probes


class Limits(Implementation):
    """`call` runs the probe once on each thread."""

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        self.probes = Probes(threads)

    def versions(self) -> dict[str, str]:
        return {"LLVM": ".".join(map(str, llvm.llvm_version_info))}

    def prepare(
        self, workload: Workload, kind: str, batch: int, weights: Arrays | None, data: Arrays,
        onnx: str,
    ) -> str:  # fmt: skip
        raise NotImplementedError

    def probe(self, name: str, size: int = 0) -> float:
        """Choose `fma`, or `read` of an array; the operations, or bytes, that one call does."""
        self.call, work = self.probes.fma() if name == "fma" else self.probes.read(size)
        return work

    def value(self) -> Array:
        raise NotImplementedError
