"""The text of graphs and plans: what is printed reads back, and no text brings a parser down."""

from __future__ import annotations

import math
import random
import re
from pathlib import Path

import numpy as np
import pytest

from nncompiler.errors import Span, UserError
from nncompiler.ir.graph import Builder, Function, Node, Value
from nncompiler.ir.op import REGISTRY, lookup
from nncompiler.ir.scalar import F32, Const, const
from nncompiler.ir.text import (
    parse_function,
    parse_functions,
    parse_plan,
    parse_plans,
    print_function,
    print_plan,
)
from nncompiler.ir.text.scan import Scanner, Source, literal_text
from nncompiler.ir.types import BOOL, DTYPES, TensorType
from nncompiler.ir.verify import verify
from nncompiler.ir.verify_plan import verify_plan
from tests.text_cases import RandomPlan, random_graph

FILES = sorted((Path(__file__).parent / "filetests").rglob("*.nn[ip]*"))
GRAPH = """\
graph @train_step {
  input %x: f32[64,784]
  target %y: i32[64]
  param %block[0].W: f32[784,512]
  %0: f32[64,512] = contract %x, %block[0].W {i j k: i k, k j -> i j}    // mlp.nn:5:8
  %2: f32[64,512] = max 0.0, %0
  %t: f32[] = add 3, 1e-05
  %7: f32[64] = reduce_sum %2 {axes=[1], keepdims=false}
  %8: f32[64], %9': f64[] = fused %2, %7 {    // dir/a b.nn:6:8
    operand %a: f32[64]
    %q: f32[64] = add %a, inff64
    %p: f32[64] = fused %q @inner {
      operand %q: f32[64]
      %k: f32[] = constant {dtype="f32", value=1.5}
      yield %q, %k
    }
    yield %q, other=%a
  }
  %end: bool[] = nothing {a=true, b="x } \\"y\\"", c=[], d=[1,-2], e=-0.5, f=inf, g=nan, h=-3}
  return loss=%t, update.block[0].W=%9'
}
"""
PLAN = """\
plan @mlp.train_step: arena 1024 B, bound 1000 B, state 640 B {
  arguments x input, y target, loss output
  check y < 10
  buffer x: f32[64,78] argument
  buffer z: f32[64,10] arena @0 strides {10,1} live k0..k6
  buffer y: i32[64] argument
  buffer loss: f32[] argument
  buffer block[0].W: f32[3] constant 0x0000000011111111aaaaaaaa
  buffer %2: f32[3] view of block[0].W @4
  buffer %for: f32[64,10] arena @0 live k7..k8 in place of z
  kernel k3: %1, %x.y[0]    // mlp.nn:4:3, a, b.nn:5:6
    for i < 64 {
      m = max j < 10 { z[i,j] }
      s = sum j < 10 { exp(z[i,j] - m) }
      b, at = argmax j < 10 from 0.0, 3 {
        %2[0] = z[i,j]
        t = z[i,2*j+1] if index(j+1) < 10 else 0.0
        t, j
      }
      loss[] = loss[] + (m + log(s) - z[i,y[i]]) / 64.0
      ordered for %max < 10 {
        z[i,%max] = (exp(z[i,%max-1] - m) / s - f32(%max == y[i])) / 64.0 - -s - neg(1.0)
        u = 1.0 - (z[i,0] if i > 1 and not (i > 3 or true) else nan) - (2.0 - s)
      }
    }
    schedule loops: vector i, pack 32
  loop t < 3 reverse {
    kernel k4
      for i < 3, j < 2, k < 4 {
        block[0].W[t] = bitcast(3u32, f32) + f32(index(i+t, i64)) * -(m2[] + 1.0)
        block[0].W[(i + 1)] = %2[-i+2]
        c = sum r < 2 { 1.0 }
      }
      schedule contract: vector j, register i, tile 8x48, order j i | r, pack 96
  }
}
""".replace("* -(m2[] + 1.0)", "* -(loss[] + 1.0)")


def test_graph_text_is_a_fixed_point():
    """A text in canonical form is printed as it was read, with spans and every attribute."""
    function = parse_function(GRAPH)
    assert print_function(function) == GRAPH
    assert function.nodes[0].span == Span("mlp.nn", 5, 8)
    assert function.nodes[-2].span == Span("dir/a b.nn", 6, 8)
    assert dict(function.nodes[-1].attrs)["b"] == 'x } "y"'
    assert dict(function.nodes[-1].attrs)["d"] == (1, -2)


