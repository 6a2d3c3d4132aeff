"""Parts of kernels that workers take from each other: each once, and mostly by who is fast."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
from llvmlite import binding as llvm
from numpy.typing import NDArray

from nncompiler.codegen.module import claims, workers
from nncompiler.codegen.objects.bundles import module_text
from nncompiler.codegen.target import TRIPLE, host, machine
from nncompiler.runtime.call import aligned

Claim = Callable[[int, int], int]


@pytest.fixture(scope="module")
def claim() -> Claim:
    """`nn.claim` as machine code."""
    target = host()
    text = module_text([claims.HELPERS.replace("ATTRIBUTES", target.attributes)
                        .replace("LINES", "0").replace("LINE", str(claims.LINE))])
    machine(target)  # registers what LLVM needs
    own = llvm.Target.from_triple(TRIPLE).create_target_machine(cpu=target.cpu, opt=3)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(text), own)
    engine.finalize_object()
    type = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64)
    found = type(engine.get_function_address("nn.claim"))
    found.engine = engine  # type: ignore[attr-defined]
    return found


def myself(worker: int, workers: int, lines: NDArray[np.generic]) -> NDArray[np.int64]:
    """What a worker tells of itself."""
    return np.array([worker, workers, lines.ctypes.data, -1], np.int64)


def taken(
    claim: Claim, parts: int, kernels: int, pauses: tuple[float, ...]
) -> list[list[list[int]]]:
    """By worker and kernel the parts taken; a worker pauses so long after each answer."""
    threads = len(pauses)
    lines = aligned(claims.LINE * threads)
    lines[:] = 0
    found: list[list[list[int]]] = [[[] for _ in range(kernels)] for _ in range(threads)]

    def work(worker: int) -> None:
        me = myself(worker, threads, lines)
        for kernel in range(kernels):
            while (got := claim(me.ctypes.data, parts)) >= 0:
                found[worker][kernel] += range(got & 0xFFFFFFFF, got >> 32)
                time.sleep(pauses[worker])

    crew = [threading.Thread(target=work, args=(n,)) for n in range(threads)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join(60)
    return found


@pytest.mark.parametrize(("threads", "parts"), [(1, 9), (2, 64), (2, 1), (3, 255), (4, 3)])
def test_every_part_is_taken_once(claim: Claim, threads: int, parts: int) -> None:
    """Whoever is ahead or behind, through kernels between which nobody waits."""
    for slow in range(threads):
        pauses = tuple(0.0002 * (n == slow) for n in range(threads))
        found = taken(claim, parts, 10, pauses)
        for kernel in range(10):
            assert sorted(p for worker in found for p in worker[kernel]) == list(range(parts))


def test_own_parts_come_first(claim: Claim) -> None:
    """A worker begins at the front of its own; what it takes of another's is from the back."""
    lines = aligned(2 * claims.LINE)
    lines[:] = 0
    answers = []
    first, second = (myself(n, 2, lines) for n in range(2))
    while (got := claim(second.ctypes.data, 16)) >= 0:
        answers.append((got & 0xFFFFFFFF, got >> 32))
    own = [(8, 12), (12, 14), (14, 15), (15, 16)]
    assert answers == [*own, (4, 8), (2, 4), (1, 2), (0, 1)]
    assert claim(first.ctypes.data, 16) == -1
    assert claim(first.ctypes.data, 16) == 0 | 4 << 32


@pytest.mark.parametrize("parts", [9, 16, 255])
def test_negative_parts_are_taken_in_the_opposite_order(claim: Claim, parts: int) -> None:
    """Each worker's own parts, and another's, are those of the usual order mirrored."""
    for worker in range(2):
        found: list[list[tuple[int, int]]] = []
        for given in (parts, -parts):
            lines = aligned(2 * claims.LINE)
            lines[:] = 0
            me, answers = myself(worker, 2, lines), list[tuple[int, int]]()
            while (got := claim(me.ctypes.data, given)) >= 0:
                answers.append((got & 0xFFFFFFFF, got >> 32))
            found.append(answers)
        half = parts // 2
        ends = [(0, half) if end <= half else (half, parts) for _, end in found[0]]
        mirrored = [
            (sum(ends) - end, sum(ends) - begin)
            for (begin, end), ends in zip(found[0], ends, strict=True)
        ]
        assert found[1] == mirrored


def test_nobody_waits_for_a_slow_worker(claim: Claim) -> None:
    """Who is late finds that the others have done most of its parts."""
    fast, _ = taken(claim, 64, 1, (0.0, 0.2))
    assert len(fast[0]) >= 40


def test_lines_are_part_of_the_pool() -> None:
    """There is one for each worker that a pool may have."""
    from nncompiler.codegen.module.abi import MOST_THREADS

    assert workers.POOL_BYTES >= claims.LINE * MOST_THREADS
