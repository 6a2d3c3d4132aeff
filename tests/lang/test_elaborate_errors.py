"""What is wrong with the meaning of a file: golden diagnostics, codes documented, no traceback."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from nncompiler.errors import Limitation, NNError, UserError
from nncompiler.lang.elaborate import elaborate
from nncompiler.lang.parse import parse

ROOT = Path(__file__).parents[2]
BAD = sorted((ROOT / "tests/filetests/lang/semantic").glob("*.nn"))
SEEDS = [p.read_text() for p in sorted([*(ROOT / "models").glob("*.nn"), *BAD])]
MUTATIONS = 500


def build(text: str, name: str):
    """Elaborate `text` with the sizes that its first line may give."""
    given = re.match(r"# sizes: (\w+)=(-?\d+)\n", text)
    return elaborate(parse(text, name), sizes={given[1]: int(given[2])} if given else {})


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_diagnostic(path, golden):
    """A mistake gives the expected text."""
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
    text = "".join(p.read_text() for p in (ROOT / "nncompiler/lang").glob("elaborate*.py"))
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
            assert not e.code.startswith("NN03"), text
    assert 0 < passed < MUTATIONS
