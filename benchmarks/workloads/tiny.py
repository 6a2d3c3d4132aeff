"""2-3-2-1, logistic units, mean squared error, plain gradient descent: nothing but overhead."""

from __future__ import annotations

import numpy as np
from harness.workload import Arrays, Jax, Sgd, Torch, Workload, dense_flops


class Tiny(Workload):
    path = "models/tiny.nn"
    cases = (("train", 4), ("loop", 4), ("infer", 1))
    optimizer = Sgd(lr=0.2)
    inputs = ("x",)
    output = "prediction"

    def data(self, batch: int, random: np.random.Generator) -> Arrays:
        x = random.random((batch, 2), np.float32)
        return {"x": x, "t": random.random((batch, 1), np.float32)}

    def flops(self, kind: str, batch: int) -> int:
        return dense_flops((2, 3, 2, 1), kind, batch)

    def torch(self) -> Torch:
        from torch import nn
        from torch.nn.functional import mse_loss

        model = nn.Sequential(
            nn.Linear(2, 3), nn.Sigmoid(), nn.Linear(3, 2), nn.Sigmoid(), nn.Linear(2, 1),
            nn.Sigmoid(),
        )  # fmt: skip
        return Torch(
            model,
            infer=lambda x: model(x),
            loss=lambda x, t: mse_loss(model(x), t),
            state=lambda w: {
                "0.weight": w["h1.W"].T, "0.bias": w["h1.b"],
                "2.weight": w["h2.W"].T, "2.bias": w["h2.b"],
                "4.weight": w["y.W"].T, "4.bias": w["y.b"],
            },
        )  # fmt: skip

    def jax(self) -> Jax:
        from jax import nn
        from jax import numpy as jnp

        def infer(p, x):
            h1 = nn.sigmoid(x @ p["h1.W"] + p["h1.b"])
            h2 = nn.sigmoid(h1 @ p["h2.W"] + p["h2.b"])
            return nn.sigmoid(h2 @ p["y.W"] + p["y.b"])

        return Jax(infer=infer, loss=lambda p, x, t: jnp.mean((infer(p, x) - t) ** 2))


WORKLOAD = Tiny()
