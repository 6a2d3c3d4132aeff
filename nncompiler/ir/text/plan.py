"""Plan text: printer and parser.

    plan @mlp.train_step: arena 196608 B, bound 196608 B, state 4286592 B {
      arguments x input, y target, loss output
      check y < 10
      buffer x: f32[64,784] argument
      buffer dense1.W: f32[784,512] state @64
      buffer %2: f32[64,512] arena @0 live k0..k6
      buffer %9: f32[64,512] arena @0 strides {1,64} live k7..k7 in place of %2
      buffer %10: f32[32768] view of %2
      buffer table: i32[2] constant 0x0100000002000000
      kernel k0: %2    // mlp.nn:5:8
        ...
      loop t < 28 reverse {
        kernel k1
          ...
      }
    }
"""

from __future__ import annotations

from collections.abc import Sequence

from nncompiler.errors import Source, UserError
from nncompiler.ir.kernel import SPACES, Argument, Buffer, Check, Loop, Plan, Step
from nncompiler.ir.text.expr import Scope
from nncompiler.ir.text.kernel import kernel_lines, parse_kernel
from nncompiler.ir.text.scan import WORD, Lines, Scanner, name_text

_HEX = r"0x([0-9a-fA-F]*)"
_LIVE = r"k(-?\d{1,9})\.\.k(-?\d{1,9})"
_ROLE = r"input|target|output"

# --- printer ------------------------------------------------------------------------------------


def print_plan(plan: Plan) -> str:
    """The text of a plan; `parse_plan` gives an equal plan back."""
    return str(plan_lines(plan))


def plan_lines(plan: Plan) -> Lines:
    """The text, each line with the part of the plan that it shows."""
    lines = Lines()
    sizes = f"arena {plan.arena_bytes} B, bound {plan.bound} B, state {plan.state_bytes} B"
    lines.add(0, f"plan @{plan.name}: {sizes} {{", plan)
    if plan.arguments:
        items = ", ".join(f"{name_text(a.buffer)} {a.role}" for a in plan.arguments)
        lines.add(1, f"arguments {items}", plan.arguments)
    for check in plan.checks:
        lines.add(1, f"check {name_text(check.buffer)}{_part(check.part)} < {check.extent}", check)
    for buffer in plan.buffers:
        lines.add(1, _buffer(buffer), buffer)
    _steps(lines, 1, plan.steps)
    lines.add(0, "}")
    return lines


def _part(part: Sequence[range]) -> str:
    """``[first:behind:step, ...]``; a step of 1 is left out, and so is all of it for the whole."""
    steps = (f":{r.step}" if r.step != 1 else "" for r in part)
    rows = ", ".join(f"{r.start}:{r.stop}{s}" for r, s in zip(part, steps, strict=True))
    return f"[{rows}]" if part else ""


def _buffer(b: Buffer) -> str:
    text = f"buffer {name_text(b.name)}: {b.type} {b.space}"
    if b.base is not None:
        text += f" of {name_text(b.base)}"
    if b.data is not None:
        text += f" 0x{b.data.hex()}"
    if b.offset is not None:
        text += f" @{b.offset}"
    if b.strides is not None:
        text += f" strides {{{','.join(map(str, b.strides))}}}"
    if b.live is not None:
        text += f" live k{b.live[0]}..k{b.live[1]}"
    if b.in_place_of is not None:
        text += f" in place of {name_text(b.in_place_of)}"
    return text


def _steps(lines: Lines, depth: int, steps: tuple[Step, ...]) -> None:
    for step in steps:
        match step:
            case Loop(counter, extent, body):
                order = " reverse" * step.reverse + " recompute" * step.recompute
                order += " parallel" * step.parallel
                if step.barrier:
                    lines.add(depth, "barrier")
                lines.add(depth, f"loop {name_text(counter)} < {extent}{order} {{", step)
                _steps(lines, depth + 1, body)
                lines.add(depth, "}")
            case _:
                kernel_lines(lines, depth, step)


# --- parser ------------------------------------------------------------------------------------


def parse_plans(text: str, file: str = "<plan>") -> tuple[Plan, ...]:
    """Every plan of a text; `UserError` with its place when it is not plan text."""
    scan = Scanner(Source(file, text))
    plans: list[Plan] = []
    scan.skip()
    while scan.pos < len(text):
        plans.append(_plan(scan))
        scan.skip()
    return tuple(plans)


def parse_plan(text: str, file: str = "<plan>") -> Plan:
    """The only plan of a text."""
    plans = parse_plans(text, file)
    if len(plans) != 1:
        raise UserError("NN0302", f"expected one plan, but found {len(plans)} in '{file}'")
    return plans[0]


