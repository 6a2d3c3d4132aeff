"""96-64-256-96 over 64 characters, Adam with clipping: an LSTM, character by character."""

from __future__ import annotations

import numpy as np
from harness.workload import Adam, Arrays, Jax, Torch, Workload, contraction_flops

SYMBOLS, DIM, UNITS, TIME = 96, 64, 256, 64


class CharLstm(Workload):
    path = "models/char_lstm.nn"
    cases = (("train", 32), ("infer", 1))
    optimizer = Adam(lr=0.002, clip_norm=5.0)
    inputs = ("text",)
    output = "probs"

    def data(self, batch: int, random: np.random.Generator) -> Arrays:
        return {n: random.integers(0, SYMBOLS, (batch, TIME), np.int32)
                for n in ("text", "following")}  # fmt: skip

    def flops(self, kind: str, batch: int) -> int:
        each = (DIM * 4 * UNITS, UNITS * 4 * UNITS, UNITS * SYMBOLS)
        return contraction_flops([batch * TIME * n for n in each], kind)

    def torch(self) -> Torch:
        from torch import nn
        from torch.nn.functional import cross_entropy, softmax

        model = nn.ModuleDict({
            "embed": nn.Embedding(SYMBOLS, DIM),
            "cell": nn.LSTM(DIM, UNITS, batch_first=True), "head": nn.Linear(UNITS, SYMBOLS),
        })  # fmt: skip
        model["cell"].bias_hh_l0.requires_grad_(False)  # ours has one bias

        def logits(text):
            return model["head"](model["cell"](model["embed"](text))[0])

        def state(w):
            return {
                "embed.weight": w["embed.W"],
                "cell.weight_ih_l0": w["cell.Wx"].T, "cell.weight_hh_l0": w["cell.Wh"].T,
                "cell.bias_ih_l0": w["cell.b"], "cell.bias_hh_l0": np.zeros_like(w["cell.b"]),
                "head.weight": w["head.W"].T, "head.bias": w["head.b"],
            }  # fmt: skip

        def loss(text, following):
            return cross_entropy(logits(text).flatten(0, 1), following.flatten())

        return Torch(model, lambda text: softmax(logits(text), dim=-1), loss, state)

    def jax(self) -> Jax:
        from jax import lax, nn
        from jax import numpy as jnp

        def logits(p, text):
            xs = p["embed.W"][text] @ p["cell.Wx"] + p["cell.b"]

            def step(carry, x):
                h, c = carry
                i, f, g, o = jnp.split(x + h @ p["cell.Wh"], 4, axis=1)
                c = nn.sigmoid(f) * c + nn.sigmoid(i) * jnp.tanh(g)
                h = nn.sigmoid(o) * jnp.tanh(c)
                return (h, c), h

            zeros = jnp.zeros((text.shape[0], UNITS), jnp.float32)
            _, hs = lax.scan(step, (zeros, zeros), xs.transpose(1, 0, 2))
            return hs.transpose(1, 0, 2) @ p["head.W"] + p["head.b"]

        def loss(p, text, following):
            logs = nn.log_softmax(logits(p, text))
            return -jnp.mean(jnp.take_along_axis(logs, following[..., None], axis=-1))

        return Jax(infer=lambda p, text: nn.softmax(logits(p, text)), loss=loss)


WORKLOAD = CharLstm()
