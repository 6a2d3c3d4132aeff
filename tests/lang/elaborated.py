"""Files and models elaborated, and what expressions come to."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nncompiler.ir.interp import run
from nncompiler.ir.model import Network
from nncompiler.ir.types import F64
from nncompiler.ir.verify import verify
from nncompiler.lang.elaborate import elaborate
from nncompiler.lang.parse import parse

ROOT = Path(__file__).parents[2]
SEED = np.array([7, 0], np.uint32)


def network(text: str, *, dtype=F64, **sizes: int) -> Network:
    """Elaborate a file."""
    return elaborate(parse(text, "test.nn"), sizes=sizes, dtype=dtype)


def model(body: str, *, before: str = "", head: str = "input x : f32[3, 4]", **options) -> Network:
    """Elaborate a model with this body."""
    return network(f"{before}\nmodel m {{ {head}\n{body}\n}}", **options)


def value(expression: str, x: np.ndarray | None = None, *, before: str = "",
          head: str = "input x : f32[3, 4]") -> np.ndarray:
    """What an expression of `x` gives in f64."""
    if x is None:
        x = np.linspace(-2, 2, 12).reshape(3, 4)
    found = model(f"output y = {expression}\noutput rest = sum(f32(x))", before=before, head=head)
    f = found.function("infer")
    assert not verify(f)
    return run(f, {"x": x})["y"]


def weights(net: Network) -> dict[str, np.ndarray]:
    """What `init` draws."""
    return run(net.function("init"), {"seed": SEED})


def names(net: Network) -> list[str]:
    """The names of the parameters."""
    return [name for name, _ in net.parameters]


X = np.linspace(-2, 2, 12).reshape(3, 4)
