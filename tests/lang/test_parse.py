"""The parser: trees for what is right, golden diagnostics for what is wrong, no traceback ever."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from nncompiler.errors import UserError
from nncompiler.lang import syntax as s
from nncompiler.lang import tables, tables_data
from nncompiler.lang.parse import parse

TESTS = Path(__file__).parents[1]
BAD = sorted((TESTS / "filetests/lang/syntax").glob("*.nn"))
GOOD = sorted((TESTS / "filetests/lang/good").glob("*.nn"))
ZOO = sorted([*(TESTS.parent / "models").glob("*.nn"),
              *(TESTS.parent / "nncompiler/stdlib").glob("*.nn")])


def error_of(text: str | bytes, name: str = "a.nn") -> UserError:
    """The error that parsing `text` gives."""
    with pytest.raises(UserError) as caught:
        parse(text, name)
    return caught.value


def expression(text: str) -> s.Expr:
    """The tree of one expression."""
    item = parse(f"fn f(x) {{ return {text} }}", "a.nn").items[0]
    assert isinstance(item, s.Fn)
    returned = item.body[0]
    assert isinstance(returned, s.Return)
    return returned.values[0]


def statements(text: str) -> list[str]:
    """The kinds of the statements of a layer body."""
    item = parse(f"layer l(n)(x) {{\n{text}\n}}", "a.nn").items[0]
    assert isinstance(item, s.Layer)
    return [type(statement).__name__ for statement in item.body]


def shape(node: s.Node) -> str:
    """An expression with every operation in brackets."""
    match node:
        case s.Name(text=text):
            return text
        case s.Int(value=value) | s.Float(value=value):
            return str(value)
        case s.Unary(op=op, operand=operand):
            return f"({op} {shape(operand)})"
        case s.Binary(op=op, left=left, right=right):
            return f"({shape(left)} {op} {shape(right)})"
        case s.Call(callee=callee, arguments=arguments):
            return f"{shape(callee)}({', '.join(shape(a.value) for a in arguments)})"
        case s.Index(value=value):
            return f"{shape(value)}[]"
        case s.Named(value=value, name=name):
            return f"<{shape(value)} as {name.text}>"
        case s.Pipe(value=value, stages=stages):
            return f"({' |> '.join(map(shape, [value, *stages]))})"
    raise AssertionError(node)


# Right ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_tree_of_good_file(path, golden):
    """A file with every form gives the expected tree."""
    golden(path.with_suffix(".tree"), s.dump(parse(path.read_bytes(), path.name)))


def test_zoo_parses():
    """Every model and every file of the standard library parses."""
    for path in ZOO:
        assert parse(path.read_bytes(), path.name).items


@pytest.mark.parametrize("text, tree", [
    ("a + b * c - d", "((a + (b * c)) - d)"),
    ("a @ b / c", "((a @ b) / c)"),
    ("-a ** 2", "(- (a ** 2))"),
    ("a ** -b ** c", "(a ** (- (b ** c)))"),
    ("- - a", "(- (- a))"),
    ("not a == b or c and d", "((not (a == b)) or (c and d))"),
    ("a + b |> f |> g(3)", "((a + b) |> f |> g(3))"),
    ("(a |> f) + a", "((a |> f) + a)"),
    ("dense(3)(a)[0] + 1", "(dense(3)(a)[] + 1)"),
    ("a |> dense(3) as head |> f", "(a |> <dense(3) as head> |> f)"),
    ("a + dense(3)(b) as head", "(a + <dense(3)(b) as head>)"),
    ("a\n    |> f\n    |> g", "(a |> f |> g)"),
    ("a\n- b", "(a - b)"),
    ("softmax(a, axis = 1)", "softmax(a, 1)"),
    ("1_000 + .5 + 2. + 1e-3", "(((1000 + 0.5) + 2.0) + 0.001)"),
])
def test_precedence(text, tree):
    """Operators bind as the language reference says."""
    assert shape(expression(text)) == tree


@pytest.mark.parametrize("text, kinds", [
    ("a = x b = a return b", ["Assign", "Assign", "Return"]),
    ("return x\na, b = split(x, 2)", ["Return", "Assign"]),
    ("a = x\nif n > 1 { b = a } else if n { } else { }\nreturn a", ["Assign", "If", "Return"]),
    ("for i in 0..2*n { x = relu(x) }\nreturn x", ["For", "Return"]),
    ("a = x\naxis = 1\nover = 2\ncarry = 3\nreturn axis + over", [*["Assign"] * 4, "Return"]),
    ("h = scan z over (x) axis (-1) { yield z }\nreturn h", ["Assign", "Return"]),
])
def test_statement_boundaries(text, kinds):
    """A statement ends where the next token cannot continue it."""
    assert statements(text) == kinds


def test_equality_ignores_spans():
    """Layout and comments do not count for equality."""
    loose = parse("\nfn f(x) { # c\n return (x + 1)*2 }", "b")
    assert parse("fn f(x){return (x+1)*2}", "a") == loose
    assert parse("fn f(x){return x}", "a") != parse("fn f(x){return y}", "a")


def test_spans():
    """A node begins at its first character; names have spans of their own; errors can quote."""
    file = parse("fn f(x) {\n    return (x + 1) * abc\n}\n", "a.nn")
    product = file.items[0].body[0].values[0]
    assert str(product.span) == "a.nn:2:12" and product.span.width == 13
    assert product.left.span.width == 7
    line, carets = product.right.span.quote().splitlines()
    assert line.index("abc") == carets.index("^^^") and carets.count("^") == 3
    assert file.items[0].name.span.column == 4


def test_bom_crlf_and_tabs_are_white_space():
    """Byte order mark, Windows line ends and tabs change nothing."""
    plain = parse("fn f(x) {\n  # c\n  return x\n}\n", "a")
    assert parse(b"\xef\xbb\xbffn f(x) {\r\n\t# c\r\n\treturn x\r\n}\r\n", "a") == plain


def test_empty_file_has_no_items():
    """Nothing, and nothing but comments, are files."""
    assert parse("", "a").items == () and parse("# only this\n", "a").items == ()


def test_long_lists_and_pipes_are_flat():
    """Stages, statements and list items do not count as depth."""
    pipe = expression("x" + " |> f" * 2000)
    assert isinstance(pipe, s.Pipe) and len(pipe.stages) == 2000
    assert len(expression("[" + "1, " * 3000 + "]").items) == 3000
    item = parse("fn f(n, x) {" + "if n {} " + "else if n {} " * 2000 + "return x }", "a").items[0]
    assert len(item.body[0].branches) == 2001


def test_deepest_tree_can_be_walked_recursively():
    """The limits keep equality, hashing and printing well inside Python's stack."""
    for text in (
        "fn f(x) {" + "if x {" * 98 + "y = " + " + ".join(["x"] * 18) + "}" * 98 + "return x }",
        "fn f(x) { return " + "f(" * 98 + "x" + ")" * 98 + " }",
        "fn f(x) { return " + " + ".join(["x"] * 116) + " }",
    ):
        tree = parse(text, "a")
        assert tree == parse(text, "b") and hash(tree) and repr(tree) and s.dump(tree)


