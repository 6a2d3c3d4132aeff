"""What surrounds the functions of a model: the network as elaborated, the layout of the state,
the entry points.

The state is one block of bytes, laid out the same in every binding of the free sizes:

    header (64 bytes: step, seed, draws, rate) | parameters | model state | optimizer slots

Inference needs the prefix up to the end of the model state. A frozen model has header and
constants alone.
"""

from __future__ import annotations

from nncompiler.errors import CompilerBug, Span
from nncompiler.ir.graph import Function
from nncompiler.ir.kernel import Plan
from nncompiler.ir.train import TrainSpec
from nncompiler.ir.types import I32, U32, DType, TensorType, scalar
from nncompiler.record import dataclass

HEADER_BYTES = 64
ALIGNMENT = 64

#: Byte offsets in the header. `step` counts optimizer steps (i32), `seed` is u32[2] (low word
#: first), `draws` counts random draws (u32), `rate` is the current learning rate in the model's
#: float type (kept in 8 bytes).
HEADER_OFFSETS = {"step": 0, "draws": 4, "seed": 8, "rate": 16}


def header_types(default: DType) -> dict[str, TensorType]:
    """The header scalars as graph parameters; `default` is the model's float type."""
    return {
        "step": scalar(I32),
        "draws": scalar(U32),
        "seed": TensorType(U32, (2,)),
        "rate": scalar(default),
    }


@dataclass(frozen=True, slots=True)
class StateEntry:
    """`kind` is header, param, state, slot or constant."""

    name: str
    kind: str
    type: TensorType
    offset: int


@dataclass(frozen=True, slots=True)
class StateLayout:
    """`infer_bytes` is the prefix that inference reads. A `frozen` model has constants in place of
    parameters, or none of either."""

    entries: tuple[StateEntry, ...]
    bytes: int
    infer_bytes: int
    frozen: bool = False

    def entry(self, name: str) -> StateEntry:
        for e in self.entries:
            if e.name == name:
                return e
        raise CompilerBug("NN0394", f"the state has no entry '{name}'")

    @property
    def parameter_bytes(self) -> int:
        """Of all parameters and model state, behind the header."""
        return 0 if self.frozen else self.infer_bytes - HEADER_BYTES

    def of_kind(self, kind: str) -> tuple[StateEntry, ...]:
        return tuple(e for e in self.entries if e.kind == kind)


def align(offset: int, to: int = ALIGNMENT) -> int:
    return -(-offset // to) * to


def lay_out(
    default: DType,
    params: tuple[tuple[str, TensorType], ...],
    slots: tuple[tuple[str, TensorType], ...] = (),
    states: tuple[tuple[str, TensorType], ...] = (),
    constants: tuple[tuple[str, TensorType], ...] | None = None,
) -> StateLayout:
    """Place header, parameters, model state and optimizer slots, or the constants of a frozen
    model; every tensor begins at a multiple of 64 bytes."""
    entries = [
        StateEntry(n, "header", t, HEADER_OFFSETS[n]) for n, t in header_types(default).items()
    ]
    offset = HEADER_BYTES
    infer_bytes = offset
    groups = (("constant", constants or ()), ("param", params), ("state", states), ("slot", slots))
    for kind, group in groups:
        for name, type in group:
            entries.append(StateEntry(name, kind, type, offset))
            offset = align(offset + type.nbytes)
        if kind == "state":
            infer_bytes = offset
    return StateLayout(tuple(entries), offset, infer_bytes, constants is not None)


@dataclass(frozen=True, slots=True)
class Network:
    """A `.nn` file elaborated for one binding of its free sizes.

    `functions` holds `init` (header seed -> one result per parameter and state), `infer` (inputs
    -> outputs), `loss` (inputs and targets -> losses, then metrics) and `objective` (like `loss`,
    with `training` true; losses, then `update.NAME` for every state it changes). Each takes just
    the inputs, targets, parameters, states and header values (seed, draws) it reads.
    `states` are what `state` declares: running statistics, a carried state. `doubled` are the
    types of inputs, targets and outputs for a batch twice as large, where that is known already.
    """

    name: str
    source: str
    dtype: DType
    sizes: tuple[tuple[str, int], ...]
    inputs: tuple[tuple[str, TensorType], ...]
    targets: tuple[tuple[str, TensorType], ...]
    outputs: tuple[tuple[str, TensorType], ...]
    losses: tuple[str, ...]
    metrics: tuple[str, ...]
    parameters: tuple[tuple[str, TensorType], ...]
    functions: tuple[Function, ...]
    train: TrainSpec | None = None
    parameter_spans: tuple[tuple[str, Span | None], ...] = ()
    states: tuple[tuple[str, TensorType], ...] = ()
    doubled: tuple[tuple[str, TensorType], ...] = ()

    def function(self, name: str) -> Function:
        for f in self.functions:
            if f.name == name:
                return f
        raise CompilerBug("NN0394", f"network '{self.name}' has no function '{name}'")


@dataclass(frozen=True, slots=True)
class EntryPoint:
    """An exported function. `suffix` is the binding's (`b64`; empty for `init`); `rows` is its
    batch size.

    `batched` names the arguments whose first dimension is the batch: the ones `fit` gathers row
    by row.
    """

    function: str
    suffix: str
    plan: Plan
    rows: int = 0
    batched: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Program:
    """Everything code generation needs: the state and the entry points of all bindings.

    `initial_rate` is written to the header by `init`. `arena_bytes` is the largest any entry
    point needs.
    """

    name: str
    dtype: DType
    state: StateLayout
    entries: tuple[EntryPoint, ...]
    initial_rate: float = 0.0
