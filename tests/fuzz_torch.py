"""Random graphs compiled in f64 against PyTorch: ``python -m tests.fuzz_torch --count 500``.

The results of every graph, and the gradient of its loss for every float parameter, within 1e-9 of
the largest value (or of 1). PyTorch is asked in its own environment, `.peers` (`make peers`);
`tests.torch_graphs` says what our operators are in its terms, and lists what it cannot express.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nncompiler.ir.graph import Function, Value
from nncompiler.ir.sampling import random_arguments
from nncompiler.ir.types import F64
from nncompiler.passes.training.autodiff import differentiate
from tests.random_graphs import random_function

ROOT = Path(__file__).resolve().parents[1]
PEERS = ROOT / ".peers" / "bin" / "python"
BATCH = 25
LIMIT = 1e-9


def program(seed: int) -> Function:
    """The random graph of a seed in f64, without its gradients and updates."""
    f = random_function(seed, F64, prefix=f"s{seed}_")
    kept = [(n, v) for n, v in f.results if not n.startswith(("grad.", "update."))]
    return replace(f, results=tuple(kept))


def wanted(function: Function) -> list[Value]:
    """What gradients are taken with respect to: every float parameter."""
    return [p.value for p in function.params if p.value.dtype.is_float]


def fingerprint(first: int, count: int) -> int:
    """Of the programs; the two environments must have meant the same."""
    return zlib.crc32("".join(repr(program(s)) for s in range(first, first + count)).encode())


def compiled(seeds: Sequence[int]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Results and gradients by seed, as `torch_graphs.results` gives them."""
    from tests.differential import Compiled  # PyTorch's environment has no llvmlite

    functions = [program(s) for s in seeds]
    functions = [differentiate(f, "loss", wanted(f), f.name) for f in functions]
    library = Compiled(functions, dtype=F64)
    for seed, f in zip(seeds, functions, strict=True):
        yield seed, library.run(f.name, random_arguments(f, seed))


def problems(found: Mapping[str, Any], expected: Mapping[str, Any]) -> Iterator[str]:
    """What differs, in words."""
    if found.keys() != expected.keys():
        yield f"results {sorted(found)}, PyTorch has {sorted(expected)}"
        return
    for name, e in expected.items():
        f = np.asarray(found[name])
        finite = np.isfinite(e)
        if f.shape != e.shape or not np.array_equal(finite, np.isfinite(f)):
            yield f"{name}: other shape, or finite elsewhere"
            continue
        top = max(1.0, np.max(np.abs(e[finite]), initial=0.0))
        error = np.max(np.abs(f[finite] - e[finite]), initial=0.0) / top
        if error > LIMIT:
            yield f"{name}: error {error:.3g}"


def reference(first: int, count: int) -> tuple[dict[int, dict[str, Any]], list[str]]:
    """PyTorch's arrays by seed, and what it could not express."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "reference.npz"
        command = [str(PEERS), "-m", "tests.torch_graphs", str(first), str(count), str(path)]
        subprocess.run(command, cwd=ROOT, check=True)
        with np.load(path) as file:
            arrays = {n: file[n] for n in file.files}
    if int(arrays.pop("fingerprint")) != fingerprint(first, count):
        raise SystemExit("the two environments made other graphs of the same seeds")
    skipped = [str(s) for s in arrays.pop("skipped")]
    found: dict[int, dict[str, Any]] = {}
    for key, array in arrays.items():
        seed, name = key.split(" ", 1)
        found.setdefault(int(seed), {})[name] = array
    return found, skipped


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=500)
    options = parser.parse_args(arguments)
    if not PEERS.exists():
        print("error: expected PyTorch in .peers, but it is not there\n  help: make peers",
              file=sys.stderr)
        return 2
    expected, skipped = reference(options.first, options.count)
    seeds, wrong, gradients = sorted(expected), 0, 0
    for start in range(0, len(seeds), BATCH):
        for seed, found in compiled(seeds[start : start + BATCH]):
            gradients += sum(n.startswith("grad.") for n in found)
            for problem in problems(found, expected[seed]):
                wrong += 1
                print(f"seed {seed}: {problem}")
    print("\n".join(skipped), end="\n" if skipped else "")
    print(f"{len(seeds)} graphs compared with PyTorch, {gradients} gradients, "
          f"{len(skipped)} skipped: {wrong} problems")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
