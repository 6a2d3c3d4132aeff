"""nncompiler against other frameworks: time of a training step, and of inference.

    python benchmarks/run.py                                 all rows, docs/benchmarks/
    python benchmarks/run.py --quick --model mlp,tiny        a few rounds, out/benchmarks/

`make peers` makes the environment of the peers first. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from harness import chart, machine, report, workload
from harness.implementation import PEERS
from harness.measure import Result, Settings, bandwidths, measure
from harness.pool import PEERS as PYTHON
from harness.pool import Pool
from harness.workload import Row

ROOT = Path(__file__).resolve().parents[1]
KINDS = ["train", "infer"]
Run = tuple[list[Result], dict[int, dict[int, float]], dict[str, str]]
FULL = Settings(turn=0.075, rounds=41)
QUICK = Settings(turn=0.05, rounds=9)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--model", metavar="NAME[,NAME...]", help="these workloads only")
    parser.add_argument("--kind", metavar="KIND[,KIND...]", help="train or infer only")
    parser.add_argument("--peer", metavar="NAME[,NAME...]", help=f"of {', '.join(PEERS)}")
    parser.add_argument("--threads", default="1", metavar="N[,N...]", help="default: %(default)s")
    parser.add_argument("--out", type=Path, help="folder of speed.json, speed.md and speed.svg")
    options = parser.parse_args()
    options.model = chosen(parser, "--model", options.model, workload.names())
    options.kind = chosen(parser, "--kind", options.kind, KINDS)
    options.peer = chosen(parser, "--peer", options.peer, PEERS)
    cores = [str(n + 1) for n in range(len(os.sched_getaffinity(0)))]
    options.threads = [int(n) for n in chosen(parser, "--threads", options.threads, cores)]
    everything = [workload.names(), KINDS, list(PEERS)]
    part = options.quick or [options.model, options.kind, options.peer] != everything
    # What is committed comes from full runs.
    options.out = options.out or ROOT / ("out" if part else "docs") / "benchmarks"
    return options


def chosen(
    parser: argparse.ArgumentParser, option: str, text: str | None, known: Sequence[str]
) -> list[str]:
    names = list(known) if text is None else text.split(",")
    for name in names:
        if name not in known:
            parser.error(f"{option}: expected one of {', '.join(known)}, but found '{name}'")
    return names


def say(text: str) -> None:
    """Progress, on one line of a terminal."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def run(options: argparse.Namespace) -> Run:
    """All rows, the bandwidths by number of threads, and the versions."""
    cores = sorted(os.sched_getaffinity(0))
    settings = QUICK if options.quick else FULL
    names = ["ours", "checked", *options.peer]
    results: list[Result] = []
    memory: dict[int, dict[int, float]] = {}
    versions: dict[str, str] = {}
    with Pool(cores) as pool, tempfile.TemporaryDirectory() as folder:
        os.sched_setaffinity(0, {cores[0]})
        for threads in options.threads:
            say("bandwidth")
            memory[threads] = bandwidths(pool, threads)
            for name in ("limits", *names):
                versions |= pool.get(name, threads).ask("versions")
            for model in options.model:
                for kind, batch in workload.find(model).cases:
                    if kind in options.kind:
                        row = Row(model, kind, batch, threads)
                        results.append(measure(
                            pool, row, names, memory[threads], Path(folder), settings, say
                        ))  # fmt: skip
    say("")
    return results, memory, versions


def main() -> int:
    options = arguments()
    if not PYTHON.exists():
        print("error: expected the environment .peers, made by `make peers`", file=sys.stderr)
        return 2
    before = machine.describe()
    if busy := machine.busy(before):
        print(f"warning: {busy}", file=sys.stderr)
    results, memory, versions = run(options)
    results.sort(key=lambda r: not r.loses(options.peer))
    made = report.Report(results, memory, versions, before, options.peer, options.quick)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "speed.json").write_text(report.as_json(made))
    (options.out / "speed.md").write_text(report.as_markdown(made))
    (options.out / "speed.svg").write_text(chart.bars(made))
    print(report.as_markdown(made))
    return 1 if any(r.failures for r in results) else 0


if __name__ == "__main__":
    sys.exit(main())
