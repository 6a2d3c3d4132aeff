"""Graph text: printer and parser.

    graph @train_step {
      input %x: f32[64,784]
      %0: f32[64,512] = contract %x, %W {i j k: i k, k j -> i j}    // mlp.nn:5:8
      %1: f32[64,512], %2: f32[64] = fused %0 {
        operand %a: f32[64,512]
        %r: f32[64,512] = max 0.0, %a
        %s: f32[64] = reduce_sum %r {axes=[1], keepdims=false}
        yield %r, %s
      }
      return loss=%2
    }

Scalar constants are written as literals where they are used; equal literals become one node before
the first user. Parsing does not judge: types are taken as written and operators need not exist;
that is the verifier's part.
"""

from __future__ import annotations

import json
import re

from nncompiler.errors import NNError, Source, UserError, nearest
from nncompiler.ir.graph import PARAM_KINDS, Attr, Function, Node, Param, Value
from nncompiler.ir.op import Operator, lookup
from nncompiler.ir.scalar import Const
from nncompiler.ir.text.scan import WORD, Lines, Scanner, literal_text, spans_text
from nncompiler.ir.types import DTYPES, TensorType, scalar

BODY_NAME = "body"
_REGION = r"\{[ \t]*(?://[^\n]*)?(?=\n)"
_KEY = r"[A-Za-z_]\w*(?==)"
_RESULT = r"([\w.'\[\]]+)[ \t]*="
_STRING = r'"(?:[^"\\\n]|\\.)*"'
_FLOAT = r"-?(?:inf|nan)|-?\d+(?:\.\d*(?:[eE][+-]?\d+)?|[eE][+-]?\d+)"
_LINE_END = r"[ \t]*(?://|\n|$)"
_RAW = r"[^{}\n]*"

# --- printer ------------------------------------------------------------------------------------


def print_function(function: Function) -> str:
    """The text of a function; `parse_functions` reads it back."""
    return str(function_lines(function))


def function_lines(function: Function) -> Lines:
    """The text, each line with the parameter, node or function (its results) that it shows."""
    lines = Lines()
    lines.add(0, f"graph @{function.name} {{")
    _body(lines, 1, function, "return")
    lines.add(0, "}")
    return lines


def _body(lines: Lines, depth: int, function: Function, ending: str) -> None:
    returned = {value for _, value in function.results}
    literals: dict[str, str] = {}  # by the name of the value
    for param in function.params:
        lines.add(depth, f"{param.kind} {param.value}: {param.value.type}", param)
    for node in function.nodes:
        text = _literal(node)
        if text is not None and node.outputs[0] not in returned:
            literals[node.outputs[0].name] = text
        else:
            _node(lines, depth, node, literals)
    results = ", ".join(_result(n, v, ending) for n, v in function.results)
    lines.add(depth, f"{ending} {results}".rstrip(), function)


def _result(name: str, value: Value, ending: str) -> str:
    return str(value) if ending == "yield" and name == value.name else f"{name}={value}"


def _literal(node: Node) -> str | None:
    """How a scalar constant is written at its uses; None for every other node."""
    if node.op != "constant" or node.inputs or node.body:
        return None
    attrs = dict(node.attrs)
    dtype = DTYPES.get(str(attrs.get("dtype")))
    value = attrs.get("value")
    if dtype is None:
        return None
    if set(attrs) != {"value", "dtype"} or not isinstance(value, (int, float)):
        return None
    if len(node.outputs) != 1 or node.output.type != scalar(dtype):
        return None
    return literal_text(value, dtype)


def _node(lines: Lines, depth: int, node: Node, literals: dict[str, str]) -> None:
    outputs = ", ".join([f"%{v.name}: {v.type}" for v in node.outputs])
    text = f"{outputs} = {node.op}"
    if node.inputs:
        text += " " + ", ".join([literals.get(v.name) or f"%{v.name}" for v in node.inputs])
    text += _attributes(node)
    span = spans_text([node.span]) if node.span else ""
    if node.body is None:
        lines.add(depth, text + span, node)
        return
    name = "" if node.body.name == BODY_NAME else f" @{node.body.name}"
    lines.add(depth, f"{text}{name} {{{span}", node)
    _body(lines, depth + 1, node.body, "yield")
    lines.add(depth, "}")


