"""Wall time of whole processes: compile (cold and warm), import, and load and predict once.

    python benchmarks/compile_time.py [--rounds 9] [--model models/mlp.nn] [--batch 64]

Prints Markdown. Cold means an empty compile cache and a new process; the file system's cache and
Python's are warm. All cases take turns, so that a drift of the machine's speed meets them alike.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import llvmlite
import numpy
from harness import machine

from nncompiler import __version__

ROOT = Path(__file__).resolve().parents[1]

PREDICT = """
import sys, numpy, nncompiler
model = nncompiler.load(sys.argv[1])
argument = model.bindings.any("infer").given[0]
model.predict(numpy.zeros(argument.shape, argument.dtype))
"""


@dataclass(frozen=True, slots=True)
class Case:
    """One process. `target` is a limit in seconds, `cached` whether it finds the artifact."""

    name: str
    command: list[str]
    target: float | None = None
    cached: bool | None = None


class Runs:
    """Runs processes against a cache of its own, empty again for every cold case."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fresh = 0
        self.seen: set[str] = set()
        self.stages: list[dict[str, object]] = []

    def seconds(self, case: Case) -> float:
        cache = self.folder / "warm"
        if case.cached is False:
            self.fresh += 1
            cache = self.folder / f"cold{self.fresh}"
        environment = {**os.environ, "NNCOMPILER_CACHE": str(cache), "PYTHONPATH": str(ROOT)}
        start = time.perf_counter()
        run = subprocess.run(
            [sys.executable, *case.command], cwd=ROOT, env=environment, capture_output=True,
            text=True,
        )  # fmt: skip
        took = time.perf_counter() - start
        if run.returncode:
            raise SystemExit(f"{case.name}: {run.stderr.strip() or run.returncode}")
        if case.cached is not None:
            built = json.loads(run.stdout)
            self.stages = self.stages or built["stages"]
            self.check(case, built["cached"])
        return took

    def check(self, case: Case, cached: bool) -> None:
        if case.name in self.seen and cached != case.cached:
            found = "in the cache" if cached else "not in the cache: has a source changed?"
            raise SystemExit(f"{case.name}: the artifact was {found}")
        self.seen.add(case.name)


def cases(model: str, batch: int, folder: Path) -> list[Case]:
    """The first of the cold ones is the one whose stages are listed."""
    library = str(folder / "predict.so")

    def compiling(*flags: str, output: str = "out.so") -> list[str]:
        file = str(folder / output)
        return ["-m", "nncompiler", "compile", model, "--json", "-o", file, *flags]

    size = ("--batch", str(batch))
    step, everything = compiling(*size, "--function", "train_step"), compiling(*size)
    infer = compiling("--batch", "1", "--function", "infer", output="predict.so")
    return [
        Case(f"compile train_step, batch {batch}, cold", step, 1.5, cached=False),
        Case(f"compile everything, batch {batch}, cold", everything, cached=False),
        Case("compile infer, batch 1, cold", infer, cached=False),
        Case(f"compile train_step, batch {batch}, warm", step, 0.5, cached=True),
        Case(f"compile everything, batch {batch}, warm", everything, 0.5, cached=True),
        Case("`import nncompiler`", ["-c", "import nncompiler"]),
        Case("`import numpy`", ["-c", "import numpy"]),
        Case("python alone", ["-c", "pass"]),
        Case("load the artifact, predict once", ["-c", PREDICT, library], 0.25),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="default: %(default)s")
    parser.add_argument("--model", default="models/mlp.nn", help="default: %(default)s")
    parser.add_argument("--batch", type=int, default=64, help="default: %(default)s")
    options = parser.parse_args()
    facts = machine.describe()
    if busy := machine.busy(facts):
        print(f"warning: {busy}", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        runs, listed = Runs(Path(folder)), cases(options.model, options.batch, Path(folder))
        times: dict[str, list[float]] = {case.name: [] for case in listed}
        for case in listed:
            runs.seconds(case)  # fills the warm cache, writes the library to load
        for _ in range(options.rounds):
            for case in listed:
                times[case.name].append(runs.seconds(case))
    print(table(options.model, listed, times))
    print(stages(listed[0].name, runs.stages))
    facts |= {"Python": sys.version.split()[0], "nncompiler": __version__}
    facts |= {"numpy": numpy.__version__, "llvmlite": llvmlite.__version__}
    print("\n".join(f"- {name}: {fact}" for name, fact in facts.items()))


def table(model: str, listed: list[Case], times: dict[str, list[float]]) -> str:
    lines = [f"Whole processes, `{model}`, {len(next(iter(times.values())))} rounds:", ""]
    lines += ["| process | median, s | fastest | slowest | target |", "|---|---:|---:|---:|---:|"]
    for case in listed:
        found = times[case.name]
        target = "" if case.target is None else f"< {case.target} s"
        spread = f"{statistics.median(found):.3f} | {min(found):.3f} | {max(found):.3f}"
        lines.append(f"| {case.name} | {spread} | {target} |")
    pairs = zip(times["`import nncompiler`"], times["`import numpy`"], strict=True)
    more = [ours - numpys for ours, numpys in pairs]
    spread = f"{statistics.median(more):+.3f} | {min(more):+.3f} | {max(more):+.3f}"
    lines.append(f"| `import nncompiler` beyond `import numpy` | {spread} | < +0.1 s |")
    return "\n".join(lines) + "\n"


def stages(name: str, found: list[dict[str, object]]) -> str:
    """Where the time of one compilation went."""
    lines = [f"Stages of one run of '{name}', without start and imports:", ""]
    lines += ["| stage | ms | |", "|---|---:|---|"]
    for stage in found:
        milliseconds = 1e3 * float(str(stage["seconds"]))
        lines.append(f"| {stage['name']} | {milliseconds:.1f} | {stage['detail']} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
