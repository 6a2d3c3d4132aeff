"""A parsed file and its free sizes -> `Network`, with `init`, `infer`, `loss` and `objective`.

The model's body runs once with `training` false and, if anything asks for `training`, once with it
true. Each run makes one graph; a function of the network is the part of it that its results need.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from nncompiler.errors import Note, UserError
from nncompiler.ir.graph import Builder, Function, Value
from nncompiler.ir.model import Network
from nncompiler.ir.types import F32, DType, TensorType
from nncompiler.lang import syntax as s
from nncompiler.lang.elaborate.body import execute
from nncompiler.lang.elaborate.checks import check_interface, check_parameter_sizes, check_use
from nncompiler.lang.elaborate.context import Context, Frame, Record
from nncompiler.lang.elaborate.expr import evaluate
from nncompiler.lang.elaborate.imports import module_of
from nncompiler.lang.elaborate.init import init_function
from nncompiler.lang.elaborate.names import binding_counts, bound_names, parameter_names
from nncompiler.lang.elaborate.scope import check_bindable
from nncompiler.lang.elaborate.sizes import bind_sizes, free_sizes, model_of
from nncompiler.lang.elaborate.train import train_spec
from nncompiler.lang.elaborate.values import Instance, Module, Parameter, V
from nncompiler.record import dataclass

#: Deep enough for MAX_DEPTH expressions; Python's default is not.
_RECURSION = 12_000


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the model's body."""

    ctx: Context
    record: Record
    root: Instance
    names: dict[int, str]

    @property
    def parameters(self) -> list[tuple[str, Parameter]]:
        return [(self.names[id(p)], p) for p in self.ctx.parameters]

    @property
    def states(self) -> list[tuple[str, Parameter]]:
        return [(self.names[id(p)], p) for p in self.ctx.states]

    @property
    def updates(self) -> dict[str, Value]:
        """The new value of every state that training changes."""
        found = {n: self.ctx.updates.get(p) for n, p in self.states}
        return {f"update.{n}": v for n, v in found.items() if v is not None}


def elaborate(file: s.File, *, sizes: Mapping[str, int] | None = None,
              dtype: DType = F32) -> Network:
    """The network that `file` describes for one binding of its free sizes."""
    with _deep_recursion():
        return _elaborate(file, dict(sizes or {}), dtype)


def interface(file: s.File, *, sizes: Mapping[str, int] | None = None,
              dtype: DType = F32) -> dict[str, TensorType]:
    """The types of inputs, targets and outputs under some sizes: what is cheap of `elaborate`.

    A statement that does not fit these sizes is left out, with what follows from it: of a model
    that is written for one batch, the inputs are still known.
    """
    with _deep_recursion():
        model = model_of(file)
        bound = bind_sizes(file, _train(file), dict(sizes or {}), _context(dtype))
        ctx, frame = _frame(model, module_of(file), bound, dtype, training=False)
        for statement in model.body:
            try:
                execute(ctx, frame, [statement])
            except UserError:
                for name in bound_names(statement):
                    frame.names.pop(name, None)
        assert frame.record is not None
        return _interface(frame.record)


def _interface(record: Record) -> dict[str, TensorType]:
    groups = (record.inputs, record.targets, record.outputs)
    return {name: value.type for group in groups for name, value in group.items()}


def _train(file: s.File) -> s.Train | None:
    return next((i for i in file.items if isinstance(i, s.Train)), None)


@contextmanager
def _deep_recursion() -> Iterator[None]:
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, _RECURSION))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def _elaborate(file: s.File, sizes: dict[str, int], dtype: DType) -> Network:
    model, module = model_of(file), module_of(file)
    train = _train(file)
    bound = bind_sizes(file, train, sizes, _context(dtype))
    plain = _run(model, module, bound, dtype, training=False)
    trained = plain
    if plain.ctx.training_read:
        trained = _run(model, module, bound, dtype, training=True)
        check_interface(model, plain, trained)
    record = plain.record
    if not record.outputs and not record.losses:
        raise UserError("NN0175", f"the model `{model.name.text}` has no output and no loss",
                        model.span, help="write `output NAME = ...`")
    infer = _extract(plain, "infer", record.outputs, targets=False)
    loss = _extract(plain, "loss", {**record.losses, **record.metrics})
    objective = _extract(trained, "objective", {**trained.record.losses, **trained.updates})
    check_use(plain, [infer, loss, objective], objective, train)
    free = free_sizes(file)
    doubled = _doubled(model, module, bound, free, dtype)
    check_parameter_sizes(plain, doubled, free)
    names = [name for name, _ in plain.parameters]
    return Network(
        name=model.name.text,
        source=file.span.file,
        dtype=dtype,
        sizes=tuple((n, bound[n]) for n in (*free, *sorted(sizes.keys() - set(free)))),
        inputs=tuple((n, v.type) for n, v in record.inputs.items()),
        targets=tuple((n, v.type) for n, v in record.targets.items()),
        outputs=tuple((n, v.type) for n, v in record.outputs.items()),
        losses=tuple(record.losses),
        metrics=tuple(record.metrics),
        parameters=tuple((n, p.type) for n, p in plain.parameters),
        states=tuple((n, p.type) for n, p in plain.states),
        functions=(init_function([*plain.parameters, *plain.states]), infer, loss, objective),
        train=train_spec(_context(dtype), train, list(record.losses), names)
        if train else None,
        parameter_spans=tuple((n, p.where or p.span) for n, p in plain.parameters),
        doubled=tuple(_interface(doubled.record).items())
        if doubled and free == ("batch",) else (),
    )