def test_plan_text_is_a_fixed_point():
    """A plan in canonical form is printed as it was read, and reads back equal."""
    plan = parse_plan(PLAN)
    assert print_plan(plan) == PLAN
    assert parse_plan(print_plan(plan)) == plan
    kernel = plan.steps[0]
    assert kernel.spans == (Span("mlp.nn", 4, 3), Span("a, b.nn", 5, 6))
    assert plan.steps[1].body[0].schedule.order == ("j", "i", "r")


def test_several_functions_comments_and_layout():
    """Functions follow each other; comments and line breaks between tokens do not matter."""
    text = GRAPH + "// a remark\n" + GRAPH.replace("@train_step", "@infer")
    assert [f.name for f in parse_functions(text)] == ["train_step", "infer"]
    loose = PLAN.replace(" {\n", "\n// remark\n{ // more\n").replace(", ", " ,\n  ")
    loose = loose.replace("4:3 ,\n  a ,\n  b.nn:5:6", "4:3, a, b.nn:5:6")
    assert parse_plan(loose) == parse_plan(PLAN)


def test_equal_literals_are_one_node():
    """A literal becomes one constant, before its first user, under a name nobody else has."""
    text = """graph @f {
      input %c0: f32[2]
      %1: f32[2] = add %c0, 0.5
      %c1: f32[2] = mul 0.5, %1
      %2: f32[2] = add %c1, 0.5f64
      return y=%2
    }"""
    function = parse_function(text)
    assert [n.op for n in function.nodes] == ["constant", "add", "mul", "constant", "add"]
    names = [v.name for n in function.nodes for v in n.outputs]
    assert len(set(names)) == 5 and "c0" not in names
    assert dict(function.nodes[0].attrs) == {"dtype": "f32", "value": 0.5}


def test_a_constant_that_is_a_result_is_printed():
    """It has no user to be printed at."""
    b = Builder("f")
    half = b.const(0.5, F32)
    text = print_function(b.finish([("y", half), ("z", b.emit("neg", half))]))
    assert '= constant {dtype="f32", value=0.5}' in text
    assert print_function(parse_function(text)) == text


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
def test_literals(dtype):
    """Every literal reads back as the same value of the same type, the shortest way."""
    values = [0, 1]
    if dtype.is_float:
        values += [-0.0, 0.1, 1e-45, 1e30, 16777216.0, math.pi, math.inf, -math.inf, math.nan]
        values += list(np.random.default_rng(1).standard_normal(50) * 1e-7)
    elif dtype != BOOL:
        info = np.iinfo(dtype.numpy)
        values += [int(info.min), int(info.max)]
    for value in values:
        want = const(value, dtype)
        text = literal_text(want.value, dtype)
        scan = Scanner(Source("t", text))
        assert scan.literal() == want and scan.pos == len(text), text
    assert literal_text(0.1, F32) == literal_text(float(np.float32(0.1)), F32) == "0.1"


def test_every_operator_round_trips():
    """Each operator's own samples: printed, read and printed again, still well-formed."""
    lookup("add")
    for name, operator in REGISTRY.items():
        for number, sample in enumerate(operator.samples()):
            b = Builder(f"{name}{number}")
            inputs = [b.param("input", f"x{k}", t) for k, t in enumerate(sample.inputs)]
            results = b.emit_many(name, inputs, dict(sample.attrs))
            function = b.finish((f"y{k}", v) for k, v in enumerate(results))
            text = print_function(function)
            again = parse_function(text)
            assert again == function, text
            assert verify(again) == []


@pytest.mark.parametrize("seed", range(40))
def test_random_graphs_round_trip(seed):
    """print(parse(print(f))) == print(f), on graphs with regions and literals."""
    function = random_graph(random.Random(seed))
    assert verify(function) == []
    text = print_function(function)
    again = parse_function(text)
    assert print_function(again) == text
    assert verify(again) == []


@pytest.mark.parametrize("seed", range(100))
def test_random_plans_round_trip(seed):
    """parse(print(plan)) == plan, for every form there is; the verifier reads them unharmed."""
    plan = RandomPlan(seed).plan()
    text = print_plan(plan)
    again = parse_plan(text)
    assert again == plan, text
    assert print_plan(again) == text
    verify_plan(plan)


JUNK = [*"{}[]()%@,=<-\n\0é\"", "9" * 30, "//", "f32[", "1e999", "inf", "if", "else", "for"]
JUNK += ["fused", "0x1", "index(", "not ", "..k", "from", "live", "²", "٣", "constant {", "k0..k"]


