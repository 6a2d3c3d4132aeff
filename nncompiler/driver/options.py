"""What is asked of a compilation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from nncompiler.errors import UserError, nearest
from nncompiler.ir.types import Array
from nncompiler.passes.manager import Hook, Pass
from nncompiler.passes.pipelines import OPTIMISE
from nncompiler.record import dataclass

if TYPE_CHECKING:
    from nncompiler.driver.tuning import Tuner

#: Functions of a compiled model, in ABI order; `init` and `apply` do not depend on the free sizes.
FUNCTIONS = ("init", "infer", "loss", "grad", "input_grad", "train_step", "apply")
#: Those that are compiled only where they are named: most models do without.
NAMED = ("input_grad",)
UNBOUND = ("init", "apply")
#: Those that a frozen model can have, the first by default.
FROZEN = ("infer", "loss")


@dataclass(frozen=True, slots=True)
class Options:
    """What changes the code besides the source: float type, target, pipeline, whether all
    convolutions stay `direct` (`passes.arithmetic.winograd`), functions wanted.

    `functions` None means all that the network has but `NAMED`; one that is named must be there.
    With a `tuner` the clock chooses register tiles.
    `frozen` are values by name for all parameters and states: they are constants, and `infer` (and
    `loss`, where it is named) is all there is.
    """

    dtype: str = "f32"
    cpu: str = "host"
    pipeline: tuple[Pass, ...] = OPTIMISE
    direct: bool = False
    functions: tuple[str, ...] | None = None
    hooks: tuple[Hook, ...] = ()
    stop_after: str | None = None
    frozen: Mapping[str, Array] | None = None
    tuner: Tuner | None = None


def check_functions(names: Iterable[str]) -> tuple[str, ...]:
    """Names of functions in ABI order; `UserError` NN0902 for an unknown one."""
    wanted = set(names)
    for name in sorted(wanted - set(FUNCTIONS)):
        close = nearest(name, FUNCTIONS)
        raise UserError(
            "NN0902",
            f"no function of a model is called '{name}'",
            help=f"did you mean '{close}'?" if close else f"functions: {', '.join(FUNCTIONS)}",
        )
    return tuple(f for f in FUNCTIONS if f in wanted)
