"""ResNet-20 on colour images of 32 x 32: three stages of three blocks, BatchNorm, momentum."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from harness.workload import Arrays, Jax, Sgd, Torch, Workload, contraction_flops

STAGES, BLOCKS, CHANNELS, SIDE = 3, 3, 16, 32


def blocks() -> Iterator[tuple[str, int, int, int]]:
    """Of every block: name, channels in and out, stride."""
    before = CHANNELS
    for stage in range(STAGES):
        after = CHANNELS * 2**stage
        for i in range(BLOCKS):
            yield f"block[{stage}][{i}]", before, after, 2 if stage and not i else 1
            before = after


class ResNet20(Workload):
    path = "models/resnet20.nn"
    cases = (("train", 32), ("infer", 1), ("infer", 32), ("direct", 32))
    optimizer = Sgd(lr=0.1, momentum=0.9)
    inputs = ("image",)
    output = "probs"
    # At this rate rounding grows with every step. Of ours, losses part from those in f64 by 1e-7,
    # 3e-5, 1e-3 and 1e-2, of PyTorch the third by 8e-3; without momentum it would be 8e-2 off.
    tolerance, growth = 1e-3, 4.0

    def data(self, batch: int, random: np.random.Generator) -> Arrays:
        image = random.random((batch, 3, SIDE, SIDE), np.float32)
        return {"image": image, "label": random.integers(0, 10, batch, np.int32)}

    def flops(self, kind: str, batch: int) -> int:
        side, products = SIDE, [9 * 3 * CHANNELS * SIDE**2]
        for _, before, after, stride in blocks():
            side //= stride
            products += [9 * before * after * side**2, 9 * after * after * side**2]
            products += [before * after * side**2] if before != after else []
        products.append(CHANNELS * 2 ** (STAGES - 1) * 10)
        scaled = [batch * n for n in products]
        return contraction_flops(scaled, kind, scaled[0])

    def torch(self) -> Torch:
        from torch import nn
        from torch.nn.functional import cross_entropy, relu, softmax

        class Block(nn.Module):
            def __init__(self, before, after, stride):
                super().__init__()
                self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
                self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
                self.norm1, self.norm2 = nn.BatchNorm2d(after), nn.BatchNorm2d(after)
                self.project = nn.Identity()
                if before != after:
                    cut = nn.Conv2d(before, after, 1, stride, bias=False)
                    self.project = nn.Sequential(cut, nn.BatchNorm2d(after))

            def forward(self, x):
                y = self.norm2(self.conv2(relu(self.norm1(self.conv1(x)))))
                return relu(self.project(x) + y)

        model = nn.Sequential(
            nn.Conv2d(3, CHANNELS, 3, 1, 1, bias=False), nn.BatchNorm2d(CHANNELS), nn.ReLU(),
            *(Block(*rest) for _, *rest in blocks()), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(CHANNELS * 2 ** (STAGES - 1), 10),
        )  # fmt: skip
        return Torch(
            model,
            infer=lambda image: softmax(model(image), dim=1),
            loss=lambda image, label: cross_entropy(model(image), label),
            state=torch_state,
        )

    def jax(self) -> Jax:
        from jax import nn
        from jax import numpy as jnp

        def logits(p, image, training):
            new = {}
            x = nn.relu(jax_norm(p, new, "norm", jax_conv(p, "first", image, 1), training))
            for n, before, after, stride in blocks():
                y = jax_conv(p, f"{n}.conv1", x, stride)
                y = nn.relu(jax_norm(p, new, f"{n}.norm1", y, training))
                y = jax_norm(p, new, f"{n}.norm2", jax_conv(p, f"{n}.conv2", y, 1), training)
                if before != after:
                    x = jax_conv(p, f"{n}.project", x, stride)
                    x = jax_norm(p, new, f"{n}.project_norm", x, training)
                x = nn.relu(x + y)
            return jnp.mean(x, axis=(2, 3)) @ p["head.W"] + p["head.b"], new

        def loss(p, image, label):
            found, new = logits(p, image, True)
            logs = nn.log_softmax(found)
            return -jnp.mean(jnp.take_along_axis(logs, label[:, None], axis=1)), new

        norms = [n for n, _ in norm_names()]
        states = [f"{n}.running_{part}" for n in norms for part in ("mean", "var")]
        return Jax(lambda p, image: nn.softmax(logits(p, image, False)[0]), loss, tuple(states))


def norm_names() -> Iterator[tuple[str, str]]:
    """Every normalisation, ours and PyTorch's."""
    yield "norm", "1"
    for k, (n, before, after, _) in enumerate(blocks(), 3):
        yield f"{n}.norm1", f"{k}.norm1"
        yield f"{n}.norm2", f"{k}.norm2"
        if before != after:
            yield f"{n}.project_norm", f"{k}.project.1"


def torch_state(w):
    found = {"0.weight": w["first.W"]}
    for k, (n, before, after, _) in enumerate(blocks(), 3):
        found |= {f"{k}.{c}.weight": w[f"{n}.{c}.W"] for c in ("conv1", "conv2")}
        if before != after:
            found[f"{k}.project.0.weight"] = w[f"{n}.project.W"]
    for ours, theirs in norm_names():
        found[f"{theirs}.weight"], found[f"{theirs}.bias"] = w[f"{ours}.gain"], w[f"{ours}.shift"]
        for part in ("running_mean", "running_var"):
            found[f"{theirs}.{part}"] = w[f"{ours}.{part}"]
        found[f"{theirs}.num_batches_tracked"] = np.zeros((), np.int64)
    last = 3 + STAGES * BLOCKS + 2
    return found | {f"{last}.weight": w["head.W"].T, f"{last}.bias": w["head.b"]}


def jax_conv(p, name, x, stride):
    from jax import lax

    w = p[f"{name}.W"]
    pad = (w.shape[2] // 2,) * 2
    return lax.conv_general_dilated(x, w, (stride, stride), (pad, pad))


def jax_norm(p, new, name, x, training):
    """BatchNorm; in training the new running statistics are added to `new`."""
    from jax import numpy as jnp

    mean, spread = p[f"{name}.running_mean"], p[f"{name}.running_var"]
    if training:
        rows = x.size // x.shape[1]
        old = mean, spread
        mean = jnp.mean(x, axis=(0, 2, 3))
        spread = jnp.mean((x - mean[:, None, None]) ** 2, axis=(0, 2, 3))
        new[f"{name}.running_mean"] = 0.9 * old[0] + 0.1 * mean
        new[f"{name}.running_var"] = 0.9 * old[1] + 0.1 * rows / (rows - 1) * spread
    scale = p[f"{name}.gain"] / jnp.sqrt(spread + 1e-5)
    return x * scale[:, None, None] + (p[f"{name}.shift"] - mean * scale)[:, None, None]


WORKLOAD = ResNet20()
