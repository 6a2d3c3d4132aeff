"""Mutated texts through every reader: ``python -m tests.fuzz_texts --count 10000``.

A mutated `.nn` text is parsed and elaborated, a mutated `.nnir` text parsed, verified and put
through the passes, a mutated `.nnplan` text parsed and verified. Whatever the text, the answer is
a result that the verifier accepts, or a `UserError` or `Limitation`: a `CompilerBug`, any other
exception or warning, and anything that computes longer than `SECONDS` is a problem.
"""

from __future__ import annotations

import argparse
import random
import re
import resource
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from nncompiler import driver
from nncompiler.errors import CompilerBug, Limitation, Source, UserError
from nncompiler.ir.text import parse_functions, parse_plans, print_function, print_plan
from nncompiler.ir.verify import check, verify
from nncompiler.ir.verify_plan import check_plan
from nncompiler.passes.manager import run_passes
from nncompiler.passes.pipelines import OPTIMISE

ROOT = Path(__file__).parent.parent
SECONDS = 5.0
MEMORY = 4 << 30
KINDS = ("nn", "nnir", "nnplan")
#: Models whose graphs and plans are mutated: small, and together with every optimizer feature.
PRINTED = ("tiny", "powerplant_relu", "softmax_regression", "logic_gates")

CHARACTERS = "(){}[]<>|@%#=+-*/.,:;_\"'\\ \n\t\r\0\ufeffé€𝛁0123456789aexn"
NASTY = (
    "0", "-1", "1", "2", "9223372036854775807", "9223372036854775808", "2147483648", "1e308",
    "1e400", "-0.0", "nan", "inf", "0x10", "1_000", "100000000", "batch", "true", "()", "[]", "{}",
    "//", "/*", "->", "...", "\"\"", "%", "@", "|>", "**", "f32", "f32[]", "i32[0]", "bool[2]",
    "f64[1000000,1000000]", "u32[2]",
)  # fmt: skip
TOKEN = re.compile(r"\s+|\w+|[^\w\s]")


# --- mutation ------------------------------------------------------------------------------------


def _character(text: str, other: str, r: random.Random) -> str:
    """One character inserted, removed, replaced or repeated often."""
    k = r.randrange(len(text) + 1)
    match r.randrange(8):
        case 0 | 1 | 2:
            return text[:k] + r.choice(CHARACTERS) + text[k:]
        case 3 | 4:
            return text[:k] + text[k + 1 :]
        case 5 | 6:
            return text[:k] + r.choice(CHARACTERS) + text[k + 1 :]
        case _:
            return text[:k] + (text[k : k + 1] or "(") * r.choice((2, 50, 5000)) + text[k:]


def _token(text: str, other: str, r: random.Random) -> str:
    """One token removed, doubled, swapped with another or replaced by a known or nasty one."""
    tokens = TOKEN.findall(text)
    words = [k for k, t in enumerate(tokens) if not t.isspace()]
    if not words:
        return r.choice(NASTY)
    k, j = r.choice(words), r.choice(words)
    match r.randrange(7):
        case 0:
            tokens[k] = ""
        case 1:
            tokens[k] += " " + tokens[k]
        case 2:
            tokens[k], tokens[j] = tokens[j], tokens[k]
        case 3:
            tokens[k] = tokens[j]
        case 4 | 5:
            tokens[k] = r.choice(NASTY)
        case _:
            tokens[k] = r.choice(TOKEN.findall(other) or [""])
    return "".join(tokens)


def _line(text: str, other: str, r: random.Random) -> str:
    """One line removed, doubled, moved, cut short; or the text ends there."""
    lines = text.split("\n")
    k, j = r.randrange(len(lines)), r.randrange(len(lines))
    match r.randrange(5):
        case 0:
            del lines[k]
        case 1:
            lines.insert(j, lines[k])
        case 2:
            lines.insert(j, lines.pop(k))
        case 3:
            lines[k] = lines[k][: r.randrange(len(lines[k]) + 1)]
        case _:
            del lines[k:]
    return "\n".join(lines)


def _splice(text: str, other: str, r: random.Random) -> str:
    """Lines of another text inserted, in place of some, or as the rest."""
    lines, others = text.split("\n"), other.split("\n")
    k, j = r.randrange(len(lines) + 1), r.randrange(len(others))
    size = r.randrange(1, 8)
    match r.randrange(3):
        case 0:
            return "\n".join([*lines[:k], *others[j : j + size], *lines[k:]])
        case 1:
            return "\n".join([*lines[:k], *others[j : j + size], *lines[k + size :]])
        case _:
            return "\n".join([*lines[:k], *others[j:]])


LEVELS = (_character, _token, _line, _splice)


