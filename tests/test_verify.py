"""The verifiers: files with ``// error:`` on the bad lines, and what text cannot express."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nncompiler.errors import UserError
from nncompiler.ir.graph import Function, Node, Param, Value
from nncompiler.ir.kernel import Argument, Axis, Buffer, Fold, For, Kernel, Let, Plan, Store
from nncompiler.ir.scalar import F32, I32, Affine, Apply, Const, Iota, Load, Ref
from nncompiler.ir.text import function_lines, parse_functions, parse_plans, plan_lines
from nncompiler.ir.types import BOOL, TensorType, scalar
from nncompiler.ir.verify import annotate, check, render, verify
from nncompiler.ir.verify_plan import check_plan, verify_plan

FILES = Path(__file__).parent / "filetests" / "verify"
MARK = "// error: "


def sections():
    for path in sorted(FILES.iterdir()):
        for number, text in enumerate(path.read_text(encoding="utf-8").split("// -----\n")):
            name = text[text.index("@") + 1 :].split()[0].rstrip(":")
            yield pytest.param(path, text, id=f"{path.name}-{number}-{name}")


def expected(text):
    """(line, message) for every ``// error:`` behind a line."""
    found = []
    for line in text.splitlines():
        code, *messages = line.split(MARK)
        found += [(code.strip(), m.strip()) for m in messages]
    return found


def actual(path, text):
    """(line, message) for what the parser or else the verifier says."""
    try:
        parts = (parse_functions if path.suffix == ".nnir" else parse_plans)(text, path.name)
    except UserError as error:
        line = text.splitlines()[error.span.line - 1]
        return [(line.split(MARK)[0].strip(), error.message)]
    found = []
    for part in parts:
        if isinstance(part, Function):
            shown = render(function_lines(part), verify(part))
        else:
            shown = render(plan_lines(part), verify_plan(part))
        before = ""
        for line in shown.splitlines():
            if MARK in line:
                found.append((before, line.split(MARK)[1]))
            else:
                before = line.strip()
    return found


@pytest.mark.parametrize(("path", "text"), list(sections()))
def test_files(path, text):
    """Exactly the marked lines have problems, with the marked messages."""
    want, got = expected(text), actual(path, text)
    assert [g for g in got if not any(_fits(w, g) for w in want)] == []
    assert [w for w in want if not any(_fits(w, g) for g in got)] == []


def _fits(want, got):
    return want[0] == got[0] and want[1] in got[1]


X = Value("x", TensorType(F32, (2,)))
Y = Value("y", TensorType(F32, (2,)))


INPUT = Param("input", X)


def function(*nodes, params=(INPUT,), results=(("y", Y),)):
    return Function("f", tuple(params), tuple(nodes), tuple(results))


ADD = Node("add", (X, X), (Y,))


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (function(ADD, ADD), "value %y is defined twice"),
        (function(ADD, params=()), "value %x is not defined"),
        (function(Node("neg", (Y,), (Value("z", Y.type),)), ADD), "used before it is defined"),
        (function(replace(ADD, inputs=(X, replace(X, type=scalar(F32))))), "used as f32[]"),
        (function(ADD, params=(Param("weight", X),)), "no kind of parameter"),
        (function(replace(ADD, attrs=(("b", 1), ("a", 2)))), "sorted by name"),
        (function(results=(("x", X), ("x", X))), "given twice"),
        (function(ADD, params=(Param("input", Value("x y", X.type)),)), "'x y' is not a name"),
        (function(params=(Param("input", Value("q", TensorType(F32, (2.0,)))),)), "Python int"),
        (function(params=(Param("input", Value("q", TensorType(F32, (-1,)))),)), "at least 0"),
    ],
)
def test_graphs_that_text_cannot_express(broken, message):
    """Functions built by hand are held to the same rules."""
    assert any(message in d.message for d in verify(broken)), verify(broken)


def test_every_operator_rejects_junk_with_a_message():
    """No shape rule brings the verifier down, whatever operands and attributes it gets."""
    from nncompiler.ir.op import REGISTRY, lookup

    lookup("add")
    for name in REGISTRY:
        for attrs in ((), (("axes", (7, -1)), ("dtype", "x"), ("shape", (3,)), ("value", "z"))):
            for inputs in ((), (X,), (X, X, X)):
                assert verify(function(Node(name, inputs, (Y, Y), attrs)))


