"""Text of kernels: printer and parser.

    kernel k0: %1, %2    // mlp.nn:5:8
      for i < 64, j < 512 {
        acc = sum k < 784 { x[i,k] * dense1.W[k,j] }
        best, at = argmax k < 10 {
          t = x[i,k]
          t, k
        }
        %2[i,j] = max(acc + dense1.b[j], 0.0)
      }
      schedule contract: vector j, register i, tile 8x48, order j i | k, parallel j

``barrier`` stands before a kernel that all workers must reach before it runs. ``ordered for``
keeps its order; ``sum k < 3 from 0.5`` starts a reduction from another value.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from nncompiler.ir.body import statements
from nncompiler.ir.combine import COMBINES
from nncompiler.ir.kernel import Axis, Fold, For, Kernel, Let, Schedule, Stmt, Store
from nncompiler.ir.scalar import Affine, Const, Expr
from nncompiler.ir.text.expr import (
    Scope,
    affine_text,
    expr_text,
    parse_expr,
    parse_form,
    parse_place,
    place_text,
)  # fmt: skip
from nncompiler.ir.text.scan import (
    INDEXED,
    LOCAL,
    RESERVED,
    WORD,
    Lines,
    Scanner,
    name_text,
    spans_text,
)  # fmt: skip
from nncompiler.record import replace

_NAME = r"(?:%[\w.']+|[A-Za-z_][\w.']*)"
_BINDING = rf"{_NAME}(?:\s*,\s*{_NAME})*\s*=(?!=)"
_NEXT_AXIS = r"[ \t]*(?:\|[ \t]*)?(?=[%A-Za-z_])"
_ITEM = r"vector|register|tile|order|pack|unroll|parallel|parts|alternate|backwards"
_INLINE = 88

# --- printer ------------------------------------------------------------------------------------


def kernel_lines(lines: Lines, depth: int, kernel: Kernel) -> None:
    if kernel.barrier:
        lines.add(depth, "barrier")
    nodes = ", ".join(f"%{n}" for n in kernel.nodes)
    head = f"kernel {name_text(kernel.name)}" + (f": {nodes}" if nodes else "")
    lines.add(depth, head + spans_text(kernel.spans), kernel)
    for s in kernel.body:
        _statement(lines, depth + 1, s)
    if kernel.schedule != Schedule():
        lines.add(depth + 1, schedule_text(kernel))


def _statement(lines: Lines, depth: int, s: Stmt) -> None:
    match s:
        case Let(name, value):
            lines.add(depth, f"{name_text(name)} = {expr_text(value)}", s)
        case Store(buffer, index, value):
            lines.add(depth, f"{place_text(buffer, index)} = {expr_text(value)}", s)
        case For(axes, body, ordered, within):
            head = f"{'ordered ' if ordered else ''}for {_axes(axes)}{_bounds(within)} {{"
            lines.add(depth, head, s)
            for inner in body:
                _statement(lines, depth + 1, inner)
            lines.add(depth, "}")
        case Fold(names, combine, axes, values, body, init, within):
            start = f" from {_values(init)}" if init is not None else ""
            names_text = ", ".join(map(name_text, names))
            head = f"{names_text} = {combine} {_axes(axes)}{start}{_bounds(within)} {{"
            inline = f"{head} {_values(values)} }}"
            if not body and len(inline) <= _INLINE:
                lines.add(depth, inline, s)
                return
            lines.add(depth, head, s)
            for inner in body:
                _statement(lines, depth + 1, inner)
            lines.add(depth + 1, _values(values))
            lines.add(depth, "}")


def _axes(axes: Sequence[Axis]) -> str:
    return ", ".join(f"{name_text(a.name)} < {a.extent}" for a in axes)


def _bounds(within: Sequence[Affine]) -> str:
    return f" within {', '.join(f'{affine_text(f)} >= 0' for f in within)}" if within else ""


def _values(values: Sequence[Expr]) -> str:
    return ", ".join(map(expr_text, values))


def schedule_text(kernel: Kernel) -> str:
    s = kernel.schedule
    reduced = {a.name for f in statements(kernel.body) if isinstance(f, Fold) for a in f.axes}
    items = []
    if s.vector:
        items.append(f"vector {_names(s.vector)}")
    if s.register is not None:
        items.append(f"register {name_text(s.register)}")
    if s.tile is not None:
        items.append(f"tile {s.tile[0]}x{s.tile[1]}")
    if s.order:
        outer = next((k for k, a in enumerate(s.order) if a in reduced), len(s.order))
        inner = f" | {_names(s.order[outer:])}" if 0 < outer < len(s.order) else ""
        items.append(f"order {_names(s.order[:outer] if inner else s.order)}{inner}")
    if s.pack:
        items.append(f"pack {s.pack}")
    if s.unroll > 1:
        items.append(f"unroll {s.unroll}")
    if s.parallel:
        items.append(f"parallel {_names(s.parallel)}")
    if s.parts:
        items.append(f"parts {s.parts}")
    if s.alternate is not None:
        items.append(f"alternate {name_text(s.alternate)}")
    if s.backwards is not None:
        items.append(f"backwards {name_text(s.backwards)}")
    return f"schedule {s.strategy}" + (f": {', '.join(items)}" if items else "")


def _names(names: Sequence[str]) -> str:
    return " ".join(map(name_text, names))


# --- parser ------------------------------------------------------------------------------------


def parse_kernel(scan: Scanner, scope: Scope, barrier: bool = False) -> Kernel:
    """A kernel, behind the word ``kernel``."""
    name = scan.name("the kernel's name")
    nodes = []
    if scan.accept(":"):
        nodes.append(scan.value_name())
        while scan.accept(","):
            nodes.append(scan.value_name())
    spans = scan.spans()
    scope = scope.inner()
    body = []
    while not scan.at("barrier", "kernel", "loop", "schedule", "}"):
        body.append(parse_statement(scan, scope))
    schedule = _schedule(scan) if scan.accept("schedule") else Schedule()
    return Kernel(name, tuple(body), schedule, tuple(nodes), spans, barrier)


def parse_statement(scan: Scanner, scope: Scope) -> Stmt:
    """The next statement; binds its names in `scope`."""
    if scan.at("for", "ordered"):
        return _for(scan, scope)
    if scan.peek(_BINDING):
        return _binding(scan, scope)
    if not scan.peek(INDEXED):
        scan.fail_expected("a statement ('for', 'name = ...' or 'buffer[...] = ...')")
    buffer, index = parse_place(scan, scope)
    scan.expect("=")
    return Store(buffer, index, parse_expr(scan, scope))


def _for(scan: Scanner, scope: Scope) -> For:
    ordered = scan.accept("ordered")
    scan.expect("for")
    scope = scope.inner()
    axes = _parse_axes(scan, scope)
    within = _forms(scan, scope) if scan.accept("within") else ()
    scan.expect("{")
    scan.deeper()
    body = []
    while not scan.at("}"):
        body.append(parse_statement(scan, scope))
    scan.expect("}")
    scan.depth -= 1
    return For(axes, tuple(body), ordered, within)


def _parse_axes(scan: Scanner, scope: Scope) -> tuple[Axis, ...]:
    axes: list[Axis] = []
    while not axes or scan.accept(","):
        name = _local(scan, "an axis")
        scan.expect("<", " and the extent of the axis")
        axes.append(Axis(name, scan.integer("the extent of the axis")))
        scope.axes.add(name)
    return tuple(axes)


def _local(scan: Scanner, what: str) -> str:
    found = scan.need(LOCAL, what)
    if not found[1] and found[2] in RESERVED:
        message = f"'{found[2]}' is reserved; write '%{found[2]}' to use it as a name"
        scan.fail("NN0302", message, found.start())
    return found[1] or found[2]


def _binding(scan: Scanner, scope: Scope) -> Let | Fold:
    names = [_local(scan, "a name")]
    while scan.accept(","):
        names.append(_local(scan, "a name"))
    scan.expect("=")
    word = scan.peek(WORD)
    if word and word[0] in COMBINES and not scan.peek(r"\w+\s*\("):
        return _fold(scan, scope, tuple(names))
    if len(names) != 1:
        scan.fail_expected(f"a reduction ({', '.join(COMBINES)}) that gives {len(names)} values")
    value = parse_expr(scan, scope)
    scope.locals[names[0]] = value.dtype
    return Let(names[0], value)


def _fold(scan: Scanner, scope: Scope, names: tuple[str, ...]) -> Fold:
    word = scan.need(WORD, "a reduction")
    inner = scope.inner()
    axes = _parse_axes(scan, inner)
    init = _literals(scan) if scan.accept("from") else None
    within = _forms(scan, inner) if scan.accept("within") else ()
    scan.expect("{")
    scan.deeper()
    body = []
    while _statement_next(scan):
        body.append(parse_statement(scan, inner))
    values = [parse_expr(scan, inner)]
    while scan.accept(","):
        values.append(parse_expr(scan, inner))
    scan.expect("}")
    scan.depth -= 1
    if len(values) != len(names) or len(names) != COMBINES[word[0]].width:
        width = COMBINES[word[0]].width
        scan.fail(
            "NN0308",
            f"'{word[0]}' combines {width} value{'s' * (width != 1)}, "
            f"but {len(values)} are given and {len(names)} named",
            word.start(),
        )
    scope.locals.update(zip(names, (v.dtype for v in values), strict=True))
    return Fold(names, word[0], axes, tuple(values), tuple(body), init, within)


def _forms(scan: Scanner, scope: Scope) -> tuple[Affine, ...]:
    """``k-m >= 0, …``"""
    found: list[Affine] = []
    while not found or scan.accept(","):
        found.append(parse_form(scan, scope))
        scan.expect(">=")
        scan.expect("0")
    return tuple(found)


def _literals(scan: Scanner) -> tuple[Const, ...]:
    found: list[Const] = []
    while not found or scan.accept(","):
        found.append(scan.literal() or scan.fail_expected("a literal"))
    return tuple(found)


def _statement_next(scan: Scanner) -> bool:
    """In a reduction: is a statement next, or the values to combine?"""
    if scan.at("for", "ordered") or scan.peek(_BINDING):
        return True
    found = scan.peek(INDEXED)
    if not found:
        return False
    text, depth = scan.source.text, 0
    for k in range(found.end(), len(text)):
        depth += (text[k] == "[") - (text[k] == "]")
        if not depth:
            return re.compile(r"\s*=(?!=)").match(text, k + 1) is not None
    return False


def _schedule(scan: Scanner) -> Schedule:
    schedule = Schedule(scan.need(WORD, "a strategy")[0])
    if not scan.accept(":"):
        return schedule
    seen: list[str] = []
    while not seen or scan.accept(","):
        word = scan.need(_ITEM, "a schedule item")
        if word[0] in seen:
            scan.fail("NN0304", f"'{word[0]}' is given twice", word.start())
        seen.append(word[0])
        schedule = _item(scan, schedule, word[0])
    return schedule


def _item(scan: Scanner, schedule: Schedule, item: str) -> Schedule:
    match item:
        case "tile":
            found = scan.need(r"(\d{1,6})x(\d{1,6})", "a tile such as 8x48")
            return replace(schedule, tile=(int(found[1]), int(found[2])))
        case "register":
            return replace(schedule, register=_local(scan, "an axis"))
        case "vector":
            return replace(schedule, vector=_axis_names(scan))
        case "order":
            return replace(schedule, order=_axis_names(scan))
        case "parallel":
            return replace(schedule, parallel=_axis_names(scan))
        case "parts":
            found = scan.need(r"\d{1,6}", "a number of parts")
            return replace(schedule, parts=int(found[0]))
        case "alternate":
            return replace(schedule, alternate=_local(scan, "a counter"))
        case "backwards":
            return replace(schedule, backwards=_local(scan, "an axis"))
        case "unroll":
            found = scan.need(r"\d{1,3}", "a number of steps")
            return replace(schedule, unroll=int(found[0]))
        case _:
            found = scan.need(r"\d{1,6}", "a number of columns")
            return replace(schedule, pack=int(found[0]))


def _axis_names(scan: Scanner) -> tuple[str, ...]:
    found = [_local(scan, "an axis")]
    while more := re.compile(_NEXT_AXIS).match(scan.source.text, scan.pos):
        scan.pos = more.end()
        found.append(_local(scan, "an axis"))
    return tuple(found)
