"""What the generated code may assume about the processor.

A target is a level of the x86-64 psABI (``x86-64-v2``, ``-v3``, ``-v4``), optionally tuned for one
processor; ``host`` is the highest level this machine has, tuned for it. Code never needs more than
its level, so the features listed in an artifact are few and the same for every processor of that
level.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import llvmlite.binding as llvm

from nncompiler.errors import Limitation, UserError, nearest
from nncompiler.ir.machine import Machine
from nncompiler.record import dataclass, replace

TRIPLE = "x86_64-unknown-linux-gnu"

# Names as in /proc/cpuinfo, each level adding to the one before.
_V2 = ("cx16", "lahf_lm", "pni", "popcnt", "sse4_1", "sse4_2", "ssse3")
_V3 = (*_V2, "abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe")
_V4 = (*_V3, "avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl")

# What decides the level of a machine, in LLVM's names.
_DECISIVE = {
    "x86-64-v4": ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"),
    "x86-64-v3": ("avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe"),
    "x86-64-v2": ("cx16", "popcnt", "sse4.1", "sse4.2", "ssse3"),
}


@dataclass(frozen=True, slots=True)
class Target:
    """`cpu` is the level, `tune` the processor to schedule for; `required_features` as in
    /proc/cpuinfo.
    """

    cpu: str
    tune: str
    machine: Machine
    fma: bool
    masks: bool
    required_features: tuple[str, ...]

    @property
    def vector_bytes(self) -> int:
        return self.machine.vector_bytes

    @property
    def registers(self) -> int:
        return self.machine.registers

    @property
    def name(self) -> str:
        return self.cpu if self.tune == "generic" else f"{self.cpu}, tuned for {self.tune}"

    @property
    def attributes(self) -> str:
        """The attributes every generated function bears, in LLVM's text."""
        bits = 8 * self.vector_bytes
        return (
            f'nounwind "no-builtins" "target-cpu"="{self.cpu}" "tune-cpu"="{self.tune}" '
            f'"prefer-vector-width"="{bits}" "min-legal-vector-width"="{bits}"'
        )


_LEVELS = {
    "x86-64-v2": Target("x86-64-v2", "generic", Machine(16, 16), False, False, _V2),
    "x86-64-v3": Target("x86-64-v3", "generic", Machine(32, 16), True, False, _V3),
    "x86-64-v4": Target("x86-64-v4", "generic", Machine(64, 32, 1, 1), True, True, _V4),
}
#: Processors, in LLVM's names, that begin two multiply-adds and loads of 64 bytes in a cycle.
_TWO_LONG = (
    "skylake-avx512", "cascadelake", "cooperlake", "icelake-server", "sapphirerapids",
    "emeraldrapids", "graniterapids", "diamondrapids", "znver5",
)  # fmt: skip
NAMES = ("host", *_LEVELS)


def select(name: str) -> Target:
    """The target called `name` on the command line; `UserError` NN0501 when there is none."""
    if name == "host":
        return host()
    if name in _LEVELS:
        return _LEVELS[name]
    close = nearest(name, NAMES)
    raise UserError(
        "NN0501",
        f"expected a processor level ({', '.join(NAMES)}), but found '{name}'",
        help=f"write {close}" if close else None,
    )


def runs_here(target: Target) -> bool:
    """Whether this machine has what the code needs."""
    levels = list(_LEVELS)
    return levels.index(target.cpu) <= levels.index(host().cpu)


@cache
def host() -> Target:
    """The highest level of this machine, tuned for it."""
    have = llvm.get_host_cpu_features()
    for level, needed in _DECISIVE.items():
        if all(have.get(feature) for feature in needed):
            found = _LEVELS[level]
            return tuned(found, llvm.get_host_cpu_name())
    raise Limitation("NN0502", "expected a processor with at least SSE4.2 (x86-64-v2)")


def tuned(level: Target, cpu: str) -> Target:
    """A level as one of its processors runs it."""
    if cpu in _TWO_LONG:
        level = replace(level, machine=replace(level.machine, multiply_adds=2, loads=2))
    return replace(level, tune=cpu)


@cache
def machine(target: Target) -> Any:
    """LLVM's target machine. Position-independent small code: the artifact is a shared object
    without outside symbols.
    """
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()  # for system calls
    # A quarter of LLVM's time; the emitter's loops have what it would find (`Writer`).
    llvm.set_option("", "-disable-lsr")
    # The levels above 1 schedule once more behind register allocation and divide by cases: code of
    # the same speed, later.
    return llvm.Target.from_triple(TRIPLE).create_target_machine(
        cpu=target.cpu, features="", opt=1, reloc="pic", codemodel="small"
    )
