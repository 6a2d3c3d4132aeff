"""Every layer of the standard library against PyTorch: its result and all its gradients.

    .peers/bin/python benchmarks/peers_layers.py arrays    PyTorch's results: tests/data/layers/
    .venv/bin/python  benchmarks/peers_layers.py table     compare: the table in docs/layers.md

`make peers` does both. The layers and their arrays are those of `tests/layer_cases.py`. The tests
compare with the files, too, and need no PyTorch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.layer_cases import CASES, FOLDER, Case  # noqa: E402

PAGE = ROOT / "docs" / "layers.md"
START, END = "<!-- table -->\n", "<!-- end of table -->\n"
T = dict[str, Any]


# What PyTorch says ------------------------------------------------------------------------------


def reference() -> dict[str, Callable[[T], Any]]:
    """Each layer in PyTorch's terms, from tensors by name; `W` and `b` are those of the layer."""
    import torch
    from torch.nn import functional as F
    from torch.nn.utils import rnn

    def conv(dims: int, **options: Any) -> Callable[[T], Any]:
        function = (F.conv1d, F.conv2d, F.conv3d)[dims - 1]
        return lambda a: function(a["x"], a["f.W"], a.get("f.b"), **options)

    def transposed(dims: int, **options: Any) -> Callable[[T], Any]:
        function = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[dims - 1]
        return lambda a: function(a["x"], a["f.W"], a["f.b"], **options)

    def of_x(function: Callable[..., Any], *rest: Any, **options: Any) -> Callable[[T], Any]:
        return lambda a: function(a["x"], *rest, **options)

    def standardise(a: T) -> Any:
        variance, mean = torch.var_mean(a["x"], (0, 2), correction=0, keepdim=True)
        return (a["x"] - mean) / torch.sqrt(variance + 0.001)

    def heads(a: T, f: str, x: Any, memory: Any, causal: bool = False) -> Any:
        """Two heads over 8 features, as `torch.nn.MultiheadAttention` has them."""
        names = ("q", "k", "v", "o")
        bias = [a.get(f"{f}.{n}.b", torch.zeros(8, dtype=x.dtype)) for n in names]
        weight = [a[f"{f}.{n}.W"].T for n in names]
        n = x.shape[1]
        mask = torch.triu(torch.ones(n, n, dtype=torch.bool), 1) if causal else None
        y, _ = F.multi_head_attention_forward(
            x.transpose(0, 1), memory.transpose(0, 1), memory.transpose(0, 1), 8, 2, None,
            torch.cat(bias[:3]), None, None, False, 0.0, weight[3], bias[3], training=False,
            attn_mask=mask, use_separate_proj_weight=True, q_proj_weight=weight[0],
            k_proj_weight=weight[1], v_proj_weight=weight[2])
        return y.transpose(0, 1)

    def feed_forward(a: T, f: str, x: Any) -> Any:
        inner = F.gelu(F.linear(x, a[f"{f}.up.W"].T, a[f"{f}.up.b"]))
        return F.linear(inner, a[f"{f}.down.W"].T, a[f"{f}.down.b"])

    def block(causal: bool) -> Callable[[T], Any]:
        def run(a: T) -> Any:
            x = a["x"]
            norm = [(a[f"f.norm{k}.gain"], a[f"f.norm{k}.shift"]) for k in (1, 2)]
            inner = F.layer_norm(x, (8,), *norm[0])
            x = x + heads(a, "f.attn", inner, inner, causal)
            return x + feed_forward(a, "f.mlp", F.layer_norm(x, (8,), *norm[1]))

        return run

    def run_rnn(function: Callable[..., Any], a: T, x: Any, names: list[str]) -> tuple[Any, ...]:
        """All states and the last ones of layers called `names`, the second of them backwards. The
        second bias of PyTorch is `bh`, of the candidate. Of `lengths` where there are any."""
        weights = []
        for name in names:
            b = a[f"{name}.b"]
            more = torch.zeros_like(b)
            if f"{name}.bh" in a:
                more = torch.cat([more[: 2 * len(b) // 3], a[f"{name}.bh"]])
            weights += [a[f"{name}.Wx"].T, a[f"{name}.Wh"].T, b, more]
        start = x.new_zeros(len(names), len(x), len(a[f"{names[0]}.Wh"]))
        first = (start, start) if function is torch.lstm else start
        options = (weights, True, 1, 0.0, False, len(names) == 2)
        if "lengths" not in a:
            return cast(tuple[Any, ...], function(x, first, *options, True))
        lengths = a["lengths"].long() + 2
        packed = rnn.pack_padded_sequence(x, lengths, True, False)
        hs, *last = function(packed.data, packed.batch_sizes, first, *options)
        hs = rnn.PackedSequence(hs, packed.batch_sizes, None, packed.unsorted_indices)
        hs, _ = rnn.pad_packed_sequence(hs, True, total_length=x.shape[1])
        last = [s.index_select(1, packed.unsorted_indices) for s in last]
        behind = torch.arange(x.shape[1])[:, None] >= lengths[:, None, None]
        width = last[0].shape[-1]  # ours holds the last state behind the last step
        held = torch.where(behind, last[0][0][:, None], hs[..., :width])
        return torch.cat([held, hs[..., width:]], -1), *last

    def recurrent(function: Callable[..., Any], reverse: bool = False) -> Callable[[T], Any]:
        def run(a: T) -> Any:
            x = a["x"].flip(1) if reverse else a["x"]
            hs, *last = run_rnn(function, a, x, ["f"])
            hs = hs.flip(1) if reverse else hs
            return torch.cat([hs.flatten(1), *(s[0] for s in last)], 1)

        return run

    def both(function: Callable[..., Any]) -> Callable[[T], Any]:
        return lambda a: run_rnn(function, a, a["x"], ["f.forward", "f.backward"])[0]

    def batch_norm(axis: int = 1, **options: Any) -> Callable[[T], Any]:
        def run(a: T) -> Any:
            states = (a["f.running_mean"], a["f.running_var"], a["f.gain"], a["f.shift"])
            return F.batch_norm(a["x"].movedim(axis, 1), *states, **options).movedim(1, axis)

        return run

    def mlp(a: T) -> Any:
        x = a["x"]
        for i in range(3):
            x = F.linear(x, a[f"f.dense[{i}].W"].T, a[f"f.dense[{i}].b"])
            x = F.relu(x) if i < 2 else x
        return x

    def attention(**options: Any) -> Callable[[T], Any]:
        return lambda a: F.scaled_dot_product_attention(a["q"], a["k"], a["v"], **options)

    functions = {
        "conv1d": conv(1),
        "conv1d_same_dilated": conv(1, padding="same", dilation=2),
        "conv2d": conv(2),
        "conv2d_same": conv(2, padding="same"),
        "conv2d_stride": conv(2, stride=2, padding=1),
        "conv2d_per_side": lambda a: F.conv2d(
            F.pad(a["x"], (1, 3, 0, 2)), a["f.W"], a["f.b"], stride=(2, 3)),
        "conv2d_dilation": conv(2, padding=2, dilation=(2, 1)),
        "conv2d_groups": conv(2, padding=1, groups=2),
        "conv2d_pointwise": conv(2),
        "conv2d_pointwise_stride": conv(2, stride=2),
        "conv2d_pointwise_padding": conv(2, stride=2, padding=1),
        "depthwise_conv2d": conv(2, stride=2, padding=1, groups=3),
        "conv3d": conv(3, stride=(1, 2, 1), padding=1),
        "conv_transpose1d": transposed(1, stride=3, padding=1),
        "conv_transpose2d": transposed(2, stride=2, padding=1),
        "conv_transpose2d_same": transposed(2, stride=2),
        "conv_transpose2d_groups": transposed(2, dilation=2, groups=2),
        "conv_transpose3d": transposed(3, stride=(1, 2, 2), padding=(0, 1, 0)),
        "max_pool1d": of_x(F.max_pool1d, 2),
        "max_pool2d": of_x(F.max_pool2d, 2),
        "max_pool2d_overlapping": of_x(F.max_pool2d, 3, 2, 1),
        "max_pool2d_dilation": of_x(F.max_pool2d, (2, 3), 1, 0, 2),
        "max_pool3d": of_x(F.max_pool3d, 2, (1, 2, 2)),
        "avg_pool1d": of_x(F.avg_pool1d, 3, 2),
        "avg_pool2d": of_x(F.avg_pool2d, 2),
        "avg_pool2d_overlapping": of_x(F.avg_pool2d, 3, 2, 1),
        "avg_pool3d": of_x(F.avg_pool3d, 2, (1, 2, 2)),
        "avg_pool1d_inside": of_x(F.avg_pool1d, 3, 2, 1, False, False),
        "avg_pool2d_inside": of_x(F.avg_pool2d, 3, 2, 1, False, False),
        "avg_pool3d_inside": of_x(F.avg_pool3d, 2, 2, 1, False, False),
        "cumsum": of_x(torch.cumsum, 1),
        "rnn": recurrent(torch.rnn_tanh),
        "gru": recurrent(torch.gru),
        "gru_reverse": recurrent(torch.gru, reverse=True),
        "lstm": recurrent(torch.lstm),
        "lstm_reverse": recurrent(torch.lstm, reverse=True),
        "lstm_stacked": lambda a: run_rnn(
            torch.lstm, a, run_rnn(torch.lstm, a, a["x"], ["f"])[0], ["g"])[0],
        "rnn_lengths": recurrent(torch.rnn_tanh),
        "gru_lengths": recurrent(torch.gru),
        "lstm_lengths": recurrent(torch.lstm),
        "bidirectional": both(torch.lstm),
        "bidirectional_lengths": both(torch.gru),
        "global_avg_pool": lambda a: F.adaptive_avg_pool2d(a["x"], 1).flatten(1),
        "global_max_pool": lambda a: F.adaptive_max_pool2d(a["x"], 1).flatten(1),
        "upsample2d": of_x(F.interpolate, scale_factor=(2, 3), mode="nearest"),
        "standardise": standardise,
        "batch_norm": batch_norm(training=True),
        "batch_norm_last": batch_norm(-1, training=True, momentum=0.25, eps=0.001),
        "batch_norm_prediction": batch_norm(),
        "dropout_prediction": of_x(F.dropout, training=False),
        "dropout_sequence_prediction": of_x(F.dropout1d, training=False),
        "layer_norm": lambda a: F.layer_norm(a["x"], (8,), a["f.gain"], a["f.shift"]),
        "rms_norm": lambda a: F.rms_norm(a["x"], (8,), a["f.gain"], 1e-6),
        "group_norm": lambda a: F.group_norm(a["x"], 2, a["f.gain"], a["f.shift"]),
        "instance_norm": of_x(F.instance_norm),
        "embedding": lambda a: F.embedding(a["k"].long(), a["f.W"]),
        "positions": lambda a: a["x"] + a["f.W"][:5],
        "attention": attention(),
        "attention_causal": attention(is_causal=True),
        "attention_mask": lambda a: attention(attn_mask=a["m"] > 0)(a),
        "self_attention": lambda a: heads(a, "f", a["x"], a["x"]),
        "self_attention_causal": lambda a: heads(a, "f", a["x"], a["x"], True),
        "cross_attention": lambda a: heads(a, "f", a["x"], a["memory"]),
        "transformer_block": block(False),
        "transformer_block_causal": block(True),
        "feed_forward": lambda a: feed_forward(a, "f", a["x"]),
        "mlp": mlp,
        "unstack": lambda a: torch.cat(torch.unbind(a["x"], 1), -1),
        "identity": lambda a: a["x"],
        "step": lambda a: (a["x"] >= 0.25).to(a["x"].dtype) + 0 * a["x"],
        "dense": lambda a: F.linear(a["x"], a["f.W"].T, a["f.b"]),
        "prelu": lambda a: F.prelu(a["x"], a["f.a"].reshape(1)),
        "sum_of_squares": lambda a: 0.5 * F.mse_loss(a["p"], a["t"], reduction="sum"),
        "mse": lambda a: F.mse_loss(a["p"], a["t"]),
        "mae": lambda a: F.l1_loss(a["p"], a["t"]),
        "binary_cross_entropy": lambda a: F.binary_cross_entropy_with_logits(a["p"], a["t"]),
        "cross_entropy": lambda a: F.cross_entropy(a["z"], a["k"].long()),
        "softmax": of_x(F.softmax, -1),
        "log_softmax": of_x(F.log_softmax, -1),
        "sigmoid": of_x(torch.sigmoid),
        "tanh": of_x(torch.tanh),
    }
    names = ("relu", "leaky_relu", "softplus", "elu", "gelu", "silu")
    return {**functions, **{n: of_x(getattr(F, n)) for n in names}}


def write_arrays() -> None:
    """PyTorch's results in f64, beside what they are made from."""
    import torch

    FOLDER.mkdir(parents=True, exist_ok=True)
    functions = reference()
    assert functions.keys() == {c.name for c in CASES}
    for case in CASES:
        arrays = case.arrays()
        tensors = {n: torch.from_numpy(a.astype(np.float64) if a.dtype == np.float16 else a.copy())
                   for n, a in arrays.items()}
        for name in case.differentiated:
            tensors[name].requires_grad_(True)
        y = functions[case.name](tensors)
        assert tuple(y.shape) == case.output, (case.name, y.shape)
        (y * tensors["c"]).sum().backward()
        found = {f"grad.{n}": tensors[n].grad.numpy() for n in case.differentiated}
        if case.only == "training":
            found |= {f"new.{n}": tensors[n].numpy() for n in case.states}
        np.savez_compressed(case.file, **arrays, **found, y=y.detach().numpy())
    for path in FOLDER.glob("*.npz"):
        if path.stem not in functions:
            path.unlink()


# What is compiled -------------------------------------------------------------------------------


def errors(case: Case, dtype: str) -> tuple[float, float]:
    """The largest error of the result and new states, and of the gradients."""
    from tests.test_layers_peers import compare

    found = compare(case, dtype)
    gradients = max(e for n, e in found.items() if n.startswith("grad."))
    return max(e for n, e in found.items() if not n.startswith("grad.")), gradients


def rows() -> Iterator[str]:
    yield "| layer | f64 forward | f64 gradients | f32 forward | f32 gradients |\n"
    yield "|---|---|---|---|---|\n"
    for case in CASES:
        figures = [f"{e:.1e}" for dtype in ("f64", "f32") for e in errors(case, dtype)]
        yield f"| {case.name}: `{case.shown}` | {' | '.join(figures)} |\n"


def write_table() -> None:
    before, _, rest = PAGE.read_text().partition(START)
    _, _, after = rest.partition(END)
    PAGE.write_text(before + START + "".join(rows()) + END + after)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["arrays"]:
            write_arrays()
        case ["table"]:
            write_table()
        case _:
            sys.exit(__doc__)
