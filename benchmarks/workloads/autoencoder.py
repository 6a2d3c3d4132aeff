"""784-256-64-256-784, ReLU, mean squared error, Adam: images squeezed through 64 numbers."""

from __future__ import annotations

import numpy as np
from harness.workload import Adam, Arrays, Jax, Torch, Workload, dense_flops

LAYERS = ("encoded", "code", "decoded", "pixels")


class Autoencoder(Workload):
    path = "models/autoencoder.nn"
    cases = (("train", 64), ("infer", 64))
    optimizer = Adam(lr=0.001)
    inputs = ("image",)
    output = "pixels"

    def data(self, batch: int, random: np.random.Generator) -> Arrays:
        return {"image": random.random((batch, 784), np.float32)}

    def flops(self, kind: str, batch: int) -> int:
        return dense_flops((784, 256, 64, 256, 784), kind, batch)

    def torch(self) -> Torch:
        from torch import nn, sigmoid
        from torch.nn.functional import mse_loss, relu

        sizes = ((784, 256), (256, 64), (64, 256), (256, 784))
        model = nn.ModuleDict({n: nn.Linear(*s) for n, s in zip(LAYERS, sizes, strict=True)})

        def infer(image):
            code = relu(model["code"](relu(model["encoded"](image))))
            return sigmoid(model["pixels"](relu(model["decoded"](code)))), code

        def state(w):
            found = {f"{n}.weight": w[f"{n}.W"].T for n in LAYERS}
            return found | {f"{n}.bias": w[f"{n}.b"] for n in LAYERS}

        return Torch(model, infer, lambda image: mse_loss(infer(image)[0], image), state)

    def jax(self) -> Jax:
        from jax import nn
        from jax import numpy as jnp

        def infer(p, image):
            def dense(n, x):
                return x @ p[f"{n}.W"] + p[f"{n}.b"]

            code = nn.relu(dense("code", nn.relu(dense("encoded", image))))
            return nn.sigmoid(dense("pixels", nn.relu(dense("decoded", code)))), code

        return Jax(infer, loss=lambda p, image: jnp.mean((infer(p, image)[0] - image) ** 2))


WORKLOAD = Autoencoder()
