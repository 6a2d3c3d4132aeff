"""Training against PyTorch: the loss of every step from the same weights, over the same batches.

    .peers/bin/python benchmarks/peers_training.py arrays [DATA]   PyTorch's losses
    .venv/bin/python  benchmarks/peers_training.py table [DATA]    compare: docs/training.md

`make peers` does both without DATA: the networks for images are then trained on the bundled
digits, and the losses go to `tests/data/training/`, with which the tests compare, too. With DATA,
the .npz file of MNIST digits that `benchmarks/mnist.py` takes, they go to `out/`. The runs are
those of `tests/training_cases.py`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.training_cases import CASES, Arrays, Case, weight  # noqa: E402

PAGE = ROOT / "docs" / "training.md"
OF_MNIST = (
    *(c for c in CASES if c.model in ("mlp", "lenet", "mnist_cnn")),
    Case("mnist_cnn, F.batch_norm", "mnist_cnn", 500, 0, 0, 64, 0.002, fused=True),
)
Parameter = Callable[..., Any]


def mnist(path: str) -> Arrays:
    """The rows of MNIST that are not tested on."""
    with np.load(path) as file:
        rows = np.arange(len(file["labels"])) % 5 != 4
        image = file["images"][rows].astype(np.float32) / np.float32(255)
        return {"image": image, "digit": file["labels"][rows].astype(np.int32)}


def file_of(case: Case, path: str | None) -> Path:
    return ROOT / "out" / f"mnist-{case.file.name}" if path else case.file


# What PyTorch says ------------------------------------------------------------------------------


def logits() -> dict[str, Callable[[Case, Parameter, Any], Any]]:
    """Each network in PyTorch's terms; `p(name, *shape)` is a parameter."""
    from torch.nn import functional as F

    def dense(p: Parameter, name: str, x: Any, units: int, bias: bool = True) -> Any:
        W = p(f"{name}.W", x.shape[-1], units)
        return F.linear(x, W.T, p(f"{name}.b", units) if bias else None)

    def conv(p: Parameter, name: str, x: Any, n: int, k: int = 3, **options: Any) -> Any:
        return F.conv2d(x, p(f"{name}.W", n, x.shape[1], k, k), **options)

    def norm(p: Parameter, name: str, x: Any, fused: bool = False) -> Any:
        """Step by step: F.batch_norm rounds fifty times as coarsely (docs/training.md)."""
        n = x.shape[1]
        gain, shift = p(f"{name}.gain", n), p(f"{name}.shift", n)
        if fused:
            return F.batch_norm(x, None, None, gain, shift, training=True)
        x = x - x.mean((0, 2, 3), keepdim=True)
        x = x / ((x * x).mean((0, 2, 3), keepdim=True) + 1e-5).sqrt()
        return x * gain[:, None, None] + shift[:, None, None]

    def mlp(case: Case, p: Parameter, x: Any) -> Any:
        h = F.relu(dense(p, "h1", x, 512))
        return dense(p, "logits", F.relu(dense(p, "h2", h, 256)), 10)

    def lenet(case: Case, p: Parameter, x: Any) -> Any:
        for k, n in ((1, 6), (2, 16)):
            x = conv(p, f"conv2d{k}", x, n, bias=p(f"conv2d{k}.b", n))
            x = F.max_pool2d(F.relu(x), 2)
        x = x.flatten(1)
        for k, n in ((1, 120), (2, 84)):
            x = F.relu(dense(p, f"dense{k}", x, n))
        return dense(p, "logits", x, 10)

    def mnist_cnn(case: Case, p: Parameter, x: Any) -> Any:
        for k, n in ((1, 16), (2, 32), (3, 64)):
            x = norm(p, f"norm{k}", conv(p, f"conv{k}", x, n, padding=1), case.fused)
            x = F.relu(x)
            x = F.max_pool2d(x, 2) if k < 3 else x
        return dense(p, "head", F.relu(dense(p, "hidden", x.flatten(1), 128)), 10)

    def block(p: Parameter, name: str, x: Any, n: int, stride: int) -> Any:
        y = conv(p, f"{name}.conv1", x, n, stride=stride, padding=1)
        y = F.relu(norm(p, f"{name}.norm1", y))
        y = norm(p, f"{name}.norm2", conv(p, f"{name}.conv2", y, n, padding=1))
        if x.shape[1] != n:
            x = conv(p, f"{name}.project", x, n, 1, stride=stride)
            x = norm(p, f"{name}.project_norm", x)
        return F.relu(x + y)

    def resnet20(case: Case, p: Parameter, x: Any) -> Any:
        n = case.sizes["channels"]
        x = F.relu(norm(p, "norm", conv(p, "first", x, n, padding=1)))
        for stage in range(3):
            for i in range(case.sizes["blocks"]):
                stride = 2 if stage and not i else 1
                x = block(p, f"block[{stage}][{i}]", x, n * 2**stage, stride)
        return dense(p, "head", x.mean((2, 3)), 10)

    def char_lstm(case: Case, p: Parameter, x: Any) -> Any:
        import torch

        x = F.embedding(x, p("embed.W", 96, case.sizes["dim"]))
        u = case.sizes["units"]
        b = p("cell.b", 4 * u)
        weights = [p("cell.Wx", x.shape[-1], 4 * u).T, p("cell.Wh", u, 4 * u).T, b, 0 * b]
        start = torch.zeros(1, len(x), u, dtype=x.dtype)
        y, _, _ = torch.lstm(x, (start, start), weights, True, 1, 0.0, True, False, True)
        return dense(p, "head", y, 96)

    def layer_norm(p: Parameter, name: str, x: Any) -> Any:
        n = x.shape[-1]
        return F.layer_norm(x, (n,), p(f"{name}.gain", n), p(f"{name}.shift", n))

    def attend(p: Parameter, name: str, x: Any, heads: int) -> Any:
        n = x.shape[-1]
        q, k, v = (
            dense(p, f"{name}.{part}", x, n).unflatten(-1, (heads, -1)).transpose(1, 2)
            for part in "qkv"
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return dense(p, f"{name}.o", y.transpose(1, 2).flatten(2), n)

    def gpt(case: Case, p: Parameter, x: Any) -> Any:
        n = case.sizes["features"]
        x = F.embedding(x, p("symbols.W", 96, n)) + p("places.W", case.sizes["time"], n)
        for i in range(case.sizes["blocks"]):
            name = f"block[{i}]"
            inner = layer_norm(p, f"{name}.norm1", x)
            x = x + attend(p, f"{name}.attn", inner, case.sizes["heads"])
            inner = dense(p, f"{name}.mlp.up", layer_norm(p, f"{name}.norm2", x), 4 * n)
            x = x + dense(p, f"{name}.mlp.down", F.gelu(inner), n)
        return dense(p, "head", layer_norm(p, "norm", x), 96, bias=False)

    networks = (mlp, lenet, mnist_cnn, resnet20, char_lstm, gpt)
    return {network.__name__: network for network in networks}


def optimizer(case: Case, parameters: list[Any]) -> Any:
    """What the `train` block says."""
    import torch

    if case.model in ("mlp", "lenet", "resnet20"):
        return torch.optim.SGD(parameters, case.rate, momentum=0.9)
    return torch.optim.Adam(parameters, case.rate)


def torch_losses(
    case: Case, dtype: Any, images: Arrays | None, backwards: bool = False
) -> Iterator[float]:
    """The loss of every step, from batches whose rows may stand in the other order."""
    import torch
    from torch.nn.functional import cross_entropy

    network = logits()[case.model]
    made: dict[str, Any] = {}

    def parameter(name: str, *shape: int) -> Any:
        if name not in made:
            made[name] = torch.from_numpy(weight(name, shape)).to(dtype).requires_grad_(True)
        return made[name]

    chosen = None
    for step, batch in enumerate(case.batches(images)):
        x, target = (torch.from_numpy(a) for a in batch.values())
        if backwards:
            x, target = x.flip(0), target.flip(0)
        x = x.to(dtype) if x.is_floating_point() else x
        loss = cross_entropy(network(case, parameter, x).flatten(0, -2), target.long().flatten())
        chosen = chosen or optimizer(case, list(made.values()))
        if case.model == "mnist_cnn":
            chosen.param_groups[0]["lr"] = case.rate * (1 + math.cos(math.pi * step / 1250)) / 2
        chosen.zero_grad()
        loss.backward()
        if case.model == "char_lstm":
            torch.nn.utils.clip_grad_norm_(made.values(), 5.0)
        chosen.step()
        yield loss.item()


def write_arrays(path: str | None) -> None:
    """PyTorch's losses in both floats, and in f64 with the rows of batches in the other order."""
    import torch

    images = mnist(path) if path else None
    for case in cases(path):
        found = {
            name: np.array(list(torch_losses(case, dtype, images)))
            for name, dtype in (("f32", torch.float32), ("f64", torch.float64))
        }
        again = np.array(list(torch_losses(case, torch.float64, images, backwards=True)))
        file_of(case, path).parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(file_of(case, path), **found, backwards=again)


def cases(path: str | None) -> tuple[Case, ...]:
    return OF_MNIST if path else CASES


# What is compiled -------------------------------------------------------------------------------


def rows(path: str | None) -> Iterator[str]:
    from tests.test_training_peers import LIMITS, errors, losses

    images = mnist(path) if path else None
    heads = "run | rate | steps | loss | f64 | PyTorch: rows | f32 | PyTorch: f32 | together"
    yield f"| {heads} | PyTorch |\n"
    yield "|---|---:|---:|---|---:|---:|---:|---:|---:|---:|\n"
    for case in cases(path):
        with np.load(file_of(case, path)) as file:
            wanted = {name: file[name] for name in file.files}
        found = {d: errors(losses(case, d, case.steps, images), wanted[d]) for d in LIMITS}
        rows, own = (errors(wanted[n], wanted["f64"]) for n in ("backwards", "f32"))
        ends = f"{wanted['f64'][0]:.3f} to {wanted['f64'][-1]:.3f}"
        largest = " | ".join(f"{np.max(e):.1e}" for e in (found["f64"], rows, found["f32"], own))
        counts = " | ".join(together(e, LIMITS["f32"]) for e in (found["f32"], own))
        yield f"| {case.name} | {case.rate:g} | {case.steps} | {ends} | {largest} | {counts} |\n"


def together(errors: Any, limit: float) -> str:
    """For how many steps from the first on no error was above the limit."""
    above = np.flatnonzero(errors > limit)
    return str(above[0]) if len(above) else "all"


def write_table(path: str | None) -> None:
    mark = "MNIST" if path else "bundled"
    start, end = f"<!-- {mark} -->\n", f"<!-- end of {mark} -->\n"
    before, _, rest = PAGE.read_text().partition(start)
    _, _, after = rest.partition(end)
    table = "".join(rows(path))
    print(table, end="")
    PAGE.write_text(before + start + table + end + after)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["arrays", *rest] if len(rest) < 2:
            write_arrays(rest[0] if rest else None)
        case ["table", *rest] if len(rest) < 2:
            write_table(rest[0] if rest else None)
        case _:
            sys.exit(__doc__)