# Wrong ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_diagnostic(path, golden):
    """A plausible mistake gives the expected error."""
    golden(path.with_suffix(".expected"), error_of(path.read_bytes(), path.name).render() + "\n")


def test_every_code_has_a_golden_file():
    """Each code the front end can raise is reached by a file, where a small file can."""
    raised = set()
    modules = ("lex", "build", "build_expressions", "production", "placement", "diagnose", "parse")
    for module in modules:
        text = (TESTS.parent / f"nncompiler/lang/{module}.py").read_text()
        raised |= set(re.findall(r'"(NN00\d\d)"', text))
    shown = {code for path in BAD
             for code in re.findall(r"NN00\d\d", path.with_suffix(".expected").read_text())}
    assert raised - shown == {"NN0003", "NN0099"} and shown <= raised
    assert len(shown) >= 40


@pytest.mark.parametrize("text, code", [
    (b"#" * (1 << 20) + b"\n", "NN0003"),
    ("fn f(x) { return x" + " + x" * 60_000 + " }", "NN0003"),
    ("fn f(x) { return x" + " + x" * 10_000 + " }", "NN0015"),
    ("fn f(x) { return " + "-" * 10_000 + "x }", "NN0015"),
    ("fn f(x) { return " + "not " * 10_000 + "x }", "NN0015"),
    ("fn f(x) { return x" + " ** x" * 10_000 + " }", "NN0015"),
    ("fn f(x) { return x" + "(1)" * 10_000 + " }", "NN0015"),
    ("fn f(x) { return " + "(" * 300_000, "NN0010"),
    ("fn f(x) { return " + "[" * 300_000, "NN0010"),
    ("fn f(x) {" + "if x {" * 300, "NN0010"),
    ("fn f(x) { return " + "9" * 100_000 + " }", "NN0008"),
    ('import "' + "a" * 100_000 + '"', "NN0008"),
    ("fn f(x) { return \ud800 }", "NN0002"),
])
def test_limits(text, code):
    """What is too large is a clear error, without overflow or hang."""
    assert error_of(text).code == code


def test_earliest_mistake_is_reported():
    """A mistake in grammar comes before a later one in spelling."""
    assert error_of("fn f(x) {\n y == x\n return x ^ 2\n}").span.line == 2
    assert error_of("fn f(x) {\n y = x ^ 2\n return == 2\n}").span.line == 2


def test_fuzzed_files_give_user_errors_only():
    """Mutations of real files parse or give a UserError that renders."""
    rng = random.Random(20)
    seeds = [path.read_bytes().decode("utf-8", "replace") for path in GOOD * 9 + BAD]
    pieces = [*sorted(tables.tables().literals), *"\"'#\n\t;%^&|!$é\x00", "0.", "1e", "x"]
    failed = 0
    for _ in range(600):
        text = rng.choice(seeds)[:3000]
        for _ in range(rng.randint(1, 4)):
            at, length = rng.randint(0, len(text)), rng.choice([0, 0, 1, 3, 40])
            text = text[:at] + rng.choice([rng.choice(pieces), ""]) + text[at + length :]
        try:
            parse(text, "fuzz.nn")
        except UserError as e:
            failed += 1
            assert e.render().startswith("fuzz.nn:") and e.span is not None
    assert 100 < failed < 600


# Tables -----------------------------------------------------------------------------------------


def test_stored_tables_are_those_of_the_grammar():
    """`python -m nncompiler.lang.tables` has been run since the grammar changed."""
    assert tables.build() == tables_data.TEXT and tables.grammar_digest() == tables_data.DIGEST


def test_edited_grammar_is_rebuilt(monkeypatch):
    """Stored tables of another grammar are not used."""
    monkeypatch.setattr(tables_data, "DIGEST", "0")
    monkeypatch.setattr(tables_data, "TEXT", "nonsense")
    assert tables.tables.__wrapped__() == tables.tables()


def test_lark_is_not_imported_to_parse():
    """Reading stored tables needs no lark."""
    code = ("import sys; from nncompiler.lang.parse import parse; parse('', 'a');"
            "sys.exit('lark' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], cwd=TESTS.parent).returncode == 0
