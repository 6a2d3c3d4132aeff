"""nncompiler against other frameworks: time of a training step, and of inference.

    python benchmarks/run.py                                 all rows, docs/benchmarks/VECTORS/
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
from harness.implementation import KINDS, PEERS
from harness.measure import Contestant, Result, Settings, bandwidths, measure
from harness.pool import PEERS as PYTHON
from harness.pool import Pool, WorkerFailed
from harness.tables import FOLDER, chosen

ROOT = Path(__file__).resolve().parents[1]
Memory = dict[int, dict[int, float]]
Run = tuple[list[Result], Memory, dict[str, str]]
FULL = Settings(turn=0.075, rounds=41, seconds=45, least=11)
QUICK = Settings(turn=0.03, rounds=5, seconds=4, least=3)
#: Compiling with it takes longer than a quick run may.
SLOW = "compile"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a few short rounds, one thread, "
                        f"without {SLOW} unless it is named")  # fmt: skip
    parser.add_argument("--model", metavar="NAME[,NAME...]", help="these workloads only")
    parser.add_argument("--kind", metavar="KIND[,KIND...]", help=f"of {', '.join(KINDS)}")
    parser.add_argument("--peer", metavar="NAME[,NAME...]", help=f"of {', '.join(PEERS)}")
    parser.add_argument("--threads", metavar="N[,N...]", help="default: 1,2; quick: 1")
    parser.add_argument("--out", type=Path, help="folder of speed.json, speed.md and speed.svg")
    options = parser.parse_args()
    cores = [str(n + 1) for n in range(len(os.sched_getaffinity(0)))]
    usual = ["1"] if options.quick else cores[:2]
    peers = [p for p in PEERS if not (options.quick and p == SLOW)]
    part = options.quick or any((options.model, options.kind, options.peer, options.threads))
    options.model = chosen(parser, "--model", options.model, workload.names())
    options.kind = chosen(parser, "--kind", options.kind, KINDS)
    options.peer = chosen(parser, "--peer", options.peer, PEERS, peers)
    options.threads = [int(n) for n in chosen(parser, "--threads", options.threads, cores, usual)]
    # What is committed comes from full runs.
    options.out = options.out or (ROOT / "out" / "benchmarks" if part else FOLDER)
    return options


def say(text: str) -> None:
    """Progress, on one line of a terminal."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def run(options: argparse.Namespace) -> Run:
    """All cases, the bandwidths by number of threads, and the versions."""
    cores = sorted(os.sched_getaffinity(0))
    settings = QUICK if options.quick else FULL
    names = ["ours", *options.peer]
    contestants = [(name, threads) for name in names for threads in options.threads]
    results: list[Result] = []
    memory: Memory = {}
    with Pool(cores) as pool, tempfile.TemporaryDirectory() as folder:
        os.sched_setaffinity(0, {cores[0]})
        versions = found_versions(pool, [("limits", 1), ("export", 1), *contestants])
        for threads in options.threads:
            say("bandwidth")
            memory[threads] = bandwidths(pool, threads)
        for case in workload.cases(options.model, options.kind):
            results.append(
                measure(pool, case, contestants, memory, Path(folder), settings, say)
            )
    say("")
    return results, memory, versions


def found_versions(pool: Pool, contestants: Sequence[Contestant]) -> dict[str, str]:
    """Of those that run; why the others do not stands at every row."""
    versions: dict[str, str] = {}
    for contestant in contestants:
        try:
            versions |= pool.get(*contestant).ask("versions")
        except WorkerFailed as error:
            print(f"warning: {contestant[0]}: {error}", file=sys.stderr)
    return versions


def main() -> int:
    options = arguments()
    if not PYTHON.exists():
        print("error: expected the environment .peers, made by `make peers`", file=sys.stderr)
        return 2
    before = machine.describe()
    if busy := machine.busy(before):
        print(f"warning: {busy}", file=sys.stderr)
    results, memory, versions = run(options)
    made = report.Report(results, memory, versions, before, options.peer, options.quick)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "speed.json").write_text(report.as_json(made))
    (options.out / "speed.md").write_text(report.as_markdown(made))
    (options.out / "speed.svg").write_text(chart.bars(made))
    print(report.as_markdown(made))
    return 1 if any(r.failures for r in results) else 0


if __name__ == "__main__":
    sys.exit(main())
