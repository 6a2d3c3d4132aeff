"""The graph interpreter: every node by its operator's NumPy reference; the compiler's oracle.

`run(f, arguments, F64)` evaluates an f32 graph with every f32 in it made f64 (types, casts and
constants): the reference that rounding errors are measured against.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from nncompiler.errors import CompilerBug, UserError
from nncompiler.ir.graph import Attr, Function, Node, Param, Value
from nncompiler.ir.op import lookup
from nncompiler.ir.types import F32, Array, DType, TensorType
from nncompiler.record import replace


def run(
    function: Function, arguments: Mapping[str, Array], dtype: DType | None = None
) -> dict[str, Array]:
    """The results by name. `UserError` NN0330 where an argument is missing or does not fit."""
    if dtype is not None:
        function = retype(function, dtype)
    values = [_argument(function, p, arguments) for p in function.params]
    results = evaluate(function, values)
    return {
        name: np.array(value) for (name, _), value in zip(function.results, results, strict=True)
    }


def _argument(function: Function, param: Param, arguments: Mapping[str, Array]) -> Array:
    name, type = param.value.name, param.value.type
    if name not in arguments:
        raise UserError("NN0330", f"'@{function.name}' needs the {param.kind} '%{name}': {type}")
    array = np.asarray(arguments[name])
    if array.shape != type.shape:
        found = f"{array.dtype}{list(array.shape)}"
        raise UserError("NN0330", f"expected '%{name}' of type {type}, but found {found}")
    return array.astype(type.dtype.numpy, copy=False)


def evaluate(function: Function, arguments: Sequence[Array]) -> tuple[Array, ...]:
    """The results for arguments in the order of the parameters."""
    values: dict[Value, Array] = {
        p.value: a for p, a in zip(function.params, arguments, strict=True)
    }
    for node in function.nodes:
        evaluate_node(node, values)
    return tuple(values[v] for _, v in function.results)


def evaluate_node(node: Node, values: dict[Value, Array]) -> None:
    """Put what a node makes of `values` beside them."""
    with np.errstate(all="ignore"):
        found = lookup(node.op).reference(node, *(values[v] for v in node.inputs))
    outputs = found if isinstance(found, tuple) else (found,)
    _check(node, outputs)
    values.update(zip(node.outputs, map(np.asarray, outputs), strict=True))


def _check(node: Node, outputs: tuple[Array, ...]) -> None:
    """A reference that disagrees with the shape rule is a bug of the operator."""
    if len(outputs) != len(node.outputs):
        raise CompilerBug("NN0395", f"the reference of '{node.op}' gave {len(outputs)} results")
    for value, array in zip(node.outputs, outputs, strict=True):
        if np.shape(array) != value.shape or np.asarray(array).dtype != value.dtype.numpy:
            shape = ",".join(map(str, np.shape(array)))
            found = f"{np.asarray(array).dtype}[{shape}]"
            raise CompilerBug(
                "NN0395", f"the reference of '{node.op}' gave {found} for {value}: {value.type}"
            )


def retype(function: Function, dtype: DType, old: DType = F32) -> Function:
    """`function` with every element type `old` replaced, in types, attributes and bodies.

    Literals keep the value they have in `old`.
    """

    def type_(t: TensorType) -> TensorType:
        return t.with_dtype(dtype) if t.dtype == old else t

    def value_(v: Value) -> Value:
        return Value(v.name, type_(v.type))

    def attr_(v: Attr, rounds: bool) -> Attr:
        # the code has the number rounded to its type, so that number is the one to compute with
        if isinstance(v, float) and rounds and old.is_float:
            with np.errstate(over="ignore"):
                return float(old.numpy.type(v))
        return dtype.name if v == old.name else v

    def node_(n: Node) -> Node:
        rounds = any(v.type.dtype == old for v in n.outputs)
        attrs = tuple((k, attr_(v, rounds)) for k, v in n.attrs)
        body = None if n.body is None else retype(n.body, dtype, old)
        inputs, outputs = tuple(map(value_, n.inputs)), tuple(map(value_, n.outputs))
        return replace(n, inputs=inputs, outputs=outputs, attrs=attrs, body=body)

    return Function(
        function.name,
        tuple(Param(p.kind, value_(p.value)) for p in function.params),
        tuple(map(node_, function.nodes)),
        tuple((name, value_(v)) for name, v in function.results),
    )