def _plan(scan: Scanner) -> Plan:
    scan.expect("plan", " @NAME: arena ... {")
    name = scan.function_name()
    scan.expect(":")
    sizes = []
    for what in ("arena", "bound", "state"):
        scan.expect(what)
        sizes.append(scan.integer("a number of bytes"))
        scan.expect("B", " for bytes")
        if what != "state":
            scan.expect(",")
    arena, bound, state = sizes
    scan.expect("{")
    arguments = _arguments(scan)
    checks = []
    while scan.accept("check"):
        buffer = scan.name("a buffer")
        part = _parse_part(scan)
        scan.expect("<")
        checks.append(Check(buffer, scan.integer("an extent"), part))
    scope = Scope()
    buffers = []
    while scan.at("buffer"):
        buffers.append(_parse_buffer(scan, scope))
    steps = _parse_steps(scan, scope)
    scan.expect("}")
    return Plan(name, arguments, tuple(buffers), steps, arena, bound, state, tuple(checks))


def _parse_part(scan: Scanner) -> tuple[range, ...]:
    found: list[range] = []
    while scan.accept("," if found else "["):
        first = scan.integer("the first position")
        scan.expect(":")
        behind = scan.integer("the position behind the last")
        step = scan.integer("a step") if scan.accept(":") else 1
        if step < 1:
            scan.fail_expected("a step of 1 or more")
        found.append(range(first, behind, step))
    if found:
        scan.expect("]")
    return tuple(found)


def _arguments(scan: Scanner) -> tuple[Argument, ...]:
    found: list[Argument] = []
    if scan.accept("arguments"):
        while not found or scan.accept(","):
            buffer = scan.name("a buffer")
            role = scan.need(_ROLE, "a role (input, target or output)")
            found.append(Argument(buffer, role[0]))
    return tuple(found)


def _parse_buffer(scan: Scanner, scope: Scope) -> Buffer:
    scan.expect("buffer")
    start = scan.here()
    name = scan.name("the buffer's name")
    if name in scope.buffers:
        scan.fail("NN0304", f"buffer '{name}' is defined twice", start)
    scan.expect(":", " and a type")
    type = scan.type()
    scope.buffers[name] = type.dtype
    space = scan.need(WORD, f"where the buffer is ({', '.join(SPACES)})")
    if space[0] not in SPACES:
        message = f"expected one of {', '.join(SPACES)}, but found '{space[0]}'"
        scan.fail("NN0302", message, space.start())
    base = scan.name("a buffer") if scan.accept("of") else None
    data = scan.match(_HEX)
    if data and len(data[1]) % 2:
        scan.fail("NN0306", "expected two hexadecimal digits for each byte", data.start())
    offset = scan.integer("an offset") if scan.accept("@") else None
    strides = _strides(scan) if scan.accept("strides") else None
    live = None
    if scan.accept("live"):
        found = scan.need(_LIVE, "two steps such as k0..k6")
        live = (int(found[1]), int(found[2]))
    in_place_of = None
    if scan.accept("in"):
        scan.expect("place")
        scan.expect("of")
        in_place_of = scan.name("a buffer")
    return Buffer(
        name, type, space[0], offset, strides, live, base, in_place_of,
        bytes.fromhex(data[1]) if data else None,
    )  # fmt: skip


def _strides(scan: Scanner) -> tuple[int, ...]:
    scan.expect("{")
    found: list[int] = []
    while not scan.at("}") and (not found or scan.accept(",")):
        found.append(scan.integer("a stride"))
    scan.expect("}")
    return tuple(found)


def _parse_steps(scan: Scanner, scope: Scope) -> tuple[Step, ...]:
    steps: list[Step] = []
    while not scan.at("}"):
        if scan.accept("kernel"):
            steps.append(parse_kernel(scan, scope))
        elif scan.accept("barrier"):
            if scan.accept("loop"):
                steps.append(_loop(scan, scope, barrier=True))
            else:
                scan.expect("kernel", " or 'loop' behind 'barrier'")
                steps.append(parse_kernel(scan, scope, barrier=True))
        elif scan.accept("loop"):
            steps.append(_loop(scan, scope))
        else:
            scan.fail_expected("a step ('kernel', 'loop' or 'barrier') or '}'")
    return tuple(steps)


def _loop(scan: Scanner, scope: Scope, barrier: bool = False) -> Loop:
    counter = scan.name("the loop's counter")
    scan.expect("<")
    extent = scan.integer("the loop's extent")
    reverse, recompute = scan.accept("reverse"), scan.accept("recompute")
    parallel = scan.accept("parallel")
    scan.expect("{")
    scan.deeper()
    inner = scope.inner()
    inner.axes.add(counter)
    body = _parse_steps(scan, inner)
    scan.expect("}")
    scan.depth -= 1
    return Loop(counter, extent, body, reverse, recompute, parallel, barrier)
