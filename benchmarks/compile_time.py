"""Compile times and the sizes of artifacts, of all workloads.

    python benchmarks/compile_time.py [--rounds 5] [--model mlp,lenet] [--write]

Every compilation is a process of its own: `nnc compile`. Cold means an empty compile cache; the
file system's cache and Python's are warm. All models take turns, so that a drift of the machine's
speed meets them alike.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.tables import chosen, facts, parser, positive, publish, table
from harness.workload import find, names

ROOT = Path(__file__).resolve().parents[1]
#: Seconds to compile a training step cold, by model and otherwise; what is found in the cache.
TARGETS, TARGET, WARM = {"resnet20": 2.5}, 1.5, 0.050
#: Bytes of an artifact with train_step and infer, without weights.
SIZE = 300_000


@dataclass(frozen=True, slots=True)
class Built:
    """One process. `seconds` is `nnc compile` without start and imports of its own modules."""

    process: float
    seconds: float
    bytes: int
    stages: tuple[tuple[str, float], ...]


def compiled(model: str, batch: int, functions: str, cache: Path, out: Path) -> Built:
    """`nnc compile` in a new process."""
    command = ["compile", str(find(model).path), "--json", "-o", str(out)]
    command += ["--batch", str(batch), "--function", functions]
    environment = {**os.environ, "NNCOMPILER_CACHE": str(cache), "PYTHONPATH": str(ROOT)}
    start = time.perf_counter()
    run = subprocess.run(
        [sys.executable, "-m", "nncompiler", *command], cwd=ROOT, env=environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    took = time.perf_counter() - start
    if run.returncode:
        raise SystemExit(f"{model}: {run.stderr.strip() or run.returncode}")
    found = json.loads(run.stdout)
    stages = tuple((s["name"], s["seconds"]) for s in found["stages"])
    return Built(took, found["seconds"], found["bytes"], stages)


def start_up() -> float:
    """Seconds of a process that only imports the command line."""
    start = time.perf_counter()
    code = "import nncompiler.cli, nncompiler.cli.compile"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    return time.perf_counter() - start


def training_batch(model: str) -> int:
    return next(batch for kind, batch in find(model).cases if kind == "train")


def measured(models: Sequence[str], rounds: int, folder: Path) -> list[tuple[str, ...]]:
    """A row for each model."""
    cold: dict[str, list[Built]] = {m: [] for m in models}
    warm: dict[str, list[Built]] = {m: [] for m in models}
    both: dict[str, Built] = {}
    for k in range(rounds):
        for model in models:
            cache, out, batch = folder / f"{model}{k}", folder / "out.so", training_batch(model)
            cold[model].append(compiled(model, batch, "train_step", cache, out))
            warm[model].append(compiled(model, batch, "train_step", cache, out))
            if not k:
                both[model] = compiled(model, batch, "train_step,infer", cache, out)
    return [row(m, cold[m], warm[m], both[m].bytes) for m in models]


def row(model: str, cold: Sequence[Built], warm: Sequence[Built], size: int) -> tuple[str, ...]:
    first, again = (statistics.median(b.seconds for b in found) for found in (cold, warm))
    process = statistics.median(b.process for b in warm)
    stages = {n: statistics.median(dict(b.stages)[n] for b in cold) for n, _ in cold[0].stages}
    slowest = sorted(stages, key=lambda n: -stages[n])[:3]
    target = TARGETS.get(model, TARGET)
    return (
        f"{model}, {training_batch(model)}", marked(f"{first:.2f}", first > target),
        f"{target:.1f}", ", ".join(f"{n} {stages[n]:.2f}" for n in slowest),
        marked(f"{1e3 * again:.0f}", again > WARM), f"{process:.2f}",
        marked(f"{size / 1e3:.0f}", size > SIZE),
    )  # fmt: skip


def marked(text: str, missed: bool) -> str:
    return f"**{text}**" if missed else text


def main() -> None:
    flags = parser(__doc__ or "")
    flags.add_argument("--rounds", type=positive, default=5, help="default: %(default)s")
    flags.add_argument("--model", metavar="NAME[,NAME...]", help="default: all workloads")
    options = flags.parse_args()
    options.model = chosen(flags, "--model", options.model, names())
    known = facts() | {"rounds": str(options.rounds)}
    known["process that imports the command line"] = f"{start_up():.2f} s"
    with tempfile.TemporaryDirectory() as folder:
        rows = measured(options.model, options.rounds, Path(folder))
    heads = (
        "model, batch", "cold, s", "target", "slowest stages, s", "warm, ms", "warm process, s",
        "artifact, kB",
    )  # fmt: skip
    text = "# Compile time\n\nOf the training step: medians. *Warm* is what a compilation takes "
    text += f"that is found in the cache (target {1e3 * WARM:.0f} ms), without the start of the "
    text += "process. The artifact holds train_step and infer for one batch size, without weights "
    text += f"(target {SIZE / 1e3:.0f} kB). Targets that are missed are bold.\n\n"
    publish("compile_time", text + table(heads, rows), options.write, known)


if __name__ == "__main__":
    main()
