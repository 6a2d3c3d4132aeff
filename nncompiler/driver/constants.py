"""Where the constants of a frozen model are: in its state, to which `init` copies them."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from itertools import count
from typing import TypeAlias

from nncompiler.ir.graph import Function
from nncompiler.ir.kernel import Buffer, Plan
from nncompiler.ir.model import HEADER_BYTES, HEADER_OFFSETS, StateLayout, lay_out
from nncompiler.ir.types import Array, DType, TensorType
from nncompiler.record import dataclass, field, replace

#: A plan, and what it reads of the state behind the header, each as it lies in memory.
Frozen: TypeAlias = tuple[Plan, Mapping[str, Array]]


@dataclass(frozen=True, slots=True)
class Constants:
    """The `layout` of all constants, their bytes behind the header, and the plans with their
    offsets."""

    layout: StateLayout
    image: bytes = field(repr=False)
    plans: tuple[Plan, ...]


def lay_parameters(function: Function, dtype: DType) -> StateLayout:
    """A state of what `function` reads of it."""
    params = function.params_of("param", "state")
    return lay_out(dtype, tuple((v.name, v.type) for v in params))


def lay_constants(dtype: DType, frozen: Sequence[Frozen]) -> Constants:
    """The constants of several plans, equal ones once."""
    names: dict[bytes, str] = {}
    types: dict[str, TensorType] = {}
    for plan, memory in frozen:
        for b, data in _read(plan, memory):
            if data not in names:
                name = names[data] = _free(b.name.removeprefix("%"), types)
                types[name] = TensorType(b.type.dtype, (len(data) // b.type.dtype.bytes,))
    layout = lay_out(dtype, (), constants=tuple(types.items()))
    image = bytearray(layout.bytes)
    offsets = {data: layout.entry(name).offset for data, name in names.items()}
    for data, at in offsets.items():
        image[at : at + len(data)] = data
    return Constants(
        layout,
        bytes(image[HEADER_BYTES:]),
        tuple(_placed(plan, memory, offsets, layout.bytes) for plan, memory in frozen),
    )


def _read(plan: Plan, memory: Mapping[str, Array]) -> Iterator[tuple[Buffer, bytes]]:
    return ((b, memory[b.name].tobytes()) for b in plan.buffers if b.name in memory)


def _free(name: str, taken: Container[str]) -> str:
    """`name`, or with a number where constants of several plans are called alike."""
    names = (name if n == 0 else f"{name}.{n}" for n in count())
    return next(n for n in names if n not in taken and n not in HEADER_OFFSETS)


def _placed(
    plan: Plan, memory: Mapping[str, Array], offsets: Mapping[bytes, int], size: int
) -> Plan:
    places = {b.name: offsets[data] for b, data in _read(plan, memory)}
    buffers = (
        replace(b, offset=places[b.name]) if b.name in places else b for b in plan.buffers
    )
    return replace(plan, buffers=tuple(buffers), state_bytes=size)
