"""What is checked of a model as a whole, after its body has run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from nncompiler.errors import Note, UserError
from nncompiler.ir.graph import Function
from nncompiler.lang import syntax as s
from nncompiler.lang.elaborate.context import Context, Record
from nncompiler.lang.elaborate.values import Instance, Parameter


class Run(Protocol):
    """A run of the model's body (`elaborate.Run`)."""

    @property
    def ctx(self) -> Context: ...
    @property
    def record(self) -> Record: ...
    @property
    def root(self) -> Instance: ...
    @property
    def parameters(self) -> list[tuple[str, Parameter]]: ...
    @property
    def states(self) -> list[tuple[str, Parameter]]: ...


def check_interface(model: s.Model, plain: Run, trained: Run) -> None:
    """`training` may change what is computed, not what the model has."""
    groups = ("inputs", "targets", "outputs", "losses", "metrics")
    differ = [g for g in groups if _types(getattr(plain.record, g))
              != _types(getattr(trained.record, g))]
    if [(n, p.type) for n, p in plain.parameters] != [(n, p.type) for n, p in trained.parameters]:
        differ.append("parameters")
    if [(n, p.type) for n, p in plain.states] != [(n, p.type) for n, p in trained.states]:
        differ.append("states")
    if differ:
        raise UserError("NN0189", f"the {differ[0]} of the model differ when `training` is true",
                        model.span, help="declare the same ones in both cases")


def _types(group: Mapping[str, object]) -> list[object]:
    return [(n, getattr(v, "type", None)) for n, v in group.items()]


def check_use(run: Run, functions: Sequence[Function], objective: Function,
              train: s.Train | None) -> None:
    """Everything declared is read by an output, a loss or a metric."""
    read = {v.name for f in functions for node in f.nodes for v in node.inputs}
    read |= {v.name for f in functions for _, v in f.results}
    record = run.record
    for kind, group, code in (("input", record.inputs, "NN0176"),
                              ("target", record.targets, "NN0177")):
        for name in group:
            if name not in read:
                raise UserError(code, f"the {kind} `{name}` is never used", record.spans[name],
                                help="remove it: no output, loss or metric depends on it"
                                if kind == "input" else
                                "compare it with an output in a `loss` or a `metric`")
    for instance in run.root.children.values():
        if instance.explicit and not instance.applied:
            raise UserError("NN0105", f"the layer `{instance.explicit}` is never applied",
                            instance.span, help=f"write `x |> {instance.explicit}`, or remove it")
    for name, p in run.parameters:
        if name not in read:
            raise UserError("NN0178", f"the parameter `{name}` is never used", p.where or p.span,
                            help="no output, loss or metric depends on it; remove it")
    for name, p in run.states:
        if name not in read:
            raise UserError("NN0178", f"the state `{name}` is never used", p.where or p.span,
                            help="nothing depends on its value; remove it")
    if train is None:
        return
    if not record.losses:
        raise UserError("NN0201", "there is a train block, but the model has no loss", train.span,
                        help="write `loss mse(prediction, target)` in the model")
    if not objective.params_of("param"):
        name = next(iter(record.losses))
        raise UserError("NN0211", f"the loss `{name}` depends on no parameter, so there is "
                        "nothing to train", record.spans[name],
                        notes=[Note("training is asked for here", train.span)])


def check_parameter_sizes(run: Run, doubled: Run | None, free: Sequence[str]) -> None:
    """A parameter is the same in every binding of the free sizes."""
    if doubled is None:
        return
    others = dict(doubled.parameters)
    for name, p in run.parameters:
        other = others.get(name)
        if other is not None and other.type != p.type:
            sizes = " or ".join(f"`{n}`" for n in free)
            raise UserError(
                "NN0182", f"the size of the parameter `{name}` depends on {sizes}",
                p.where or p.span,
                notes=[Note(f"it is {p.type}, and {other.type} when {sizes} is twice as large")],
                help="a parameter is the same for every batch; check the order of the axes")
