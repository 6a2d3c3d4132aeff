"""Two 3 x 3 convolutions with pooling and three dense layers, on grey images of 32 x 32."""

from __future__ import annotations

import numpy as np
from harness.workload import Arrays, Jax, Sgd, Torch, Workload, contraction_flops


class LeNet(Workload):
    path = "models/lenet.nn"
    cases = (("train", 64), ("infer", 1), ("infer", 64))
    optimizer = Sgd(lr=0.01, momentum=0.9)
    inputs = ("image",)
    output = "probs"

    def data(self, batch: int, random: np.random.Generator) -> Arrays:
        image = random.random((batch, 1, 32, 32), np.float32)
        return {"image": image, "digit": random.integers(0, 10, batch, np.int32)}

    def flops(self, kind: str, batch: int) -> int:
        first, second = 9 * 6 * 30 * 30, 9 * 6 * 16 * 13 * 13
        dense = (576 * 120, 120 * 84, 84 * 10)
        products = [batch * n for n in (first, second, *dense)]
        return contraction_flops(products, kind, products[0])

    def torch(self) -> Torch:
        from torch import nn
        from torch.nn.functional import cross_entropy, softmax

        model = nn.Sequential(
            nn.Conv2d(1, 6, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(576, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
        )  # fmt: skip
        convolutions = {"0": "conv2d1", "3": "conv2d2"}
        dense = {"7": "dense1", "9": "dense2", "11": "logits"}

        def state(w):
            found = {f"{k}.weight": w[f"{n}.W"] for k, n in convolutions.items()}
            found |= {f"{k}.weight": w[f"{n}.W"].T for k, n in dense.items()}
            return found | {f"{k}.bias": w[f"{n}.b"] for k, n in (convolutions | dense).items()}

        return Torch(
            model,
            infer=lambda image: softmax(model(image), dim=1),
            loss=lambda image, digit: cross_entropy(model(image), digit),
            state=state,
        )

    def jax(self) -> Jax:
        from jax import lax, nn
        from jax import numpy as jnp

        def block(p, n, x):
            y = lax.conv_general_dilated(x, p[f"{n}.W"], (1, 1), "VALID")
            y = nn.relu(y + p[f"{n}.b"][:, None, None])
            return lax.reduce_window(y, -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")

        def logits(p, image):
            x = block(p, "conv2d2", block(p, "conv2d1", image)).reshape(image.shape[0], -1)
            for n in ("dense1", "dense2"):
                x = nn.relu(x @ p[f"{n}.W"] + p[f"{n}.b"])
            return x @ p["logits.W"] + p["logits.b"]

        def loss(p, image, digit):
            logs = nn.log_softmax(logits(p, image))
            return -jnp.mean(jnp.take_along_axis(logs, digit[:, None], axis=1))

        return Jax(infer=lambda p, image: nn.softmax(logits(p, image)), loss=loss)


WORKLOAD = LeNet()
