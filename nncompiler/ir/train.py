"""How a network is trained, as data: the `train` block of a `.nn` file after elaboration."""

from __future__ import annotations

from nncompiler.record import dataclass

OPTIMIZERS = ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw")
SCHEDULES = ("constant", "step", "exponential", "cosine")
#: Rows of a step where neither the file nor the compilation says.
DEFAULT_BATCH = 32


@dataclass(frozen=True, slots=True)
class OptimizerSpec:
    """An optimizer and its hyper-parameters (`lr`, `momentum`, `rho`, `beta1`, `beta2`, `eps`,
    `weight_decay`)."""

    kind: str
    settings: tuple[tuple[str, float], ...]

    def get(self, name: str, default: float = 0.0) -> float:
        return dict(self.settings).get(name, default)


@dataclass(frozen=True, slots=True)
class ScheduleSpec:
    """A factor on the learning rate as a function of the step (counted from 0).

    `step`: gamma ** (step // every). `exponential`: gamma ** (step / every). `cosine`: from 1
    down to `floor` over
    `total` steps. All after a linear warm-up over `warmup` steps where that is not 0.
    """

    kind: str = "constant"
    settings: tuple[tuple[str, float], ...] = ()

    def get(self, name: str, default: float = 0.0) -> float:
        return dict(self.settings).get(name, default)


@dataclass(frozen=True, slots=True)
class Objective:
    """Minimise the loss called `loss` over the parameters whose names begin with `prefix`, up to
    a dot or a bracket (all where empty)."""

    loss: str
    prefix: str = ""

    def covers(self, name: str) -> bool:
        rest = name.removeprefix(self.prefix)
        return not self.prefix or rest == "" or (rest != name and rest[0] in ".[")


@dataclass(frozen=True, slots=True)
class TrainSpec:
    """`l1` and `l2` apply to parameters of rank >= 2; `clip_norm` and `clip_value` are off where
    0.

    The parameters called in `frozen` are not trained; `rates` has a factor on the learning rate by
    parameter. An update takes the mean gradient of `accumulate` micro-batches. `ema` is the decay
    of the moving average of the weights, which is not kept where 0.
    With `recompute` the backward pass of a loop computes again what it reads of the forward pass.
    """

    optimizer: OptimizerSpec
    schedule: ScheduleSpec = ScheduleSpec()
    batch: int = DEFAULT_BATCH
    epochs: int = 10
    l1: float = 0.0
    l2: float = 0.0
    recompute: bool = False
    clip_norm: float = 0.0
    clip_value: float = 0.0
    objectives: tuple[Objective, ...] = ()
    frozen: tuple[str, ...] = ()
    rates: tuple[tuple[str, float], ...] = ()
    accumulate: int = 1
    ema: float = 0.0
