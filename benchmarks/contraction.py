"""How close contractions come to this machine's FMA peak.

    python benchmarks/contraction.py [--threads 2] [--write]

The kernels are those of compiled models, in their real surroundings: products and convolutions on
their own in all three forms, and every contraction of the workloads. The time is the fastest of
all calls in ten rounds, which take turns with the peak (independent FMA chains in registers).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from harness.tables import facts, parser, publish, table, threads
from harness.workload import find, names

from nncompiler.cli.limits import Limits
from nncompiler.cli.profile import Clocked, undisturbed
from nncompiler.driver import Compilation, Options, read_source
from nncompiler.errors import Source
from nncompiler.ir.kernel import For, Kernel, Loop, Step
from nncompiler.report.cost import KernelCost
from nncompiler.report.timing import Machine

ROOT = Path(__file__).resolve().parents[1]
ROUNDS, SECONDS = 10, 0.1
#: Workloads: what less than this share of the function's multiply-adds does is left out.
SMALL = 0.002
#: Share of the peak aimed at where no form says another.
OTHERS = 0.75

PRODUCT = """model product {{
    input c : f32[{m}, {n}]
    param a : f32[{m}, {k}] = normal(0, 1)
    param b : f32[{k}, {n}] = normal(0, 1)
    y = a @ b
    output y
    loss mse(y, c)
}}
"""
CONVOLUTION = """model convolution {{
    input x : f32[{batch}, {channels}, {side}, {side}]
    before = x |> conv2d({channels}, 3, padding=1) |> relu
    y = before |> conv2d({channels}, 3, padding=1) |> relu
    z = y |> conv2d({channels}, 3, padding=1)
    output z
    loss mean(z * z)
}}
"""


@dataclass(frozen=True, slots=True)
class Form:
    """A contraction: the share of the peak aimed at; which kernel of the line it is."""

    title: str
    text: str
    line: str
    points: int
    """Elements of its result."""
    target: float
    function: str = "grad"
    before: int = 0
    """Kernels of the line in front of those that count."""


def forms() -> Iterator[Form]:
    """Products and convolutions, each forward and as both gradients."""
    sizes = ((64, 512, 784), (64, 256, 512), (512, 512, 512), (1024, 1024, 1024))
    for m, n, k in sizes:
        text, line = PRODUCT.format(m=m, n=n, k=k), "    y = a @ b"
        target = 0.9 if m == 1024 else 0.93
        # On its own: in training the kernel makes the loss too, of as many elements again.
        yield Form(f"{m} × {n} × {k}", text, line, m * n, target, "infer")
        # In the order of the kernels, which tells those of a square apart.
        back = target, "grad", 1
        yield Form(f"{m} × {k} × {n}, Bᵀ (input gradient)", text, line, m * k, *back)
        yield Form(f"{k} × {n} × {m}, Aᵀ (weight gradient)", text, line, k * n, *back)
    for channels, side in ((16, 32), (32, 16), (64, 8)):
        text = CONVOLUTION.format(batch=32, channels=channels, side=side)
        line = text.splitlines()[3]
        image, weights = 32 * channels * side**2, 9 * channels**2
        name = f"3 × 3, {channels} channels, {side} × {side}, batch 32"
        yield Form(f"{name}: forward", text, line, image, 0.93)
        yield Form(f"{name}: input gradient", text, line, image, 0.93)
        yield Form(f"{name}: weight gradient", text, line, weights, 0.93)


def points(kernel: Kernel) -> int:
    """Elements of what the outermost loops of a kernel go through."""
    count, body = 1, kernel.body
    while len(body) == 1 and isinstance(body[0], For):
        for axis in body[0].axes:
            count *= axis.extent
        body = body[0].body
    return count


class Measured:
    """The contractions of a function with their fastest times, and the peak of the same rounds."""

    def __init__(self, c: Compilation, function: str, run: Run) -> None:
        clocked = [Clocked(c, function, n) for n in dict.fromkeys((1, run.threads))]
        times: list[list[Any]] = [[] for _ in clocked]
        for _ in range(ROUNDS):
            run.measure_peak()
            for one, found in zip(clocked, times, strict=True):
                found.append(one.rounds(SECONDS))
        fastest = np.concatenate(times[0]).min(axis=0)
        stretch = np.array(stretches(c.plans[function].steps))
        same = stretch[:, None] == stretch
        together = [undisturbed(np.concatenate(found)) @ same for found in times]
        faster = together[0] / together[-1]
        machine, touched = Machine(run.peak, run.bandwidth), clocked[0].costs.touched
        every = zip(
            clocked[0].costs.kernels, c.plans[function].kernels(), fastest, faster, strict=True
        )
        self.found = [
            Figure(
                cost, points(kernel), 2 * cost.work.multiply_adds / one / run.peak,
                machine.limit(cost.work, cost.calls, cost.far, touched) / one, speedup,
            )
            for cost, kernel, one, speedup in every if cost.work.multiply_adds
        ]  # fmt: skip


def stretches(steps: Iterable[Step]) -> list[int]:
    """Of every kernel the number of its stretch, from one meeting of the threads to the next: who
    is done with a kernel begins the next one of it, so only the time of all of it says something.
    """
    found, numbers = list[int](), count()
    here = next(numbers)

    def visit(steps: Iterable[Step]) -> None:
        nonlocal found, here
        for step in steps:
            here = next(numbers) if step.barrier else here
            if isinstance(step, Kernel):
                found.append(here)
                continue
            first = len(found)
            visit(step.body)
            if not meets_first(step.body):  # what a round ends with goes on in the next one
                last, here = here, found[first]
                found = [here if n == last else n for n in found]

    visit(steps)
    return found


def meets_first(steps: tuple[Step, ...]) -> bool:
    """Whether threads meet before anything else."""
    first = steps[0]
    return first.barrier or (isinstance(first, Loop) and meets_first(first.body))


#: What of a workload is looked at; its other cases run the same contractions.
FUNCTIONS = {"train": "train_step", "infer": "infer"}


@dataclass(frozen=True, slots=True)
class Figure:
    """A kernel: shares of the FMA peak and of the roofline on one thread, and how much faster
    several threads are than one, it and those that no meeting of threads divides from it."""

    cost: KernelCost
    points: int
    share: float
    roofline: float
    speedup: float

    def row(self, title: str, target: float, threads: int) -> tuple[str, ...]:
        below = max(self.share, self.roofline) < target
        figure = f"{100 * self.share:.0f}"
        cells = (
            f"**{title}**" if below else title, f"{2e-9 * self.cost.work.multiply_adds:.3g}",
            f"**{figure}**" if below else figure, f"{100 * self.roofline:.0f}",
            f"{100 * target:.0f}",
        )  # fmt: skip
        more = (f"{self.speedup:.2f}",) if threads > 1 else ()
        return (*cells, *more, self.cost.schedule)


class Run:
    """The machine, and the fastest that its peak has been on one thread."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        limits = Limits(1)
        machine = limits.machine()
        self.peak, self.bandwidth = machine.peak, machine.bandwidth
        self.probe, self.work = limits.fma()

    def measure_peak(self) -> None:
        for _ in range(5):
            start = time.perf_counter()
            self.probe()
            self.peak = max(self.peak, self.work / (time.perf_counter() - start))

    @property
    def heads(self) -> tuple[str, ...]:
        more = (f"{self.threads} threads ×",) if self.threads > 1 else ()
        return ("contraction", "GFLOP", "% of peak", "% of roofline", "target", *more, "schedule")