def mutated(text, rng):
    for _ in range(rng.randrange(1, 4)):
        a = rng.randrange(len(text) + 1)
        b = min(len(text), a + rng.randrange(0, 12))
        match rng.randrange(4):
            case 0:
                text = text[:a] + text[b:]
            case 1:
                text = text[:a] + rng.choice(JUNK) + text[a:]
            case 2:
                text = text[:a] + text[a:b] * 2 + text[b:]
            case _:
                c = rng.randrange(len(text) + 1)
                text = text[:a] + text[c : c + rng.randrange(0, 30)] + text[b:]
    return text


@pytest.mark.parametrize("seed", range(10))
def test_mutated_texts_give_only_user_errors(seed):
    """Whatever the text, the parser gives what the verifier can read, or says why not."""
    rng = random.Random(seed)
    accepted = 0
    for _ in range(30):
        for text, parse, examine in (
            (GRAPH, parse_functions, verify),
            (PLAN, parse_plans, verify_plan),
        ):
            try:
                for found in parse(mutated(text, rng)):
                    examine(found)
                    accepted += 1
            except UserError as error:
                assert error.code.startswith("NN03") and error.message
    assert accepted


@pytest.mark.parametrize(
    "text",
    [
        "plan @p: arena 0 B, bound 0 B, state 0 B { kernel k a = " + "(" * 5000,
        "plan @p: arena 0 B, bound 0 B, state 0 B { kernel k a = " + "-" * 5000 + "1.0 }",
        "plan @p: arena 0 B, bound 0 B, state 0 B { kernel k a = " + "not " * 5000 + "true }",
        "plan @p: arena 0 B, bound 0 B, state 0 B {" + "loop t < 2 {" * 5000,
        "plan @p: arena 0 B, bound 0 B, state 0 B { kernel k" + " for i < 2 {" * 5000,
        "graph @f {" + "\n %0: f32[] = fused {\n" * 5000,
        "plan @p: arena 0 B, bound 0 B, state 0 B { buffer x: f32[1] argument kernel k a = "
        + "x[" * 5000,
    ],
    ids=["parentheses", "minus", "not", "loops", "for", "regions", "indices"],
)
def test_deep_nesting_is_refused(text):
    """No recursion error: a limit on depth, said so."""
    with pytest.raises(UserError, match="NN0305"):
        (parse_functions if text.startswith("graph") else parse_plans)(text)


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("graph @f {\n  input x: f32[2]\n}", (2, 9), "expected '%' and a value's name"),
        ("graph @f {\n  %0: f32[2] = add %y\n}", (2, 20), "no value is called '%y' here"),
        ("graph @f {\n  inputs %x: f32[2]\n}", (2, 3), "expected a node"),
        ("graph @f {\n  return y\n}", (2, 10), "expected a result 'name=%value'"),
        ("graf @f {}", (1, 1), "expected 'graph' @NAME {, but found 'graf'"),
        ("graph @f {\n  return\n", (3, 1), "but found the end of the text"),
        ("graph @f { return }\ngraph @f { return }", (2, 7), "'@f' is defined twice"),
    ],
)
def test_errors_say_where(text, place, message):
    """Errors carry file, line and column, and quote the line."""
    with pytest.raises(UserError) as caught:
        parse_functions(text, "a.nnir")
    span = caught.value.span
    assert (span.file, span.line, span.column) == ("a.nnir", *place)
    assert message in caught.value.message


def test_long_texts_are_read_quickly():
    """Five thousand nodes in less than a second or two: no part of the parser is quadratic."""
    lines = [f"  %{k}: f32[2] = add %{k - 1}, 0.5    // m.nn:{k}:3" for k in range(1, 5_000)]
    text = "graph @f {\n  input %0: f32[2]\n" + "\n".join(lines) + "\n  return y=%4999\n}\n"
    assert print_function(parse_function(text)) == text


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_texts_in_the_tree_round_trip(path):
    """Every graph and plan under filetests that parses is printed and read back the same."""
    for section in re.split(r"(?m)^// (?:-----|EXPECT).*$", path.read_text(encoding="utf-8")):
        try:
            if path.suffix == ".nnplan":
                for plan in parse_plans(section):
                    assert parse_plan(print_plan(plan)) == plan
            else:
                for function in parse_functions(section):
                    text = print_function(function)
                    assert print_function(parse_function(text)) == text
        except UserError:
            assert "// error:" in section


def test_const_with_the_wrong_python_type_prints():
    """The printer shows malformed graphs too; it never judges."""
    node = Node("contract", (), (Value("0", TensorType(F32, ())),), (("axes", (1,)),))
    text = print_function(Function("f", (), (node, Node("what", (), ())), (("y", node.output),)))
    assert "contract {axes=[1]}" in text and "what" in text
    assert "0.5" in literal_text(Const(0.5, F32).value, F32)
