"""Our graphs evaluated by PyTorch: the operators in its terms, gradients by its own autograd.

    .peers/bin/python -m tests.torch_graphs FIRST COUNT OUT.npz

writes the results and gradients of the random graphs of those seeds, and which it cannot express.
`tests.fuzz_torch` runs this in PyTorch's environment, and compares.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from nncompiler.ir.graph import Function, Node, Value
from nncompiler.ir.ops.contract_spec import parse_spec
from nncompiler.ir.ops.scan import scan_parts
from nncompiler.ir.sampling import random_arguments
from tests.fuzz_torch import fingerprint, program, wanted

DTYPES = {
    "f32": torch.float32, "f64": torch.float64, "i32": torch.int64, "i64": torch.int64,
    "u8": torch.uint8, "bool": torch.bool,
}  # fmt: skip
Tensor = torch.Tensor


class InexpressibleError(Exception):
    """PyTorch has nothing of the kind."""


# Operators --------------------------------------------------------------------------------------


def _extremum(pick: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """All gradient to the first, where `torch.amax` would share it out."""

    def run(node: Node, x: Tensor) -> Tensor:
        last, shape = _last(node, x)
        index = pick(last.detach(), dim=-1, keepdim=True)
        return last.gather(-1, index).squeeze(-1).reshape(shape)

    return run


def _position(pick: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def run(node: Node, x: Tensor) -> Tensor:
        last, shape = _last(node, x)
        return pick(last, dim=-1).reshape(shape)

    return run


def _last(node: Node, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """The reduced axes as one at the end, and the shape of the result."""
    axes = node.ints("axes")
    kept = [d for d in range(x.dim()) if d not in axes]
    moved = x.permute(*kept, *axes)
    return moved.reshape(*(x.shape[d] for d in kept), -1), node.output.shape


def _sum(node: Node, x: Tensor) -> Tensor:
    axes = node.ints("axes")
    return x.sum(axes, keepdim=bool(node.attr("keepdims"))) if axes else x


def _contract(node: Node, *inputs: Tensor) -> Tensor:
    """`einsum`, after what is read at other places than an axis is laid out."""
    spec = parse_spec(str(node.attr("spec")))
    extents = spec.extents([tuple(x.shape) for x in inputs])
    letter = {axis: k for k, axis in enumerate(spec.axes)}
    arguments: list[Any] = []
    for x, dims in zip(inputs, spec.operands, strict=True):
        axes = list(dict.fromkeys(a for form in dims for a in form.axes))
        if any(form.single is None for form in dims) or len(axes) < len(dims):
            x = _laid_out(x, dims, axes, extents)
        else:
            axes = [form.axes[0] for form in dims]
        arguments += [x, [letter[a] for a in axes]]
    return torch.einsum(*arguments, [letter[a] for a in spec.output])


def _laid_out(x: Tensor, dims: Sequence[Any], axes: list[str], extents: dict[str, int]) -> Tensor:
    """An operand with one dimension per axis, 0 where its maps lead outside."""
    grids = dict(zip(axes, torch.meshgrid(
        *(torch.arange(extents[a]) for a in axes), indexing="ij"), strict=True))
    inside, places = torch.tensor(True), []
    for form, n in zip(dims, x.shape, strict=True):
        place = sum((k * grids[a] for a, k in form.terms), torch.tensor(form.const))
        inside = inside & (place >= 0) & (place < n)
        places.append(place.clamp(0, n - 1))
    return torch.where(inside, x[tuple(places)], torch.zeros((), dtype=x.dtype))


def _slice(node: Node, x: Tensor) -> Tensor:
    amounts = zip(node.ints("start"), node.ints("stop"), node.ints("step"), strict=True)
    return x[tuple(slice(*amount) for amount in amounts)]


def _pad(node: Node, x: Tensor) -> Tensor:
    if any(name == "interior" for name, _ in node.attrs):
        raise InexpressibleError("pad between neighbours")
    pairs = zip(node.ints("low"), node.ints("high"), strict=True)
    amounts = [n for pair in reversed(list(pairs)) for n in pair]
    return F.pad(x, amounts, value=float(node.attr("value")))  # type: ignore[arg-type]


def _gather(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    axis = int(node.attr("axis"))  # type: ignore[call-overload]
    places = indices.clamp(0, x.shape[axis] - 1)
    return x.index_select(axis, places.flatten()).reshape(node.output.shape)


def _one_hot(node: Node, indices: Tensor) -> Tensor:
    places = torch.arange(node.output.shape[-1])
    return (indices[..., None] == places).to(DTYPES[str(node.attr("dtype"))])


def _window(node: Node, x: Tensor) -> Tensor:
    names = ("axes", "size", "stride", "dilation")
    for axis, size, stride, dilation in zip(*(node.ints(n) for n in names), strict=True):
        reach = dilation * (size - 1) + 1
        if x.shape[axis] < reach:
            raise InexpressibleError("no window fits")
        x = x.unfold(axis, reach, stride)[..., ::dilation]
    return x


def _constant(node: Node) -> Tensor:
    return torch.tensor(node.attr("value"), dtype=DTYPES[str(node.attr("dtype"))])


def _iota(node: Node) -> Tensor:
    shape = node.output.shape
    found = torch.arange(node.output.type.size).reshape(shape)
    return found.to(DTYPES[node.output.dtype.name])


def _floats_only(node: Node, a: Tensor, b: Tensor) -> Tensor:
    if not a.is_floating_point():
        raise InexpressibleError("division of integers")
    return a / b


OPERATORS: dict[str, Callable[..., Any]] = {
    "constant": _constant,
    "iota": _iota,
    "contract": _contract,
    "reduce_sum": _sum,
    "reduce_max": _extremum(torch.argmax),
    "reduce_min": _extremum(torch.argmin),
    "argmax": _position(torch.argmax),
    "argmin": _position(torch.argmin),
    "slice": _slice,
    "pad": _pad,
    "gather": _gather,
    "one_hot": _one_hot,
    "window": _window,
    "div": _floats_only,
    "broadcast": lambda node, x: x.broadcast_to(node.output.shape),
    "reshape": lambda node, x: x.reshape(node.output.shape),
    "transpose": lambda node, x: x.permute(node.ints("perm")),
    "concat": lambda node, *x: torch.cat(x, int(node.attr("axis"))),
    "cast": lambda node, x: x.to(DTYPES[str(node.attr("dtype"))]),
    "where": lambda node, c, a, b: torch.where(c, a, b),
    # Ties give the gradient to the first operand, where PyTorch halves it.
    "max": lambda node, a, b: torch.where(a >= b, a, b),
    "min": lambda node, a, b: torch.where(a <= b, a, b),
    "stop_gradient": lambda node, x: x.detach(),
    **{
        name: lambda node, *x, f=f: f(*x)
        for name, f in {
            "add": torch.add, "sub": torch.sub, "mul": torch.mul, "pow": torch.pow,
            "eq": torch.eq, "ne": torch.ne, "lt": torch.lt, "le": torch.le, "gt": torch.gt,
            "ge": torch.ge, "and": torch.logical_and, "or": torch.logical_or,
            "not": torch.logical_not, "abs": torch.abs, "cos": torch.cos, "erf": torch.erf,
            "exp": torch.exp, "floor": torch.floor, "log": torch.log, "neg": torch.neg,
            "rsqrt": torch.rsqrt, "sigmoid": torch.sigmoid, "sign": torch.sign, "sin": torch.sin,
            "sqrt": torch.sqrt, "tanh": torch.tanh,
        }.items()
    },
}  # fmt: skip


def _scan(node: Node, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    s = scan_parts(node)
    x, c = len(s.axes), len(s.axes) + s.carries
    sequences, carries, captured = inputs[:x], inputs[x:c], inputs[c:]
    steps: list[list[Tensor]] = [[] for _ in range(s.extent)]
    for t in reversed(range(s.extent)) if s.reverse else range(s.extent):
        now = [v.select(axis, t) for v, axis in zip(sequences, s.axes, strict=True)]
        known = dict(zip(s.params, [*now, *carries, *captured], strict=True))
        found = evaluate(s.body, known)
        carries, steps[t] = found[: s.carries], found[s.carries :]
    stacks = [torch.stack([step[k] for step in steps], a) for k, a in enumerate(s.out_axes)]
    return (*carries, *stacks)


# Graphs -----------------------------------------------------------------------------------------


def evaluate(function: Function, known: dict[Value, Tensor]) -> list[Tensor]:
    """The results of a function; only what they need is computed."""
    for node in _needed(function):
        inputs = [known[v] for v in node.inputs]
        if node.op == "scan":
            outputs = _scan(node, inputs)
        elif node.op in OPERATORS:
            outputs = (OPERATORS[node.op](node, *inputs),)
        else:
            raise InexpressibleError(node.op)
        known.update(zip(node.outputs, outputs, strict=True))
    return [known[v] for _, v in function.results]


def _needed(function: Function) -> list[Node]:
    needed, found = {v for _, v in function.results}, []
    for node in reversed(function.nodes):
        if needed.intersection(node.outputs):
            needed.update(node.inputs)
            found.append(node)
    return found[::-1]


def results(function: Function, values: dict[str, Any]) -> dict[str, Any]:
    """Every result, and `grad.NAME` for each float parameter."""
    leaves = {v.name for v in wanted(function)}
    known = {}
    for p in function.params:
        tensor = torch.from_numpy(np.asarray(values[p.value.name]))
        tensor = tensor.long() if tensor.dtype == torch.int32 else tensor
        known[p.value] = tensor.requires_grad_(p.value.name in leaves)
    found = dict(zip((n for n, _ in function.results), evaluate(function, known), strict=True))
    loss = found["loss"]
    if loss.requires_grad:
        loss.backward()
    gradients = {
        f"grad.{p.name}": torch.zeros(p.shape) if known[p].grad is None else known[p].grad
        for p in wanted(function)
    }
    return {n: x.detach().numpy() for n, x in {**found, **gradients}.items()}


def main(first: int, count: int, path: str) -> None:
    torch.set_num_threads(1)
    arrays: dict[str, Any] = {}
    skipped: dict[int, str] = {}
    for seed in range(first, first + count):
        f = program(seed)
        try:
            found = results(f, random_arguments(f, seed))
        except InexpressibleError as error:
            skipped[seed] = str(error)
            continue
        arrays.update({f"{seed} {name}": array for name, array in found.items()})
    arrays["skipped"] = np.array([f"{seed}: {why}" for seed, why in skipped.items()], dtype=str)
    arrays["fingerprint"] = np.array(fingerprint(first, count))
    np.savez(path, **arrays)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
