"""Parameters, which training changes, and states, which the model changes itself while it trains.

Both belong to the instance whose body declares them and are found again when it is applied again.
A state's new value holds from its assignment on, and is what the next training step begins with.
"""

from __future__ import annotations

from nncompiler.errors import Note, UserError
from nncompiler.ir.graph import Value
from nncompiler.ir.model import HEADER_OFFSETS
from nncompiler.ir.types import BOOL, DType, TensorType
from nncompiler.lang import syntax as s
from nncompiler.lang.elaborate.context import Context, Frame, fits
from nncompiler.lang.elaborate.expr import evaluate
from nncompiler.lang.elaborate.scope import check_bindable
from nncompiler.lang.elaborate.tensor import tensor
from nncompiler.lang.elaborate.types import concrete
from nncompiler.lang.elaborate.values import Argument, Initial, Parameter, describe, is_number


def check_free(name: s.Ident) -> None:
    """Names at the head of the saved state cannot be those of arguments."""
    if name.text in HEADER_OFFSETS:
        raise UserError("NN0106", f"`{name.text}` is the name of a value that training keeps",
                        name.span, help=f"choose another name, such as `{name.text}_1`")


def declare(ctx: Context, frame: Frame, node: s.Param | s.State) -> None:
    """Declare a parameter or state of the owner, or find it again on a further application."""
    check_bindable(node.name)
    name, owner = node.name.text, frame.owner
    word = "parameter" if isinstance(node, s.Param) else "state"
    _check_place(frame, node, word)
    type = concrete(ctx, node.type, lambda e: evaluate(ctx, frame, e))
    if type.dtype != ctx.dtype and word == "parameter":
        raise UserError("NN0183", f"expected a parameter of f32, but found {node.type.dtype.text}",
                        node.type.dtype.span,
                        help="parameters have the default float, f32; `--dtype f64` makes it f64")
    known = owner.parameters.get(name)
    if known is not None and known.span == node.span:
        if known.type != type:
            raise UserError(
                "NN0127", f"a shared layer's {word} `{name}` is {known.type}, but this use "
                f"needs {type}", node.span, help="apply one instance to equal sizes only, "
                "or make two instances")
    elif known is not None or (frame.record is not None and name in frame.record.spans):
        first = known.span if known else frame.record.spans[name]  # type: ignore[union-attr]
        raise UserError("NN0102", f"`{name}` is declared twice", node.name.span,
                        notes=[Note("first here", first)])
    else:
        known = _add(ctx, frame, node, word, type)
    frame.names[name] = ctx.current(known)
    if word == "state":
        frame.states[name] = known


def _check_place(frame: Frame, node: s.Param | s.State, word: str) -> None:
    if frame.owner.in_fn:
        raise UserError("NN0126", f"a fn has no {word}s, so it cannot make layers that have",
                        frame.owner.span, notes=[Note(f"the {word} is here", node.span)],
                        help="make the fn a layer, or make the instance outside and pass it")
    if frame.rounds:
        raise UserError("NN0126", f"a {word} cannot be declared in a loop", node.span,
                        help="declare it in a layer and make the layer in the loop")


def _add(ctx: Context, frame: Frame, node: s.Param | s.State, word: str,
         type: TensorType) -> Parameter:
    """A parameter or state met for the first time."""
    owner, name = frame.owner, node.name.text
    if frame.record is not None:
        check_free(node.name)
        frame.record.spans[name] = node.span
    group = ctx.parameters if word == "parameter" else ctx.states
    kind = "param" if word == "parameter" else "state"
    initial = _initial(ctx, frame, node, word, type)
    value = ctx.root.param(kind, f"#{kind}{len(group)}", type)
    found = Parameter(name, type, value, initial, node.span, owner.where or ctx.site)
    ctx.declare(value, node.span)
    group.append(found)
    owner.parameters[name] = found
    return found


def _initial(ctx: Context, frame: Frame, node: s.Param | s.State, word: str,
             type: TensorType) -> Initial:
    if node.initial is None:
        raise UserError("NN0180", f"the {word} `{node.name.text}` has no initial value",
                        node.span, help="write `= zeros()`" if word == "state" else
                        "write `= glorot_uniform()` for weights, `= zeros()` for biases")
    value = evaluate(ctx, frame, node.initial)
    if is_number(value):
        value = Initial("constant", (float(value),))  # type: ignore[arg-type]
    if not isinstance(value, Initial):
        raise UserError("NN0181", f"expected an initialiser for `{node.name.text}`, but found "
                        f"{describe(value)}", node.initial.span,
                        help="write `zeros()`, `glorot_uniform()`, `normal(0, 0.1)` or a number")
    if not type.dtype.is_float and not _whole(value, type.dtype):
        raise UserError("NN0199", f"expected a number that fits into {type.dtype} as the initial "
                        f"value of `{node.name.text}`, but found {describe(value)}",
                        node.initial.span, help="write `zeros()` or a whole number")
    return value


def _whole(initial: Initial, dtype: DType) -> bool:
    """Whether every element is one number that integers or truth values hold."""
    if initial.kind != "constant" or not initial.settings[0].is_integer():
        return False
    number = int(initial.settings[0])
    return number in (0, 1) if dtype == BOOL else fits(number, dtype)


def change(ctx: Context, state: Parameter, target: s.Ident, found: Argument) -> Value:
    """The new value of a state, kept for the next training step."""
    name = target.text
    if not ctx.training:
        raise UserError("NN0196", f"the state `{name}` is changed outside training", target.span,
                        notes=[Note("it is declared here", state.span)],
                        help="prediction and evaluation leave states as they are: write "
                             f"`if training {{ {name} = ... }}`, or bind another name")
    if ctx.b is not ctx.root:
        raise UserError("NN0197", f"the state `{name}` is changed inside a scan", target.span,
                        notes=[Note("it is declared here", state.span)],
                        help="apply the layer outside the scan, to all steps at once")
    value = tensor(ctx, found, state.type.dtype)
    if value.type != state.type:
        raise UserError("NN0198", f"the state `{name}` is {state.type}, but its new value is "
                        f"{value.type}", found.span,
                        notes=[Note("it is declared here", state.span)],
                        help="a state keeps its shape and element type")
    if value != state.value:
        ctx.updates[state] = value
    return value
