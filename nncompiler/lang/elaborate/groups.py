"""Groups of parameters in the `train` block: the settings `frozen` and `rates`.

A pattern is the beginning of names up to a `.` or `[`, as `encoder` is of `encoder.W`; in it `*`
stands for any characters, as in `*.b`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from nncompiler.errors import UserError, nearest
from nncompiler.ir.train import Objective
from nncompiler.lang import syntax as s
from nncompiler.lang.elaborate.builtin import define, number
from nncompiler.lang.elaborate.context import Context
from nncompiler.lang.elaborate.values import (
    Argument,
    Arguments,
    Builtin,
    Settings,
    Tuple,
    V,
    describe,
)

RATES: list[Builtin] = []


@define(RATES, "rate(names, factor)",
        "a factor on the learning rate of the parameters whose names begin so",
        "rate(\"head\", 10)", "rate")
def _rate(ctx: Context, a: Arguments) -> V:
    factor = number(a["factor"], "`factor`")
    if not 0 <= factor <= 1e30:
        raise UserError("NN0205", f"expected `factor` from 0 up, but found {factor:g}",
                        a["factor"].span)
    if not isinstance(a["names"].value, str):
        raise _no_pattern(a["names"])
    return Settings("rate", a["names"].value, (("factor", factor),))


def frozen(found: Argument | None, parameters: Sequence[str]) -> tuple[str, ...]:
    """The parameters that the setting `frozen` names."""
    named: dict[str, None] = {}
    for value in _items(found):
        if not isinstance(value.value, str):
            raise _no_pattern(value)
        named.update(dict.fromkeys(_matching(value.value, value, parameters)))
    return tuple(p for p in parameters if p in named)


def rates(found: Argument | None, parameters: Sequence[str]) -> tuple[tuple[str, float], ...]:
    """The factor of each parameter that the setting `rates` names; of several, the last."""
    factors: dict[str, float] = {}
    for value in _items(found):
        given = value.value
        if not isinstance(given, Settings) or given.family != "rate":
            raise UserError("NN0213", f"expected a rate, but found {describe(given)}", value.span,
                            help="write `rates = [rate(\"head\", 10)]`")
        names = _matching(given.kind, value, parameters)
        factors.update(dict.fromkeys(names, dict(given.settings)["factor"]))
    return tuple((p, factors[p]) for p in parameters if p in factors)


def _items(found: Argument | None) -> list[Argument]:
    if found is None:
        return []
    values = found.value.items if isinstance(found.value, Tuple) else (found.value,)
    return [Argument(v, found.span) for v in values]


def _no_pattern(found: Argument) -> UserError:
    return UserError("NN0213", "expected the beginning of names of parameters as a string, but "
                     f"found {describe(found.value)}", found.span,
                     help="write `frozen = [\"encoder\"]`")


def _matching(pattern: str, found: Argument, parameters: Sequence[str]) -> list[str]:
    form = re.compile(".*".join(map(re.escape, pattern.split("*"))) + r"([.\[].*)?")
    names = [p for p in parameters if form.fullmatch(p)]
    if not names:
        heads = sorted({p.split(".")[0] for p in parameters})
        close = nearest(pattern, [*heads, *parameters])
        raise UserError("NN0210", f"no parameter's name begins with `{pattern}`", found.span,
                        help=f"did you mean `{close}`?" if close else
                        f"parameters begin with {', '.join(heads)}")
    return names


def check_trained(train: s.Train, objectives: Sequence[Objective], parameters: Sequence[str],
                  fixed: Sequence[str], accumulate: int) -> None:
    """Each objective has something to train; with accumulation, nothing that another has."""
    owner: dict[str, str] = {}
    for objective in objectives or (Objective(""),):
        names = [p for p in parameters if objective.covers(p) and p not in fixed]
        if not names:
            which = f" that `{objective.loss}` is minimised over" if objective.loss else ""
            raise UserError("NN0214", f"all parameters{which} are frozen", train.span,
                            help="name fewer of them in `frozen`")
        for name in names if accumulate > 1 else ():
            if name in owner:
                raise UserError("NN0215", f"the gradients of `{owner[name]}` and "
                                f"`{objective.loss}` for `{name}` cannot both be accumulated",
                                train.span, help="minimise one loss over each parameter, or the "
                                "sum of both")
            owner[name] = objective.loss