# Sizes ------------------------------------------------------------------------------------------


def _doubled(model: s.Model, module: Module, bound: dict[str, int], free: Sequence[str],
             dtype: DType) -> Run | None:
    """The same model with every free size twice as large, to see what follows them."""
    if not free:
        return None
    larger = {n: v * 2 if n in free else v for n, v in bound.items()}
    try:
        return _run(model, module, larger, dtype, training=False)
    except UserError:
        return None  # It is right as it stands; that other sizes do not fit is no mistake.


# Running ----------------------------------------------------------------------------------------


def _context(dtype: DType, training: bool = False) -> Context:
    return Context(dtype, training, execute)


def _run(model: s.Model, module: Module, sizes: dict[str, int], dtype: DType, *,
         training: bool) -> Run:
    ctx, frame = _frame(model, module, sizes, dtype, training=training)
    execute(ctx, frame, model.body)
    assert frame.record is not None
    return Run(ctx, frame.record, frame.owner, parameter_names(frame.owner))


def _frame(model: s.Model, module: Module, sizes: dict[str, int], dtype: DType, *,
           training: bool) -> tuple[Context, Frame]:
    """Where the model's body runs: sizes and settings have values."""
    ctx = _context(dtype, training)
    root = Instance(None, model.span, None)
    frame = Frame(module, root, {}, Record(), binding_counts(model))
    for p in model.parameters:
        check_bindable(p.name)
        frame.names[p.name.text] = _setting(ctx, frame, model, p, sizes)
    frame.names.update((n, v) for n, v in sizes.items() if n not in frame.names)
    return ctx, frame


def _setting(ctx: Context, frame: Frame, model: s.Model, p: s.Parameter,
             sizes: dict[str, int]) -> V:
    if p.name.text in sizes:
        return sizes[p.name.text]
    if p.default is None:
        raise UserError("NN0174", f"the model's setting `{p.name.text}` has no value", p.span,
                        notes=[Note(f"`{model.name.text}` is the model", model.span)],
                        help=f"write a default, `{p.name.text} = 10`, or give "
                             f"`--size {p.name.text}=N`")
    return evaluate(ctx, frame, p.default)


# Functions --------------------------------------------------------------------------------------


def _extract(run: Run, name: str, results: Mapping[str, Value], *,
             targets: bool = True) -> Function:
    """The part of a run's graph that `results` need, as a function."""
    needed = set(results.values())
    nodes = []
    for node in reversed(run.ctx.root.nodes):
        if any(v in needed for v in node.outputs):
            needed.update(node.inputs)
            nodes.append(node)
    if not targets:
        for target, value in run.record.targets.items():
            if value in needed:
                raise _depends(run, results, target, value)
    b = Builder(name)
    new: dict[Value, Value] = {}
    for kind, group in (("input", run.record.inputs),
                        ("target", run.record.targets if targets else {})):
        for argument, value in group.items():
            if value in needed:
                new[value] = b.param(kind, argument, value.type)
    for kind, declared in (("param", run.parameters), ("state", run.states)):
        for parameter, p in declared:
            if p.value in needed:
                new[p.value] = b.param(kind, parameter, p.type)
    for header, value in run.ctx.header.items():
        if value in needed:
            new[value] = b.param("header", header, value.type)
    for node in reversed(nodes):
        new.update(zip(node.outputs, b.copy(node, [new[v] for v in node.inputs]), strict=True))
    return b.finish([(result, new[value]) for result, value in results.items()])


def _depends(run: Run, results: Mapping[str, Value], target: str, value: Value) -> UserError:
    """An output that needs a target: at prediction there is none."""
    producers = {v: node for node in run.ctx.root.nodes for v in node.outputs}
    for name, result in results.items():
        stack, seen = [result], {result}
        while stack:
            at = stack.pop()
            if at == value:
                return UserError(
                    "NN0179", f"the output `{name}` depends on the target `{target}`",
                    run.record.spans[name],
                    notes=[Note("the target is declared here", run.record.spans[target])],
                    help="targets are known in training only; make it a metric, or the target "
                         "an input")
            for v in producers[at].inputs if at in producers else ():
                if v not in seen:
                    seen.add(v)
                    stack.append(v)
    raise AssertionError(target)
