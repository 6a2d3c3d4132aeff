"""4 blocks of 4 heads over 128 features and 64 characters, Adam: a transformer that looks back."""

from __future__ import annotations

import numpy as np
from harness.workload import Adam, Arrays, Jax, Torch, Workload, contraction_flops

SYMBOLS, DIM, HEADS, BLOCKS, TIME = 96, 128, 4, 4, 64


class Gpt(Workload):
    path = "models/gpt.nn"
    cases = (("train", 8), ("infer", 1))
    optimizer = Adam(lr=0.001)
    inputs = ("text",)
    output = "probs"

    def data(self, batch: int, random: np.random.Generator) -> Arrays:
        return {n: random.integers(0, SYMBOLS, (batch, TIME), np.int32)
                for n in ("text", "following")}  # fmt: skip

    def flops(self, kind: str, batch: int) -> int:
        """Attention with all its products: a step that leaves out what is masked needs less."""
        dense = BLOCKS * (4 * DIM * DIM + 2 * DIM * 4 * DIM) + DIM * SYMBOLS
        attention = BLOCKS * 2 * TIME * DIM
        return contraction_flops([batch * TIME * (dense + attention)], kind)

    def torch(self) -> Torch:
        from torch import nn
        from torch.nn import functional as F

        class Block(nn.Module):
            def __init__(self):
                super().__init__()
                self.norm1, self.norm2 = nn.LayerNorm(DIM), nn.LayerNorm(DIM)
                self.qkv, self.o = nn.Linear(DIM, 3 * DIM), nn.Linear(DIM, DIM)
                self.up, self.down = nn.Linear(DIM, 4 * DIM), nn.Linear(4 * DIM, DIM)

            def forward(self, x):
                b, t, _ = x.shape
                parts = self.qkv(self.norm1(x)).view(b, t, 3, HEADS, DIM // HEADS)
                q, k, v = parts.permute(2, 0, 3, 1, 4)
                y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
                x = x + self.o(y.transpose(1, 2).reshape(b, t, DIM))
                return x + self.down(F.gelu(self.up(self.norm2(x))))

        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.symbols, self.places = nn.Embedding(SYMBOLS, DIM), nn.Embedding(TIME, DIM)
                self.blocks = nn.Sequential(*(Block() for _ in range(BLOCKS)))
                self.norm, self.head = nn.LayerNorm(DIM), nn.Linear(DIM, SYMBOLS, bias=False)

            def forward(self, text):
                x = self.symbols(text) + self.places.weight[: text.shape[1]]
                return self.head(self.norm(self.blocks(x)))

        model = Model()

        def loss(text, following):
            return F.cross_entropy(model(text).flatten(0, 1), following.flatten())

        return Torch(model, lambda text: F.softmax(model(text), dim=-1), loss, torch_state)

    def jax(self) -> Jax:
        from jax import nn
        from jax import numpy as jnp

        def norm(p, n, x):
            y = x - jnp.mean(x, axis=-1, keepdims=True)
            scale = 1 / jnp.sqrt(jnp.mean(y * y, axis=-1, keepdims=True) + 1e-5)
            return y * scale * p[f"{n}.gain"] + p[f"{n}.shift"]

        def dense(p, n, x):
            return x @ p[f"{n}.W"] + p[f"{n}.b"]

        def attention(p, n, x):
            b, t, _ = x.shape
            q, k, v = (dense(p, f"{n}.{c}", x).reshape(b, t, HEADS, -1) for c in "qkv")
            scores = jnp.einsum("bihd,bjhd->bhij", q, k) * (DIM // HEADS) ** -0.5
            scores = jnp.where(jnp.tril(jnp.ones((t, t), bool)), scores, -1e30)
            mixed = jnp.einsum("bhij,bjhd->bihd", nn.softmax(scores), v)
            return dense(p, f"{n}.o", mixed.reshape(b, t, DIM))

        def logits(p, text):
            x = p["symbols.W"][text] + p["places.W"][: text.shape[1]]
            for n in (f"block[{i}]" for i in range(BLOCKS)):
                x = x + attention(p, f"{n}.attn", norm(p, f"{n}.norm1", x))
                h = dense(p, f"{n}.mlp.up", norm(p, f"{n}.norm2", x))
                x = x + dense(p, f"{n}.mlp.down", nn.gelu(h, approximate=False))
            return norm(p, "norm", x) @ p["head.W"]

        def loss(p, text, following):
            logs = nn.log_softmax(logits(p, text))
            return -jnp.mean(jnp.take_along_axis(logs, following[..., None], axis=-1))

        return Jax(infer=lambda p, text: nn.softmax(logits(p, text)), loss=loss)


def torch_state(w):
    found = {"symbols.weight": w["symbols.W"], "places.weight": w["places.W"]}
    found |= {"norm.weight": w["norm.gain"], "norm.bias": w["norm.shift"]}
    found["head.weight"] = w["head.W"].T
    for i in range(BLOCKS):
        ours, theirs = f"block[{i}]", f"blocks.{i}"
        for k in (1, 2):
            found[f"{theirs}.norm{k}.weight"] = w[f"{ours}.norm{k}.gain"]
            found[f"{theirs}.norm{k}.bias"] = w[f"{ours}.norm{k}.shift"]
        for kind, part in (("W", "weight"), ("b", "bias")):
            three = [w[f"{ours}.attn.{n}.{kind}"].T for n in "qkv"]
            found[f"{theirs}.qkv.{part}"] = np.concatenate(three)
            for n, m in (("o", "attn.o"), ("up", "mlp.up"), ("down", "mlp.down")):
                found[f"{theirs}.{n}.{part}"] = w[f"{ours}.{m}.{kind}"].T
    return found


WORKLOAD = Gpt()
