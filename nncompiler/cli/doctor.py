"""`nnc doctor`: what nnc finds on this machine, and whether it can compile, train and predict."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from nncompiler import __version__, cache
from nncompiler.cli import options
from nncompiler.cli.output import print_json, say
from nncompiler.errors import EXIT_CHECK_FAILED, EXIT_OK, NNError

NEEDED = ("numpy", "llvmlite", "lark", "networkx")

#: The self test: y = x W learns to double.
MODEL = """model doubling {
    input x : f32[batch, 1]
    target t : f32[batch, 1]
    output y = x |> dense(1, bias = false)
    loss mse(y, t)
}
train { optimizer = sgd(lr = 0.1) batch = 4 epochs = 1 }
"""


def add_parser(subparsers: options.Subparsers) -> None:
    parser = options.add_verb(
        subparsers, "doctor", "Show versions, processor and cache, and compile and train a small "
        "model. The exit code is 4 if something is missing or fails.",
    )  # fmt: skip
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    found: dict[str, Any] = {
        "nncompiler": __version__,
        "python": f"{platform.python_version()} ({sys.executable})",
        "platform": f"{platform.system()} {platform.machine()}",
        "libraries": {name: _version(name) for name in NEEDED},
    }
    problems = [f"{name} is not installed" for name, v in found["libraries"].items() if v is None]
    tests = (("processor", _processor), ("cache", _cache), ("self test", _self_test))
    for name, test in tests:
        found[name] = _attempt(test, problems)
    if args.json:
        print_json({**found, "problems": problems})
    else:
        _print(found)
    for problem in problems:
        say(f"problem: {problem}")
    return EXIT_CHECK_FAILED if problems else EXIT_OK


def _attempt(test: Callable[[], Any], problems: list[str]) -> Any:
    try:
        return test()
    except NNError as error:
        problems.append(error.render())
    except Exception as error:  # whatever is wrong here, the rest is still of interest
        problems.append(f"{type(error).__name__}: {error}")
    return None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor() -> dict[str, Any]:
    from nncompiler.codegen.target import host

    target = host()
    return {
        "level": target.cpu, "tuned for": target.tune, "cores": os.cpu_count(),
        "vectors": f"{target.vector_bytes} bytes, {target.registers} registers",
        "fused multiply-add": target.fma,
    }  # fmt: skip


def _cache() -> dict[str, Any]:
    store = cache.standard()
    if store is None:
        return {"folder": "off"}
    entries, size = store.usage()
    return {"folder": str(store.root), "entries": entries, "bytes": size, "limit": store.limit}


def _self_test() -> str:
    """Compile without the cache, train to convergence, predict."""
    import numpy as np

    from nncompiler import compile

    model = compile(MODEL, batch=4, cache=False)
    x = np.array([[-1.0], [0.5], [1.0], [2.0]], np.float32)
    for _ in range(60):
        model.train_step(x=x, t=2 * x)
    error = float(np.max(np.abs(model.predict(x) - 2 * x)))
    if not error < 1e-3:
        raise ArithmeticError(f"the self test is off by {error:.3g}")
    return "compiled, trained and predicted"


def _print(found: dict[str, Any]) -> None:
    for name, value in found.items():
        if not isinstance(value, dict):
            print(f"{name:<22}{'FAILED' if value is None else value}")
            continue
        print(name)
        for key, item in value.items():
            shown = {None: "missing", True: "yes", False: "no"}.get(item, item)
            print(f"  {key:<20}{shown}")
