"""PyTorch: the module, `backward` and an optimizer of `torch.optim`; eager, and compiled."""

from __future__ import annotations

import copy
import itertools
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch

from harness.implementation import Implementation, trial
from harness.workload import Adam, Array, Arrays, Optimizer, Torch, Workload

#: The ways to run an optimizer on the CPU; which is fastest depends on the model.
VARIANTS = {"fused": {"fused": True}, "for each": {"foreach": True}, "single": {"foreach": False}}
FORMATS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}
Step = Callable[[], None]


class Eager(Implementation):
    """Inference runs in inference mode. The fastest form of optimizer and layout is chosen."""

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        torch.set_num_threads(threads)
        torch.set_num_interop_threads(1)

    def versions(self) -> dict[str, str]:
        return {"torch": torch.__version__}

    def prepare(
        self, workload: Workload, kind: str, batch: int, weights: Arrays | None, data: Arrays,
        onnx: str,
    ) -> str:  # fmt: skip
        assert weights is not None
        self.made, self.training = workload.torch(), kind == "train"
        self.module = self.made.module
        load(self.made, weights)
        self.module.train(self.training)
        self.initial = copy.deepcopy(self.module.state_dict())
        images = any(array.ndim == 4 for array in data.values())
        formats = list(FORMATS) if images else ["NCHW"]
        variants = list(VARIANTS) if self.training else [""]
        names = data if self.training else workload.inputs
        self.given = {n: tensor(data[n]) for n in names}

        def make(variant: str, layout: str) -> Step:
            self.module.load_state_dict(self.initial)
            self.module.to(memory_format=FORMATS[layout])
            given = {n: laid_out(t, layout) for n, t in self.given.items()}
            if self.training:
                return self.training_step(self.made.loss, workload.optimizer, variant, given)
            return self.inference(self.made.infer, given)

        choices = list(itertools.product(variants, formats))
        if len(choices) > 1:
            with self.context():
                choices.sort(key=lambda c: trial(make(*c)))
        variant, layout = choices[0]
        self.call = self.chosen(make, variant, layout)
        return ", ".join([f"{variant} optimizer"] * bool(variant) + [layout] * images)

    def chosen(self, make: Callable[[str, str], Step], variant: str, layout: str) -> Step:
        return make(variant, layout)

    def inference(self, infer: Callable[..., Any], given: dict[str, torch.Tensor]) -> Step:
        def call() -> None:
            self.last = infer(**given)

        return call

    def training_step(
        self, loss_of: Callable[..., Any], optimizer: Optimizer, variant: str,
        given: dict[str, torch.Tensor],
    ) -> Step:  # fmt: skip
        parameters = [p for p in self.module.parameters() if p.requires_grad]
        options = VARIANTS[variant]
        if isinstance(optimizer, Adam):
            betas = optimizer.beta1, optimizer.beta2
            made: Any = torch.optim.Adam(
                parameters, optimizer.lr, betas, optimizer.eps, **options
            )
        else:
            made = torch.optim.SGD(parameters, optimizer.lr, optimizer.momentum, **options)
        limit = optimizer.clip_norm if isinstance(optimizer, Adam) else None
        self.optimizer = made

        def step() -> None:
            made.zero_grad()
            loss = loss_of(**given)
            loss.backward()
            if limit is not None:
                torch.nn.utils.clip_grad_norm_(parameters, limit)
            made.step()
            self.last = loss

        return step

    def reset(self) -> None:
        self.module.load_state_dict(self.initial)
        if self.training:
            self.optimizer.state.clear()

    def value(self) -> Array:
        first = self.last[0] if isinstance(self.last, tuple) else self.last
        return np.array(first.detach().numpy())

    def context(self) -> AbstractContextManager[object]:
        return nullcontext() if self.training else torch.inference_mode()


class Compiled(Eager):
    """`torch.compile` of the loss, or of inference with its weights frozen, in the form that was
    fastest eagerly."""

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        if shutil.which("g++") is None:
            raise RuntimeError("expected a C++ compiler, but there is no g++")

    def chosen(self, make: Callable[[str, str], Step], variant: str, layout: str) -> Step:
        from torch._inductor import config

        torch._dynamo.reset()
        config.freezing = not self.training
        name = "loss" if self.training else "infer"
        compiled: Any = torch.compile(getattr(self.made, name), dynamic=False)
        self.made = Torch(
            self.module, compiled if name == "infer" else self.made.infer,
            compiled if name == "loss" else self.made.loss, self.made.state,
        )  # fmt: skip
        step = make(variant, layout)
        with self.context():
            step()
        return step


def load(made: Torch, weights: Arrays) -> None:
    """Our parameters into the module."""
    arrays = made.state(weights)
    made.module.load_state_dict({n: torch.from_numpy(np.array(a)) for n, a in arrays.items()})


def tensor(array: Array) -> torch.Tensor:
    found = torch.from_numpy(array)
    return found if found.is_floating_point() else found.long()


def laid_out(given: torch.Tensor, layout: str) -> torch.Tensor:
    return given.contiguous(memory_format=FORMATS[layout]) if given.dim() == 4 else given