def _attributes(node: Node) -> str:
    operator = _operator(node.op)
    try:
        special = operator.attribute_text(node) if operator else None
    except NNError:  # a malformed node is shown as it is, for the verifier to speak
        special = None
    if special is not None:
        return f" {{{special}}}"
    pairs = ", ".join(f"{k}={attribute_text(v)}" for k, v in node.attrs)
    return f" {{{pairs}}}" if pairs else ""


def attribute_text(value: Attr) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return json.dumps(value)
        case tuple():
            return f"[{','.join(map(str, value))}]"
        case _:
            return repr(value)


def _operator(name: str) -> Operator | None:
    try:
        return lookup(name)
    except UserError:
        return None


# --- parser ------------------------------------------------------------------------------------


def parse_functions(text: str, file: str = "<graph>") -> tuple[Function, ...]:
    """Every function of a text; `UserError` with its place when it is not graph text."""
    scan = Scanner(Source(file, text))
    taken = set(re.findall(r"%([\w.']+(?:\[\d+\][\w.']*)*)", text))
    functions: list[Function] = []
    scan.skip()
    while scan.pos < len(text):
        scan.expect("graph", " @NAME {")
        start = scan.here()
        name = scan.function_name()
        if any(f.name == name for f in functions):
            scan.fail("NN0304", f"function '@{name}' is defined twice", start)
        functions.append(_Parser(scan, taken).function(name))
        scan.skip()
    return tuple(functions)


def parse_function(text: str, file: str = "<graph>") -> Function:
    """The only function of a text."""
    functions = parse_functions(text, file)
    if len(functions) != 1:
        raise UserError("NN0302", f"expected one graph, but found {len(functions)} in '{file}'")
    return functions[0]


