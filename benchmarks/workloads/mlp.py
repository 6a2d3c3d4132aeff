"""784-512-256-10, ReLU, softmax cross-entropy, momentum: a classifier of 28 x 28 images."""

from __future__ import annotations

import numpy as np
from harness.workload import Arrays, Jax, Sgd, Torch, Workload, dense_flops


class Mlp(Workload):
    path = "models/mlp.nn"
    cases = (("train", 64), ("infer", 1), ("infer", 64))
    optimizer = Sgd(lr=0.01, momentum=0.9)
    inputs = ("image",)
    output = "probs"

    def data(self, batch: int, random: np.random.Generator) -> Arrays:
        image = random.random((batch, 784), np.float32)
        return {"image": image, "digit": random.integers(0, 10, batch, np.int32)}

    def flops(self, kind: str, batch: int) -> int:
        return dense_flops((784, 512, 256, 10), kind, batch)

    def torch(self) -> Torch:
        from torch import nn
        from torch.nn.functional import cross_entropy, softmax

        model = nn.Sequential(
            nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 10)
        )
        return Torch(
            model,
            infer=lambda image: softmax(model(image), dim=1),
            loss=lambda image, digit: cross_entropy(model(image), digit),
            state=lambda w: {
                "0.weight": w["h1.W"].T, "0.bias": w["h1.b"],
                "2.weight": w["h2.W"].T, "2.bias": w["h2.b"],
                "4.weight": w["logits.W"].T, "4.bias": w["logits.b"],
            },
        )  # fmt: skip

    def jax(self) -> Jax:
        from jax import nn
        from jax import numpy as jnp

        def logits(p, image):
            h1 = nn.relu(image @ p["h1.W"] + p["h1.b"])
            h2 = nn.relu(h1 @ p["h2.W"] + p["h2.b"])
            return h2 @ p["logits.W"] + p["logits.b"]

        def loss(p, image, digit):
            logs = nn.log_softmax(logits(p, image))
            return -jnp.mean(jnp.take_along_axis(logs, digit[:, None], axis=1))

        return Jax(infer=lambda p, image: nn.softmax(logits(p, image)), loss=loss)


WORKLOAD = Mlp()
