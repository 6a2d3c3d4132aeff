"""Which elements of a function's values are used as indices, and what they index."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from nncompiler.ir.graph import Function, Node, Value
from nncompiler.ir.op import Part, lookup

#: By part of a value, the smallest extent that its elements index.
Extents = dict[Part, int]


def whole(shape: Iterable[int]) -> Part:
    """The part that is everything."""
    return tuple(range(n) for n in shape)


def is_part(part: Part, shape: tuple[int, ...]) -> bool:
    """Whether a tensor of `shape` has this part, and it is not empty."""
    return len(part) == len(shape) and all(
        r and r[0] >= 0 and r[-1] < n for r, n in zip(part, shape, strict=True)
    )


def index_bounds(
    function: Function, wanted: Mapping[Value, Extents] | None = None
) -> dict[Value, Extents]:
    """For every value of the function whose elements become indices, moved but not changed, also
    in the bodies of its nodes: where they are, and the extents that they index.

    `wanted` is the same for results of the function, from what reads them.
    """
    found: dict[Value, Extents] = {}

    def add(value: Value, part: Part, extent: int) -> None:
        if all(part):
            part = tuple(r if len(r) > 1 else range(r[0], r[0] + 1) for r in part)
            extents = found.setdefault(value, {})
            extents[part] = min(extent, extents.get(part, extent))

    for value, extents in (wanted or {}).items():
        for part, extent in extents.items():
            add(value, part, extent)
    for node in reversed(function.nodes):
        for k, extent in lookup(node.op).index_bounds(node):
            add(node.inputs[k], whole(node.inputs[k].shape), extent)
        for k, part, extent in _of_body(node, found) if node.body else _moved(node, found):
            add(node.inputs[k], part, extent)
    return found


def _moved(node: Node, found: Mapping[Value, Extents]) -> Iterator[tuple[int, Part, int]]:
    """Operand numbers and parts that become indices by way of the node's result."""
    for value in node.outputs:
        for part, extent in found.get(value, {}).items():
            for k in range(len(node.inputs)):
                if (origin := lookup(node.op).origin(node, k, part)) is not None:
                    yield k, origin, extent


def _of_body(node: Node, found: Mapping[Value, Extents]) -> Iterator[tuple[int, Part, int]]:
    """Operand numbers and parts that the body uses as indices. What a loop carries changes, so
    nothing is told of it, nor of what it gives."""
    assert node.body is not None
    axes: tuple[int, ...] = ()
    carried, wanted = range(0), {}
    if lookup(node.op).loops:
        axes, carries = node.ints("axes"), node.attr("carries")
        assert isinstance(carries, int)
        carried = range(len(axes), len(axes) + carries)
    else:
        given = (found.get(v, {}) for v in node.outputs)
        wanted = {v: e for (_, v), e in zip(node.body.results, given, strict=True) if e}
    inner = index_bounds(node.body, wanted)
    for k, (param, value) in enumerate(zip(node.body.params, node.inputs, strict=True)):
        if k in carried:
            continue
        for part, extent in inner.get(param.value, {}).items():
            if k < len(axes):
                steps = range(value.shape[axes[k]])
                part = (*part[: axes[k]], steps, *part[axes[k] :])
            yield k, part, extent


def joined(extents: Extents) -> list[tuple[Part, int]]:
    """The same by fewer parts: neighbours that index the same are one, and what is within a part
    that indexes no more is left out."""
    boxes = [
        (part, extent)
        for extent in sorted(set(extents.values()))
        for part in _neighbours([p for p, e in extents.items() if e == extent])
    ]
    return [
        (part, extent)
        for n, (part, extent) in enumerate(boxes)
        if not any(_within(part, other) for other, _ in boxes[:n])
    ]


def _neighbours(parts: list[Part]) -> list[Part]:
    """Parts that differ in one dimension, and there follow each other, put together."""
    for d in range(len(parts[0])):
        rows: dict[Part, list[range]] = {}
        for part in sorted(parts, key=lambda p: p[d].start):
            ranges = rows.setdefault((*part[:d], *part[d + 1 :]), [])
            r = part[d]
            if ranges and ranges[-1].step == r.step == 1 and r.start <= ranges[-1].stop:
                ranges[-1] = range(ranges[-1].start, max(ranges[-1].stop, r.stop))
            else:
                ranges.append(r)
        parts = [(*rest[:d], r, *rest[d:]) for rest, ranges in rows.items() for r in ranges]
    return parts


def _within(part: Part, other: Part) -> bool:
    return all(
        r.start in o and r[-1] in o and r.step % o.step == 0
        for r, o in zip(part, other, strict=True)
    )