def mutate(texts: Sequence[str], r: random.Random) -> str:
    """One of the texts after one to four mutations."""
    text = r.choice(texts)
    for _ in range(r.choice((1, 1, 1, 2, 2, 4))):
        text = r.choice(LEVELS)(text, r.choice(texts), r)
    return text


# --- what is mutated -----------------------------------------------------------------------------


def _compilations() -> Iterator[driver.Compilation]:
    for name in PRINTED:
        source = driver.read_source(ROOT / "models" / f"{name}.nn")
        yield driver.Compilation(source, {"batch": 3})


@cache
def corpus(kind: str) -> tuple[str, ...]:
    """The texts of a kind: all files of the tree, and what the compiler prints for some models.

    Good texts are repeated until they are about half: their mutants get furthest.
    """
    files = [
        path.read_bytes().decode("utf-8", "replace")
        for folder in ("models", "nncompiler/stdlib", "tests/filetests")
        for path in sorted((ROOT / folder).rglob(f"*.{kind}"))
        if path.stat().st_size < 100_000
    ]
    match kind:
        case "nnir":
            for c in _compilations():
                for graphs in (c.graphs, c.optimised):
                    files += map(print_function, graphs.values())
        case "nnplan":
            files += [print_plan(p) for c in _compilations() for p in c.plans.values()]
    verdicts = [outcome(kind, text)[0] for text in files]
    good = [t for t, v in zip(files, verdicts, strict=True) if v == "accepted"]
    bad = [t for t, v in zip(files, verdicts, strict=True) if v != "accepted"]
    return tuple(bad + good * max(1, round(len(bad) / len(good))))


# --- what is done with it ------------------------------------------------------------------------


def read_nn(text: str) -> None:
    """Parsed and elaborated; the graphs of a good file are well-formed."""
    network = driver.Compilation(Source("a.nn", text), {"batch": 2}).network
    for function in network.functions:
        if found := verify(function):
            raise CompilerBug("NN0390", f"elaborated to an ill-formed graph: {found[0].message}")


def read_nnir(text: str) -> None:
    """Parsed and verified; a good graph goes through the passes and stays good."""
    for function in parse_functions(text, "a.nnir"):
        check(function)
        after = run_passes(function, OPTIMISE)
        if found := verify(after):
            raise CompilerBug("NN0390", f"passes made an ill-formed graph: {found[0].message}")
        parse_functions(print_function(after))


def read_nnplan(text: str) -> None:
    """Parsed and verified."""
    for plan in parse_plans(text, "a.nnplan"):
        check_plan(plan)


READERS: dict[str, Callable[[str], None]] = {
    "nn": read_nn,
    "nnir": read_nnir,
    "nnplan": read_nnplan,
}


class TimeOut(BaseException):
    """Not an `Exception`, so that nothing on the way catches it."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Of processor time, so that a busy machine makes no difference."""

    def ring(*_: object) -> None:
        raise TimeOut

    before = signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def outcome(kind: str, text: str) -> tuple[str, str]:
    """``accepted``, ``refused`` or ``problem``; and the code, or what went wrong where."""
    try:
        with warnings.catch_warnings(), time_limit(SECONDS):
            warnings.simplefilter("error")
            READERS[kind](text)
    except TimeOut:
        return "problem", f"more than {SECONDS:g} s"
    except (UserError, Limitation) as error:
        return "refused", error.code
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        message = str(error).partition("\n")[0][:200]
        place = f"{Path(frame.filename).name}:{frame.lineno}"
        return "problem", f"{type(error).__name__} at {place}: {message}"
    return "accepted", ""


def examine(seed: int) -> tuple[str, str, str, str]:
    """Kind, mutated text and outcome of a seed."""
    r = random.Random(seed)
    kind = KINDS[seed % len(KINDS)]
    text = mutate(corpus(kind), r)
    return kind, text, *outcome(kind, text)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--show", type=int, metavar="SEED", help="print the text of one seed")
    options = parser.parse_args(arguments)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    if options.show is not None:
        kind, text, verdict, detail = examine(options.show)
        print(f"{text}\n--- {kind}: {verdict} {detail}")
        return int(verdict == "problem")
    start = time.perf_counter()
    counts: Counter[str] = Counter()
    codes: set[str] = set()
    for seed in range(options.first, options.first + options.count):
        kind, _, verdict, detail = examine(seed)
        counts[f"{kind} {verdict}"] += 1
        if verdict == "problem":
            print(f"seed {seed}, {kind}: {detail}", flush=True)
        elif detail:
            codes.add(detail)
    problems = sum(n for what, n in counts.items() if what.endswith("problem"))
    for what in sorted(counts):
        print(f"{what:16} {counts[what]:6}")
    seconds = time.perf_counter() - start
    print(f"{options.count} texts, {len(codes)} codes, {problems} problems, {seconds:.0f} s")
    return int(problems > 0)


if __name__ == "__main__":
    sys.exit(main())
