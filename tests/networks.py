"""Small networks built by hand for tests of the passes, and how to run one function at every
level."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from nncompiler.ir.graph import Builder, Function, Value
from nncompiler.ir.interp_plan import run_plan
from nncompiler.ir.kernel import Plan
from nncompiler.ir.model import Network, StateLayout, lay_out
from nncompiler.ir.train import OptimizerSpec, TrainSpec
from nncompiler.ir.types import F32, I32, Array, DType, TensorType
from nncompiler.passes.training.optimizer import slot_types

MOMENTUM = OptimizerSpec("momentum", (("lr", 0.1), ("momentum", 0.9)))
MATMUL = "i j k: i k, k j -> i j"


def cross_entropy(b: Builder, z: Value, classes: Value) -> Value:
    """Mean softmax cross-entropy of logits `z` [n, c] and classes [n]."""
    n, c = z.shape
    m = b.emit("stop_gradient", b.emit("reduce_max", z, axes=(1,), keepdims=True))
    total = b.emit("reduce_sum", b.emit("exp", b.emit("sub", z, m)), axes=(1,), keepdims=True)
    log_sum = b.emit("add", b.emit("log", total), m)
    hot = b.emit("one_hot", classes, depth=c, dtype=z.dtype.name)
    picked = b.emit("reduce_sum", b.emit("mul", hot, z), axes=(1,), keepdims=True)
    rows = b.emit("sub", log_sum, picked)
    return b.emit(
        "div", b.emit("reduce_sum", rows, axes=(0, 1), keepdims=False), b.const(float(n), z.dtype)
    )


def mlp(
    batch: int = 5,
    sizes: tuple[int, ...] = (7, 6, 4, 3),
    optimizer: OptimizerSpec = MOMENTUM,
    dtype: DType = F32,
    **settings: float,
) -> Network:
    """A multi-layer perceptron with ReLU and softmax cross-entropy, as elaboration would build
    it."""
    b = Builder("objective")
    x = b.param("input", "image", TensorType(dtype, (batch, sizes[0])))
    y = b.param("target", "digit", TensorType(I32, (batch,)))
    pairs = [
        (
            b.param("param", f"d{k}.W", TensorType(dtype, (m, n))),
            b.param("param", f"d{k}.b", TensorType(dtype, (n,))),
        )
        for k, (m, n) in enumerate(zip(sizes, sizes[1:], strict=False))
    ]
    h = x
    for k, (w, bias) in enumerate(pairs):
        h = b.emit("add", b.emit("contract", h, w, spec=MATMUL), bias)
        if k < len(pairs) - 1:
            h = b.emit("max", b.const(0.0, dtype), h)
    objective = b.finish([("loss", cross_entropy(b, h, y))])
    parameters = tuple((v.name, v.type) for pair in pairs for v in pair)
    return Network(
        "mlp", "", dtype, (("batch", batch),), (("image", x.type),), (("digit", y.type),), (),
        ("loss",), (), parameters, (objective,), TrainSpec(optimizer, **settings),
    )  # fmt: skip


def layout_of(function: Function, network: Network | None = None) -> StateLayout:
    """The state of a network, or one that holds just the parameters and slots of a function."""
    if network is not None:
        return lay_out(network.dtype, network.parameters, slot_types(network))
    kinds = {k: tuple((v.name, v.type) for v in function.params_of(k)) for k in ("param", "slot")}
    return lay_out(F32, kinds["param"], kinds["slot"])


def fill_state(layout: StateLayout, values: Mapping[str, Array]) -> np.ndarray:
    """State bytes with the given entries written."""
    state = np.zeros(layout.bytes, np.uint8)
    for e in layout.entries:
        if e.name in values:
            data = np.ascontiguousarray(values[e.name], e.type.dtype.numpy).tobytes()
            state[e.offset : e.offset + len(data)] = np.frombuffer(data, np.uint8)
    return state


def read_state(layout: StateLayout, state: np.ndarray, name: str) -> Array:
    e = layout.entry(name)
    data = state[e.offset : e.offset + e.type.nbytes].tobytes()
    return np.frombuffer(data, e.type.dtype.numpy).reshape(e.type.shape)


def run_planned(
    function: Function,
    plan: Plan,
    layout: StateLayout,
    values: Mapping[str, Array],
    order: str | None = None,
) -> dict[str, Array]:
    """The results of `plan` by the plan interpreter, under the names of the function's results."""
    state = fill_state(layout, values)
    arrays = {a.buffer: np.array(values[a.buffer]) for a in plan.arguments if a.role != "output"}
    for a in plan.arguments:
        if a.role == "output":
            b = plan.buffer(a.buffer)
            arrays[a.buffer] = np.zeros(b.type.shape, b.type.dtype.numpy)
    run_plan(plan, state, arrays, order)
    found = {}
    for name, value in function.results:
        if name.startswith("update."):
            found[name] = read_state(layout, state, name.removeprefix("update."))
        else:
            found[name] = arrays[name if name in arrays else f"{name}.out"].reshape(value.shape)
    return found