def test_check_raises_with_the_text():
    """`check` shows the function with the problem below its line; a sound one passes."""
    check(function(ADD))
    with pytest.raises(UserError, match="NN0320") as caught:
        check(function(replace(ADD, inputs=(X,))))
    lines = caught.value.message.splitlines()
    at = next(k for k, line in enumerate(lines) if "= add" in line)
    assert lines[at + 1].startswith("  // error: 'add' takes 2 operands")
    assert "// error" not in annotate(function(ADD))


def test_long_functions_are_cut():
    """Only the surroundings of the problem are shown of a long function."""
    values = [X, *(Value(f"v{k}", X.type) for k in range(200))]
    nodes = [Node("neg", (a,), (b,)) for a, b in zip(values, values[1:], strict=False)]
    nodes[100] = replace(nodes[100], op="nag")
    with pytest.raises(UserError) as caught:
        check(function(*nodes, results=(("y", values[-1]),)))
    assert caught.value.message.count("\n") < 10
    assert "no operator is called 'nag'" in caught.value.message


def plan(*body, **changes):
    buffers = (
        Buffer("x", TensorType(F32, (4,)), "argument"),
        Buffer("y", TensorType(F32, (4,)), "argument"),
    )
    arguments = (Argument("x", "input"), Argument("y", "output"))
    return replace(Plan("p", arguments, buffers, (Kernel("k0", body),)), **changes)


I = Affine.axis("i")  # noqa: E741
LOAD = Load("x", (I,), F32)
ONE = Const(1.0, F32)


def loop(*body, extent=4):
    return For((Axis("i", extent),), body)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        (Store("q", (I,), ONE), "no buffer is called 'q'"),
        (Store("y", (I,), Ref("t", F32)), "'t' is used before it is bound"),
        (Store("y", (I,), replace(LOAD, dtype=I32)), "'x' holds f32, not i32"),
        (Store("y", (Affine.axis("j"),), ONE), "no axis is called 'j' here"),
        (Store("y", (I,), Apply("add", (LOAD,), F32)), "no scalar primitive 'add' of 1"),
        (Store("y", (I,), Apply("lt", (LOAD, LOAD), F32)), "'lt' gives bool, not f32"),
        (Store("y", (I,), replace(LOAD, fill=ONE)), "a fill value without a guard"),
        (Store("y", (I,), Const(0.1, F32)), "0.1 is not a literal of type f32"),
        (Store("y", (I,), Const(1, F32)), "1 is not a literal of type f32"),
        (Let("t", Const(2**31, I32)), "is not a literal of type i32"),
        (Let("t", Const(1, BOOL)), "1 is not a literal of type bool"),
        (Let("t", Iota(I, F32)), "an index cannot be f32"),
        (Let("a b", ONE), "'a b' is not a name"),
        (Fold(("s",), "mean", (Axis("k", 2),), (ONE,)), "no reduction is called 'mean'"),
        (Fold(("s",), "sum", (Axis("k", 2),), (ONE, ONE)), "'sum' combines 1 value over axes"),
        (Fold(("s",), "sum", (Axis("k", -1),), (ONE,)), "extent of at least 0"),
        (
            Fold(("s",), "prod", (Axis("k", 2),), (ONE,), within=(I,)),
            "'prod' has no terms that may be left out",
        ),
        (For((Axis("k", 2),), (), True, (I,)), "no bounds of an ordered loop"),
        (For((), ()), "at least one axis"),
        (For((Axis("k", 2), Axis("k", 2)), ()), "'k' is already in use"),
    ],
)
def test_kernels_that_text_cannot_express(statement, message):
    """Kernels built by hand are held to the same rules; the message is below the statement."""
    broken = plan(loop(statement, Store("y", (I,), ONE)))
    assert [d.message for d in verify_plan(broken) if message in d.message]
    with pytest.raises(UserError, match=MARK):
        check_plan(broken)


def test_check_plan():
    """A sound plan passes, another is raised with its text."""
    check_plan(plan(loop(Store("y", (I,), LOAD))))
    with pytest.raises(UserError, match="NN0321") as caught:
        check_plan(plan(loop(Store("y", (I,), LOAD), extent=5)))
    assert "// error: index 0 of 'y' runs over 0..4" in caught.value.message


def test_unplaced_plans_are_sound():
    """Before the memory pass arena buffers have neither offset nor lifetime."""
    buffer = Buffer("t", TensorType(F32, (4,)), "arena")
    body = (loop(Store("t", (I,), LOAD)), loop(Store("y", (I,), Load("t", (I,), F32))))
    sound = plan(*body)
    assert verify_plan(replace(sound, buffers=(*sound.buffers, buffer))) == []
