"""The layers that are compared with PyTorch: a model and arrays of each.

Everything a layer depends on is a parameter, so that `gradients` gives every gradient. The loss is
the sum of the layer's result times a target `c`. This module needs numpy alone, as PyTorch's
environment imports it too.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

FOLDER = Path(__file__).resolve().parent / "data" / "layers"
Arrays = dict[str, Any]
Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Case:
    """`body` binds `y`, of the shape `output`. Parameters called `f.NAME` are those of an
    instance `f`; `integers` are inputs, each with its shape and the number of its values.

    Most layers do in training what they do in prediction. For one that does not, `only` says which
    is meant: `training`, where the result is found as the gradient of `c`, and new values of
    `states` are compared; or `prediction`, where the gradients are those of float inputs.
    """

    name: str
    body: str
    output: Shape
    parameters: Mapping[str, Shape]
    integers: Mapping[str, tuple[Shape, int]] = field(default_factory=dict)
    states: Mapping[str, Shape] = field(default_factory=dict)
    only: Literal["training", "prediction"] | None = None

    @property
    def source(self) -> str:
        """The model."""
        kind, given = ("input", "") if self.only == "prediction" else ("param", " = zeros()")
        c = f"f32[{_sizes(self.output or (1,))}]"
        lines = [f"param c : {c} = zeros()" if self.only == "training" else f"target c : {c}"]
        lines += [f"input {n} : i32[{_sizes(shape)}]" for n, (shape, _) in self.integers.items()]
        lines += [
            f"{kind} {n} : f32[{_sizes(shape)}]{given}"
            for n, shape in self.parameters.items()
            if "." not in n
        ]
        lines += [*self.body.splitlines(), "output y", "loss sum(y * c)"]
        body = "".join(f"    {line}\n" for line in lines)
        train = "" if kind == "input" else "\ntrain {\n    optimizer = sgd(lr=0.1)\n}\n"
        return f"model {self.name} {{\n{body}}}\n{train}"

    def arrays(self) -> Arrays:
        """Inputs in -1.5 to 1.5, parameters in half of that: exact in every float, some equal."""
        generator = np.random.default_rng(zlib.crc32(self.name.encode()))
        found: Arrays = {
            n: generator.integers(0, high, shape).astype(np.int32)
            for n, (shape, high) in self.integers.items()
        }
        shapes = {"c": self.output or (1,), **self.parameters}
        for name, shape in shapes.items():
            unit = 128 if name.startswith("f.") else 64
            found[name] = np.asarray(generator.integers(-96, 97, shape) / unit, np.float16)
        for name, shape in self.states.items():  # variances are positive
            found[name] = np.asarray(generator.integers(32, 97, shape) / 64, np.float16)
        return found

    @property
    def differentiated(self) -> list[str]:
        """What has a gradient that is compared."""
        return [n for n in self.parameters if self.only != "prediction" or "." not in n]

    @property
    def shown(self) -> str:
        """The call, as the table has it."""
        return self.body.splitlines()[0].split("= ", 1)[1].removeprefix("x |> ")

    @property
    def file(self) -> Path:
        return FOLDER / f"{self.name}.npz"


def _sizes(shape: Shape) -> str:
    return ", ".join(map(str, shape))


def _layer(name: str, call: str, x: Shape, output: Shape, **own: Shape) -> Case:
    """A layer with its parameters."""
    parameters = {"x": x, **{f"f.{n.replace('__', '.')}": shape for n, shape in own.items()}}
    return Case(name, f"f = {call}\ny = x |> f", output, parameters)


def _fn(name: str, call: str, x: Shape, output: Shape) -> Case:
    return Case(name, f"y = x |> {call}", output, {"x": x})


def _loss(name: str) -> Case:
    return Case(name, f"y = {name}(p, t)", (), {"p": (4, 3), "t": (4, 3)})


def _recurrent(name: str, call: str, gates: int, **own: Shape) -> Case:
    """A recurrent layer of 6 units: the states of all steps, then the last state, and the cell;
    of samples of one length, or of different ones."""
    states = ["hs", "h", "cell"] if gates == 4 else ["hs", "h"]
    parts = ", ".join(["flatten(hs)", *states[1:]])
    arguments = "x, lengths + 2" if name.endswith("lengths") else "x"
    body = f"f = {call}\n{', '.join(states)} = f({arguments})\ny = concat([{parts}])"
    parameters = {"Wx": (8, 6 * gates), "Wh": (6, 6 * gates), "b": (6 * gates,), **own}
    size = 5 * 6 + 6 * (len(states) - 1)
    named = {f"f.{n}": shape for n, shape in parameters.items()}
    return Case(name, body, (2, size), {"x": SEQUENCE, **named}, _lengths(name))


def _bidirectional(name: str, kind: str, gates: int, **own: Shape) -> Case:
    """Both directions of 3 units each."""
    lengths = _lengths(name)
    body = f"f = bidirectional({kind}, 3)\ny = f(x{', lengths + 2' if lengths else ''})"
    parameters = {"Wx": (8, 3 * gates), "Wh": (3, 3 * gates), "b": (3 * gates,), **own}
    named = {f"f.{d}.{n}": s for d in ("forward", "backward") for n, s in parameters.items()}
    return Case(name, body, (2, 5, 6), {"x": SEQUENCE, **named}, lengths)


def _lengths(name: str) -> dict[str, tuple[Shape, int]]:
    return {"lengths": ((2,), 4)} if name.endswith("lengths") else {}


def _norm(name: str, call: str, x: Shape, n: int, only: Literal["training", "prediction"]) -> Case:
    """Batch normalisation of n channels."""
    return Case(name, f"f = {call}\ny = x |> f", x, {"x": x, "f.gain": (n,), "f.shift": (n,)}, {},
                {"f.running_mean": (n,), "f.running_var": (n,)}, only)


IMAGE = (2, 3, 7, 6)
SEQUENCE = (2, 5, 8)
HEADS = {
    "q__W": (8, 8),
    "q__b": (8,),
    "k__W": (8, 8),
    "k__b": (8,),
    "v__W": (8, 8),
    "v__b": (8,),
    "o__W": (8, 8),
    "o__b": (8,),
}
PARTS = {"q": (2, 2, 5, 4), "k": (2, 2, 5, 4), "v": (2, 2, 5, 3)}
BLOCK = {
    "norm1__gain": (8,),
    "norm1__shift": (8,),
    "norm2__gain": (8,),
    "norm2__shift": (8,),
    **{f"attn__{n}": s for n, s in HEADS.items()},
    "mlp__up__W": (8, 32),
    "mlp__up__b": (32,),
    "mlp__down__W": (32, 8),
    "mlp__down__b": (8,),
}

CASES = [
    _layer("conv1d", "conv1d(4, kernel=3)", (2, 3, 9), (2, 4, 7), W=(4, 3, 3), b=(4,)),
    _layer(
        "conv1d_same_dilated",
        'conv1d(4, kernel=4, padding="same", dilation=2)',
        (2, 3, 9),
        (2, 4, 9),
        W=(4, 3, 4),
        b=(4,),
    ),
    _layer("conv2d", "conv2d(4, kernel=3)", IMAGE, (2, 4, 5, 4), W=(4, 3, 3, 3), b=(4,)),
    _layer(
        "conv2d_same",
        'conv2d(4, kernel=[3, 2], padding="same")',
        IMAGE,
        (2, 4, 7, 6),
        W=(4, 3, 3, 2),
        b=(4,),
    ),
    _layer(
        "conv2d_stride",
        "conv2d(4, kernel=3, stride=2, padding=1)",
        IMAGE,
        (2, 4, 4, 3),
        W=(4, 3, 3, 3),
        b=(4,),
    ),
    _layer(
        "conv2d_per_side",
        "conv2d(4, kernel=3, stride=[2, 3], padding=[[0, 2], [1, 3]])",
        IMAGE,
        (2, 4, 4, 3),
        W=(4, 3, 3, 3),
        b=(4,),
    ),
    _layer(
        "conv2d_dilation",
        "conv2d(4, kernel=3, padding=2, dilation=[2, 1])",
        IMAGE,
        (2, 4, 7, 8),
        W=(4, 3, 3, 3),
        b=(4,),
    ),
    _layer(
        "conv2d_groups",
        "conv2d(6, kernel=3, padding=1, groups=2)",
        (2, 4, 5, 5),
        (2, 6, 5, 5),
        W=(6, 2, 3, 3),
        b=(6,),
    ),
    _layer(
        "conv2d_pointwise", "conv2d(5, kernel=1, bias=false)", IMAGE, (2, 5, 7, 6), W=(5, 3, 1, 1)
    ),
    _layer(
        "conv2d_pointwise_stride",
        "conv2d(5, kernel=1, stride=2)",
        IMAGE,
        (2, 5, 4, 3),
        W=(5, 3, 1, 1),
        b=(5,),
    ),
    _layer(
        "conv2d_pointwise_padding",
        "conv2d(5, kernel=1, stride=2, padding=1)",
        IMAGE,
        (2, 5, 5, 4),
        W=(5, 3, 1, 1),
        b=(5,),
    ),
    _layer(
        "depthwise_conv2d",
        "depthwise_conv2d(3, multiplier=2, stride=2, padding=1)",
        IMAGE,
        (2, 6, 4, 3),
        W=(6, 1, 3, 3),
        b=(6,),
    ),
    _layer(
        "conv3d",
        "conv3d(3, kernel=[2, 3, 2], stride=[1, 2, 1], padding=1)",
        (2, 2, 3, 5, 4),
        (2, 3, 4, 3, 5),
        W=(3, 2, 2, 3, 2),
        b=(3,),
    ),
    _layer(
        "conv_transpose1d",
        "conv_transpose1d(4, kernel=4, stride=3, padding=1)",
        (2, 3, 5),
        (2, 4, 14),
        W=(3, 4, 4),
        b=(4,),
    ),
    _layer(
        "conv_transpose2d",
        "conv_transpose2d(4, kernel=3, stride=2, padding=1)",
        (2, 3, 4, 3),
        (2, 4, 7, 5),
        W=(3, 4, 3, 3),
        b=(4,),
    ),
    _layer(
        "conv_transpose2d_same",
        'conv_transpose2d(4, kernel=2, stride=2, padding="same")',
        (2, 3, 4, 3),
        (2, 4, 8, 6),
        W=(3, 4, 2, 2),
        b=(4,),
    ),
    _layer(
        "conv_transpose2d_groups",
        "conv_transpose2d(6, kernel=3, dilation=2, groups=2)",
        (2, 4, 3, 4),
        (2, 6, 7, 8),
        W=(4, 3, 3, 3),
        b=(6,),
    ),
    _layer(
        "conv_transpose3d",
        "conv_transpose3d(3, kernel=[2, 3, 2], stride=[1, 2, 2], padding=[0, 1, 0])",
        (2, 2, 3, 4, 3),
        (2, 3, 4, 7, 6),
        W=(2, 3, 2, 3, 2),
        b=(3,),
    ),
    _fn("max_pool1d", "max_pool1d(2)", (2, 3, 9), (2, 3, 4)),
    _fn("max_pool2d", "max_pool2d(2)", IMAGE, (2, 3, 3, 3)),
    _fn("max_pool2d_overlapping", "max_pool2d(3, stride=2, padding=1)", IMAGE, (2, 3, 4, 3)),
    _fn("max_pool2d_dilation", "max_pool2d([2, 3], stride=1, dilation=2)", IMAGE, (2, 3, 5, 2)),
    _fn("max_pool3d", "max_pool3d(2, stride=[1, 2, 2])", (2, 2, 3, 4, 5), (2, 2, 2, 2, 2)),
    _fn("avg_pool1d", "avg_pool1d(3, stride=2)", (2, 3, 9), (2, 3, 4)),
    _fn("avg_pool2d", "avg_pool2d(2)", IMAGE, (2, 3, 3, 3)),
    _fn("avg_pool2d_overlapping", "avg_pool2d(3, stride=2, padding=1)", IMAGE, (2, 3, 4, 3)),
    _fn("avg_pool3d", "avg_pool3d(2, stride=[1, 2, 2])", (2, 2, 3, 4, 5), (2, 2, 2, 2, 2)),
    _fn(
        "avg_pool1d_inside",
        "avg_pool1d(3, stride=2, padding=1, count_padding=false)",
        (2, 3, 9),
        (2, 3, 5),
    ),
    _fn(
        "avg_pool2d_inside",
        "avg_pool2d(3, stride=2, padding=1, count_padding=false)",
        IMAGE,
        (2, 3, 4, 3),
    ),
    _fn(
        "avg_pool3d_inside",
        "avg_pool3d(2, padding=1, count_padding=false)",
        (2, 2, 3, 4, 5),
        (2, 2, 2, 3, 3),
    ),
    _fn("global_avg_pool", "global_avg_pool", IMAGE, (2, 3)),
    _fn("global_max_pool", "global_max_pool", IMAGE, (2, 3)),
    _fn("upsample2d", "upsample2d([2, 3])", (2, 3, 3, 2), (2, 3, 6, 6)),
    _fn("standardise", "standardise(axis=[0, 2], eps=0.001)", (4, 3, 5), (4, 3, 5)),
    _norm("batch_norm", "batch_norm()", IMAGE, 3, "training"),
    _norm("batch_norm_last", "batch_norm(axis=-1, momentum=0.75, eps=0.001)", SEQUENCE, 8,
          "training"),
    _norm("batch_norm_prediction", "batch_norm()", IMAGE, 3, "prediction"),
    Case("dropout_prediction", "y = x |> dropout(0.5)", IMAGE, {"x": IMAGE}, only="prediction"),
    Case("dropout_sequence_prediction", "y = x |> dropout_sequence(0.5)", SEQUENCE,
         {"x": SEQUENCE}, only="prediction"),
    _layer("layer_norm", "layer_norm()", SEQUENCE, SEQUENCE, gain=(8,), shift=(8,)),
    _layer("rms_norm", "rms_norm()", SEQUENCE, SEQUENCE, gain=(8,)),
    _layer("group_norm", "group_norm(2)", (2, 4, 3, 5), (2, 4, 3, 5), gain=(4,), shift=(4,)),
    _layer("instance_norm", "group_norm(3, affine=false)", IMAGE, IMAGE),
    Case(
        "embedding",
        "f = embedding(11, 6)\ny = k |> f",
        (3, 5, 6),
        {"f.W": (11, 6)},
        {"k": ((3, 5), 11)},
    ),
    _layer("positions", "positions(7)", SEQUENCE, SEQUENCE, W=(7, 8)),
    Case("attention", "y = attention(q, k, v)", (2, 2, 5, 3), PARTS),
    Case("attention_causal", "y = attention(q, k, v, causal=true)", (2, 2, 5, 3), PARTS),
    Case(
        "attention_mask",
        "y = attention(q, k, v, m > 0)",
        (2, 2, 5, 3),
        PARTS,
        {"m": ((2, 1, 5, 5), 3)},
    ),
    _layer("self_attention", "self_attention(2)", SEQUENCE, SEQUENCE, **HEADS),
    _layer(
        "self_attention_causal",
        "self_attention(2, causal=true, bias=false)",
        SEQUENCE,
        SEQUENCE,
        **{n: s for n, s in HEADS.items() if n.endswith("W")},
    ),
    Case(
        "cross_attention",
        "f = cross_attention(2)\ny = f(x, memory)",
        SEQUENCE,
        {
            "x": SEQUENCE,
            "memory": (2, 7, 6),
            **{
                f"f.{n.replace('__', '.')}": (6, 8) if n in ("k__W", "v__W") else s
                for n, s in HEADS.items()
            },
        },
    ),
    _layer("transformer_block", "transformer_block(2)", SEQUENCE, SEQUENCE, **BLOCK),
    _layer(
        "transformer_block_causal",
        "transformer_block(2, causal=true)",
        SEQUENCE,
        SEQUENCE,
        **BLOCK,
    ),
    _layer("feed_forward", "feed_forward(12)", SEQUENCE, SEQUENCE, up__W=(8, 12), up__b=(12,),
           down__W=(12, 8), down__b=(8,)),
    _fn("cumsum", "cumsum(axis=1)", SEQUENCE, SEQUENCE),
    _recurrent("rnn", "rnn(6, last=true)", 1),
    _recurrent("gru", "gru(6, last=true)", 3, bh=(6,)),
    _recurrent("gru_reverse", "gru(6, reverse=true, last=true)", 3, bh=(6,)),
    _recurrent("lstm", "lstm(6, last=true)", 4),
    _recurrent("lstm_reverse", "lstm(6, reverse=true, last=true)", 4),
    Case("lstm_stacked", "y = x |> lstm(6) as f |> lstm(6) as g", (2, 5, 6), {
        "x": SEQUENCE, **{f"{f}.{n}": s for f, size in (("f", 8), ("g", 6)) for n, s in
                          {"Wx": (size, 24), "Wh": (6, 24), "b": (24,)}.items()}}),
    _recurrent("rnn_lengths", "rnn(6, last=true)", 1),
    _recurrent("gru_lengths", "gru(6, last=true)", 3, bh=(6,)),
    _recurrent("lstm_lengths", "lstm(6, last=true)", 4),
    _bidirectional("bidirectional", "lstm", 4),
    _bidirectional("bidirectional_lengths", "gru", 3, bh=(3,)),
    _layer("dense", "dense(5)", (4, 3), (4, 5), W=(3, 5), b=(5,)),
    _layer("mlp", "mlp([6, 4, 3])", (4, 5), (4, 3), **{
        "dense[0]__W": (5, 6), "dense[0]__b": (6,), "dense[1]__W": (6, 4), "dense[1]__b": (4,),
        "dense[2]__W": (4, 3), "dense[2]__b": (3,)}),
    Case("unstack", "y = concat(unstack(x, axis=1))", (2, 40), {"x": SEQUENCE}),
    _fn("identity", "identity", (4, 9), (4, 9)),
    _fn("step", "step(0.25)", (4, 9), (4, 9)),
    _layer("prelu", "prelu()", (4, 5), (4, 5), a=()),
    *(
        _fn(name, name, (4, 9), (4, 9))
        for name in (
            "sigmoid",
            "tanh",
            "relu",
            "leaky_relu",
            "softplus",
            "elu",
            "gelu",
            "silu",
            "softmax",
            "log_softmax",
        )
    ),
    *(_loss(name) for name in ("mse", "sum_of_squares", "mae", "binary_cross_entropy")),
    Case("cross_entropy", "y = cross_entropy(z, k)", (), {"z": (4, 6)}, {"k": ((4,), 6)}),
]
