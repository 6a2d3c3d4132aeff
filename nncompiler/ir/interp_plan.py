"""The Plan interpreter: kernels in NumPy, on a real arena, at the real offsets.

The arena is filled with 0xA5 first, so that a kernel that reads what nobody wrote gives nonsense
rather than zeros. Every index is checked against its buffer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from nncompiler.errors import CompilerBug, UserError
from nncompiler.ir.interp_kernel import run_kernel
from nncompiler.ir.kernel import Buffer, Kernel, Loop, Plan, Step
from nncompiler.ir.types import Array


def run_plan(
    plan: Plan, state: Any, arguments: Mapping[str, Array], order: str | None = None
) -> None:
    """Run every step once. `state` (writable bytes) and the output arguments are changed in place.

    With `order` forward or backward, loops run iteration by iteration (slowly): a plan whose
    iterations get in each other's way, say by a write in place, then gives another result.
    `UserError` NN0331 where an argument does not fit, NN0332 where an index check fails.
    """
    block = state if isinstance(state, np.ndarray) else np.frombuffer(state, np.uint8)
    if block.dtype != np.uint8 or block.ndim != 1 or block.size < plan.state_bytes:
        raise UserError("NN0331", f"expected a state of {plan.state_bytes} bytes (uint8)")
    arena = np.full(plan.arena_bytes, 0xA5, np.uint8)
    arrays = _place(plan, arena, block, arguments)
    for check in plan.checks:
        found: Any = arrays[check.buffer]
        found = found[tuple(slice(r.start, r.stop, r.step) for r in check.part)]
        if found.size and not 0 <= found.min() <= found.max() < check.extent:
            raise UserError(
                "NN0332", f"every element of '{check.buffer}' that is an index must be in "
                f"0..{check.extent - 1}",
            )
    _steps(plan.steps, arrays, {}, order)


def _steps(
    steps: tuple[Step, ...], arrays: Mapping[str, Array], at: Mapping[str, int], order: str | None
) -> None:
    for step in steps:
        match step:
            case Kernel():
                run_kernel(step, arrays, at, order)
            case Loop(counter, extent, body, reverse, parallel=parallel):
                back = reverse or (parallel and order == "backward")
                for k in reversed(range(extent)) if back else range(extent):
                    _steps(body, arrays, {**at, counter: k}, order)


def _place(
    plan: Plan, arena: Array, state: Array, arguments: Mapping[str, Array]
) -> dict[str, Array]:
    """Every buffer as an array on its bytes."""
    table = plan.table()

    def memory(buffer: Buffer) -> Array:
        match buffer.space:
            case "arena":
                return arena[buffer.offset or 0 :]
            case "state":
                return state[buffer.offset or 0 :]
            case "constant":
                return np.frombuffer(buffer.data or b"", np.uint8)
            case _:
                return _argument(buffer, arguments)

    return {b.name: array_of(b, table, memory) for b in plan.buffers}


def array_of(
    buffer: Buffer, table: Mapping[str, Buffer], memory: Callable[[Buffer], Array]
) -> Array:
    """A buffer as an array on its bytes; `memory` has those of a buffer that is no view, and what
    follows them."""
    data = _bytes_of(buffer, table, memory)
    if data.size < buffer.nbytes:
        raise CompilerBug("NN0392", f"buffer '{buffer.name}' ends outside its {buffer.space}")
    size = buffer.type.dtype.bytes
    strides = tuple(s * size for s in buffer.layout)
    # an empty buffer may stand at the very end of its block
    source = data if buffer.type.size else np.empty(size, np.uint8)
    dtype = buffer.type.dtype.numpy
    found: Array = np.ndarray(buffer.type.shape, dtype, source.data, 0, strides)
    return found


def _bytes_of(
    buffer: Buffer, table: Mapping[str, Buffer], memory: Callable[[Buffer], Array]
) -> Array:
    if buffer.space != "view":
        return memory(buffer)
    base = table.get(buffer.base or "")
    if base is None or base is buffer:
        raise CompilerBug("NN0392", f"view '{buffer.name}' has no base")
    return _bytes_of(base, table, memory)[buffer.offset or 0 :]


def _argument(buffer: Buffer, arguments: Mapping[str, Array]) -> Array:
    array = arguments.get(buffer.name)
    type = buffer.type
    if array is None:
        raise UserError("NN0331", f"expected an array for '{buffer.name}': {type}")
    if array.shape != type.shape or array.dtype != type.dtype.numpy:
        found = f"{array.dtype}[{','.join(map(str, array.shape))}]"
        raise UserError("NN0331", f"expected '{buffer.name}' of type {type}, but found {found}")
    if not array.flags.c_contiguous:
        raise UserError("NN0331", f"the array for '{buffer.name}' must be contiguous")
    return array.reshape(-1).view(np.uint8)
