"""What is wrong with the meaning of a file: golden diagnostics, codes documented, no traceback."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from nncompiler.errors import Limitation, NNError, UserError
from nncompiler.ir.verify import verify
from nncompiler.lang.elaborate import elaborate
from nncompiler.lang.elaborate.builtins import BUILTINS
from nncompiler.lang.elaborate.scope import stdlib_index
from nncompiler.lang.parse import parse

ROOT = Path(__file__).parents[2]
BAD = sorted((ROOT / "tests/filetests/lang/semantic").glob("*.nn"))
GOOD = [p.read_text() for p in sorted((ROOT / "models").glob("*.nn"))]
GOOD += re.findall(r"```nn[^\n]*\n(.*?)```", (ROOT / "docs/language.md").read_text(), re.DOTALL)
SEEDS = [*(GOOD * 5), *(p.read_text() for p in BAD if p.stem != "blow_up")]
MUTATIONS = 500
EXPRESSIONS = 500


def build(text: str, name: str):
    """Elaborate `text` with the sizes that its first line may give."""
    given = re.match(r"# sizes: (\w+)=(-?\d+)\n", text)
    return elaborate(parse(text, name), sizes={given[1]: int(given[2])} if given else {})


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_diagnostic(path, golden, monkeypatch):
    """A mistake gives the expected text."""
    monkeypatch.chdir(path.parent)  # imports are looked for beside the file
    with pytest.raises(NNError) as caught:
        build(path.read_text(), path.name)
    golden(path.with_suffix(".expected"), caught.value.render() + "\n")
    assert isinstance(caught.value, (UserError, Limitation))
    assert caught.value.span is not None


def codes_of(paths) -> set[str]:
    """The codes in the first lines of expected texts."""
    return {re.search(r" (NN\d{4}): ", p.with_suffix(".expected").read_text())[1] for p in paths}


def test_every_code_is_reached_and_documented():
    """Each code of elaboration has a golden test and a line in the reference, and no others do."""
    text = "".join(p.read_text() for p in (ROOT / "nncompiler/lang/elaborate").glob("*.py"))
    raised = set(re.findall(r'"(NN0[12]\d\d)"', text))
    internal = {"NN0149", "NN0221"}
    assert raised - internal == codes_of(BAD)
    documented = set(re.findall(r"\*\*(NN0[12]\d\d)\*\*", (ROOT / "docs/errors.md").read_text()))
    assert documented == raised


KINDS = (r"[a-z_]\w*", r"\d+|-\d+", r"[-+*/@<>=|]+", r"(?s:.*)")
NUMBERS = ["0", "-1", "1", "3", "1e38", "99999999999", "2147483647", "0.5", "true", "batch"]
WORDS = ["dense", "x", "training", "batch", "size", "sum", "prelu", "relu", "mlp", "argmax",
         "stack", "mse", "cross_entropy", "zeros", "normal", "i32", "u8", "bool", "f32"]


def mutate(text: str, rng: random.Random) -> str:
    """`text` with a few tokens exchanged for others of their kind, or taken out or doubled."""
    tokens = re.findall(r"[a-z_A-Z]\w*|[\d.]+|\s+|[-+*/@<>=|]+|.", text)
    other = re.findall(r"[a-z_A-Z]\w*|[\d.]+|[-+*/@<>=|]+|.", rng.choice(SEEDS))
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(tokens))
        kind = next(k for k in KINDS if re.fullmatch(k, tokens[at], re.IGNORECASE))
        alike = [w for w in [*other, *WORDS, *NUMBERS] if re.fullmatch(kind, w, re.IGNORECASE)]
        match rng.randrange(8):
            case 0:
                del tokens[at]
            case 1:
                tokens.insert(at, tokens[at])
            case 2:
                tokens[at] = rng.choice(other)
            case 3 if kind == KINDS[1]:
                tokens[at] = rng.choice(NUMBERS)
            case _ if alike and not tokens[at].isspace():
                tokens[at] = rng.choice(alike)
        if not tokens:
            break
    return "".join(tokens)


def test_mutated_files_give_errors_only():
    """Whatever is done to a file, it elaborates or is refused with a code and a place."""
    rng = random.Random(0)
    passed = 0
    for k in range(MUTATIONS):
        text = mutate(rng.choice(SEEDS), rng)
        try:
            build(text, f"mutation{k}.nn")
            passed += 1
        except (UserError, Limitation) as e:
            assert e.code < "NN03" and e.code != "NN0149", text
    assert 0 < passed < MUTATIONS


LEAVES = ["x", "k", "u", "flag", "s", "0", "1", "2", "3", "-1", "0.5", "true", "1e30", "pi", "[0]",
          "[x, x]", "[2, 3]", "[1, 0]", "[]", "dense(2)", "relu", "zeros()", "2147483647", "x[0]",
          "10 ** 9", "training", "size(x, 1)"]
OPERATORS = ["+", "-", "*", "/", "@", "**", "==", "<", "and", "or", "|>"]


def expression(rng: random.Random, depth: int) -> str:
    """A random expression, most of them wrong."""
    if depth == 0 or rng.random() < 0.2:
        return rng.choice(LEAVES)
    match rng.randrange(6):
        case 0:
            left, right = (expression(rng, depth - 1) for _ in range(2))
            return f"({left} {rng.choice(OPERATORS[:-1])} {right})"
        case 1:
            items = [rng.choice(["0", "-1", ":", "1:", "::-1", "...", ":2", "5", "::0", "2:1"])
                     for _ in range(rng.randint(1, 3))]
            return f"{expression(rng, depth - 1)}[{', '.join(items)}]"
        case 2:
            return f"{rng.choice(['-', 'not '])}({expression(rng, depth - 1)})"
    function = rng.choice([*BUILTINS.values(), *stdlib_index()])
    name = function if isinstance(function, str) else function.name
    arguments = [expression(rng, depth - 1) for _ in range(rng.choice([0, 1, 1, 1, 2, 2, 3]))]
    if rng.random() < 0.3:
        arguments.append(f"axis = {rng.choice(['0', '1', '-1', '5', '[0, 1]', 'x'])}")
    return f"{name}({', '.join(arguments)})"


def test_random_expressions_give_errors_only():
    """A random expression is refused with a code of the language, or its graph verifies."""
    rng = random.Random(1)
    passed = 0
    for _ in range(EXPRESSIONS):
        text = (f"model m {{ input x : f32[2, 3] input k : i32[2] input u : u8[2, 3]\n"
                f"input flag : bool[3] input s : f32[]\noutput y = {expression(rng, 3)}\n"
                "output a = x output b = k output c = u output d = flag output e = s }")
        try:
            net = build(text, "random.nn")
        except (UserError, Limitation) as e:
            assert e.code < "NN03" and e.code != "NN0149", text
            continue
        passed += 1
        assert not verify(net.function("infer")), text
    assert 0 < passed < EXPRESSIONS
