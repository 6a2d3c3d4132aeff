"""PyTorch, eager: the module, `backward` and an optimizer of `torch.optim`."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch

from harness.implementation import Implementation
from harness.workload import Array, Arrays, Sgd, Torch, Workload

#: The ways to run an optimizer on the CPU; which is fastest depends on the model.
VARIANTS = {"fused": {"fused": True}, "for each": {"foreach": True}, "single": {"foreach": False}}


class TorchEager(Implementation):
    """Inference runs in inference mode; for training the fastest form of optimizer is chosen."""

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        torch.set_num_threads(threads)
        torch.set_num_interop_threads(1)

    def versions(self) -> dict[str, str]:
        return {"torch": torch.__version__}

    def prepare(
        self, workload: Workload, kind: str, batch: int, weights: Arrays | None, data: Arrays
    ) -> str:
        made, self.training = workload.torch(), kind == "train"
        assert weights is not None
        state = {n: torch.from_numpy(a.copy()) for n, a in made.state(weights).items()}
        made.module.load_state_dict(state)
        made.module.train(self.training)
        self.module, self.initial = made.module, copy.deepcopy(made.module.state_dict())
        given = {n: self.tensor(a) for n, a in data.items()}
        if self.training:
            return self.prepare_training(made, workload.optimizer, given)
        inputs = {n: given[n] for n in workload.inputs}

        def call() -> None:
            self.last = made.infer(*inputs.values())

        self.call = call
        return ""

    def tensor(self, array: Array) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        return tensor if tensor.is_floating_point() else tensor.long()

    def prepare_training(self, made: Torch, optimizer: Sgd, given: dict[str, torch.Tensor]) -> str:
        def step_with(variant: str) -> Callable[[], None]:
            made.module.load_state_dict(self.initial)
            chosen = torch.optim.SGD(
                made.module.parameters(), optimizer.lr, optimizer.momentum, **VARIANTS[variant]
            )

            def step() -> None:
                chosen.zero_grad()
                loss = made.loss(**given)
                loss.backward()
                chosen.step()
                self.last = loss

            self.optimizer = chosen
            return step

        times = {variant: trial(step_with(variant)) for variant in VARIANTS}
        best = min(times, key=times.__getitem__)
        self.call = step_with(best)
        return f"{best} optimizer"

    def reset(self) -> None:
        self.module.load_state_dict(self.initial)
        if self.training:
            self.optimizer.state.clear()

    def value(self) -> Array:
        return np.array(self.last.detach().numpy())

    def context(self) -> AbstractContextManager[object]:
        return nullcontext() if self.training else torch.inference_mode()


def trial(step: Callable[[], None], rounds: int = 5, seconds: float = 0.02) -> float:
    """Seconds for one step: the fastest of a few short rounds."""
    step()
    best = float("inf")
    for _ in range(rounds):
        start, calls = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            step()
            calls += 1
        best = min(best, (time.perf_counter() - start) / calls)
    return best