class _Parser:
    """One scope of names: a function, or the body of a node."""

    def __init__(self, scan: Scanner, taken: set[str]) -> None:
        self.scan, self.taken = scan, taken
        self.values: dict[str, Value] = {}
        self.params: list[Param] = []
        self.nodes: list[Node] = []
        self.constants: dict[Const, Value] = {}

    def function(self, name: str, ending: str = "return") -> Function:
        scan = self.scan
        scan.expect("{")
        scan.deeper()
        while scan.at(*PARAM_KINDS):
            kind = scan.need(WORD, "a parameter")[0]
            self.params.append(Param(kind, self._definition()))
        while not scan.at(ending):
            self._node()
        scan.expect(ending)
        results = self._results(ending == "yield")
        scan.expect("}")
        scan.depth -= 1
        return Function(name, tuple(self.params), tuple(self.nodes), results)

    def _definition(self) -> Value:
        start, name, type = self._declared()
        return self._define(start, Value(name, type))

    def _declared(self) -> tuple[int, str, TensorType]:
        start = self.scan.here()
        name = self.scan.value_name()
        self.scan.expect(":", " and a type")
        return start, name, self.scan.type()

    def _define(self, start: int, value: Value) -> Value:
        if value.name in self.values:
            self.scan.fail("NN0304", f"value '{value}' is defined twice", start)
        return self.values.setdefault(value.name, value)

    def _node(self) -> None:
        scan = self.scan
        if not scan.at("%"):
            kinds = ", ".join(PARAM_KINDS)
            scan.fail_expected(f"a node ('%name: type = operator ...'), {kinds} or the results")
        declared = [self._declared()]
        while scan.accept(","):
            declared.append(self._declared())
        scan.expect("=")
        op = scan.need(WORD, "an operator")[0]
        inputs = self._operands()
        attrs = self._attributes(op)
        spans = scan.spans()
        body = None
        if scan.at("@") or scan.peek(_REGION):
            name = scan.function_name() if scan.at("@") else BODY_NAME
            found = scan.need(_REGION, "'{' and a new line")
            spans = Scanner(scan.source, found.start() + 1).spans()
            scan.pos = found.start()
            body = _Parser(scan, self.taken).function(name, "yield")
        outputs = tuple(self._define(start, Value(name, type)) for start, name, type in declared)
        self.nodes.append(Node(op, inputs, outputs, attrs, body, spans[0] if spans else None))

    def _operands(self) -> tuple[Value, ...]:
        scan = self.scan
        first = self._operand()
        if first is None:
            return ()
        found = [first]
        while scan.accept(","):
            value = self._operand()
            found.append(value or scan.fail_expected("a value or a literal"))
        return tuple(found)

    def _operand(self) -> Value | None:
        """A value or a literal, if one is next on this line."""
        scan = self.scan
        if self._line_ends():
            return None
        if scan.at("%"):
            return self._known()
        literal = scan.literal()
        return None if literal is None else self._constant(literal)

    def _line_ends(self) -> bool:
        return re.compile(_LINE_END).match(self.scan.source.text, self.scan.pos) is not None

    def _known(self) -> Value:
        scan = self.scan
        start = scan.here()
        name = scan.value_name()
        if name not in self.values:
            close = nearest(name, self.values)
            help = f"did you mean '%{close}'?" if close else None
            scan.fail("NN0303", f"no value is called '%{name}' here", start, help)
        return self.values[name]

    def _constant(self, literal: Const) -> Value:
        if literal not in self.constants:
            count = len(self.taken)
            while f"c{count}" in self.taken:
                count += 1
            self.taken.add(f"c{count}")
            value = Value(f"c{count}", scalar(literal.dtype))
            attrs: tuple[tuple[str, Attr], ...] = (
                ("dtype", literal.dtype.name), ("value", literal.value),
            )  # fmt: skip
            self.nodes.append(Node("constant", (), (value,), attrs))
            self.constants[literal] = value
        return self.constants[literal]

    # --- attributes ---

    def _attributes(self, op: str) -> tuple[tuple[str, Attr], ...]:
        scan = self.scan
        if self._line_ends() or not scan.at("{") or scan.peek(_REGION):
            return ()
        scan.expect("{")
        operator = _operator(op)
        start = scan.here()
        raw = scan.need(_RAW, "attributes")[0]
        special = self._special(operator, raw, start) if operator else None
        if special is not None:
            scan.expect("}")
            return tuple(sorted(special.items()))
        scan.pos = start
        found: dict[str, Attr] = {}
        while not found or scan.accept(","):
            key = scan.need(_KEY, "an attribute 'name=value'")
            if key[0] in found:
                scan.fail("NN0304", f"attribute '{key[0]}' is given twice", key.start())
            scan.expect("=")
            found[key[0]] = self._attribute()
        scan.expect("}")
        return tuple(sorted(found.items()))

    def _special(self, operator: Operator, raw: str, start: int) -> dict[str, Attr] | None:
        try:
            return operator.parse_attributes(raw)
        except UserError as error:
            self.scan.fail(error.code, error.message, start, error.help)

    def _attribute(self) -> Attr:
        scan = self.scan
        if scan.at("true", "false"):
            return scan.need(WORD, "true or false")[0] == "true"
        if found := scan.match(_STRING):
            try:
                return str(json.loads(found[0]))
            except ValueError:
                scan.fail("NN0302", "this text has a malformed escape", found.start())
        if scan.accept("["):
            items = []
            while not scan.at("]"):
                items.append(scan.integer())
                if not scan.accept(","):
                    break
            scan.expect("]")
            return tuple(items)
        if found := scan.match(_FLOAT):
            return float(found[0])
        return scan.integer("an attribute value (a number, true, false, \"text\" or [1,2])")

    # --- results ---

    def _results(self, region: bool) -> tuple[tuple[str, Value], ...]:
        scan = self.scan
        found: list[tuple[str, Value]] = []
        while not scan.at("}") and (not found or scan.accept(",")):
            if region and scan.at("%"):
                value = self._known()
                found.append((value.name, value))
            else:
                key = scan.need(_RESULT, "a result 'name=%value'")
                found.append((key[1], self._known()))
        return tuple(found)