def single(run: Run) -> str:
    """Products and convolutions on their own."""
    rows, done = [], dict[tuple[str, str], list[Figure]]()
    for form in forms():
        key = form.text, form.function
        if key not in done:
            c = compiled(Source("form.nn", form.text), {}, form.function)
            line = form.text.splitlines().index(form.line) + 1
            found = Measured(c, form.function, run).found
            done[key] = [f for f in found if line in f.cost.lines][form.before :]
        fitting = [f for f in done[key] if f.points == form.points]
        if fitting:
            rows.append(fitting[0].row(form.title, form.target, run.threads))
            done[key].remove(fitting[0])
        else:
            rows.append((f"{form.title}: no kernel of its own", *[""] * (len(run.heads) - 1)))
    return table(run.heads, rows)


def workloads(run: Run) -> str:
    """Every contraction of the workloads, by function; those of one form once, the slowest."""
    rows: list[tuple[str, ...]] = []
    for name in names():
        workload = find(name)
        for kind, batch in workload.cases:
            if kind not in FUNCTIONS or name == "tiny":
                continue
            function = FUNCTIONS[kind]
            c = compiled(read_source(ROOT / workload.path), {"batch": batch}, function)
            found = Measured(c, function, run).found
            total = sum(f.cost.work.multiply_adds for f in found)
            seen: dict[str, tuple[str, ...]] = {}
            for f in sorted(found, key=lambda f: f.share):
                form = f"{f.cost.space} {f.cost.schedule} {'+'.join(f.cost.operators)}"
                if f.cost.work.multiply_adds >= SMALL * total and form not in seen:
                    title = f"{name} {kind} {batch}, line {', '.join(map(str, f.cost.lines))}"
                    seen[form] = f.row(f"{title}: `{f.cost.space}`", OTHERS, run.threads)
            rows += seen.values()
    return table(run.heads, rows)


def compiled(source: Source, sizes: dict[str, int], function: str) -> Compilation:
    """In the direct form: every contraction as such."""
    return Compilation(source, sizes, Options(functions=("init", function), direct=True))


def main() -> None:
    flags = parser(__doc__ or "")
    flags.add_argument("--threads", type=int, default=1, choices=threads(),
                       help="how much faster so many threads are, too")  # fmt: skip
    options = flags.parse_args()
    known, cores = facts(), sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, set(cores[-options.threads :]))
    run = Run(options.threads)
    text = "# Contractions\n\nShares of the FMA peak and of the roofline (the longer of that and "
    text += "the bytes at the bandwidth of the memory they fit; of weights that a function reads "
    text += "once, of the memory that all fits which it touches), on one thread. The kernels are "
    text += "those of compiled models, with all that is fused into them; what is below its target "
    text += "by both is bold. Single products forward are those of inference: in training the "
    text += "same kernel makes the loss.\n\n"
    if options.threads > 1:
        text += "How much faster several threads are is told of all kernels from one meeting of "
        text += "the threads to the next, by the twentieth of the calls that took least time.\n\n"
    text += "Products with padding are counted, though a kernel may leave them out: of the three "
    text += "sizes of convolution they are 4, 8 and 16 %.\n\n"
    text += single(run) + "\n## In the workloads\n\n" + workloads(run)
    known["FMA peak"] = f"{run.peak / 1e9:.1f} GFLOP/s"
    publish("contractions", text, options.write, known)


if __name__ == "__main__":
    main()
