"""LLVM text of `fit`: the loop over mini-batches around a training step.

    for (row = 0; row + B <= rows; row += B) {
        order ? gather rows order[row..] into the staging area : point at rows row...
        code = step(state, arena, ...);  if (code) return code;
        loss_sum[n] += B * loss[n];
    }
"""

from __future__ import annotations

from nncompiler.codegen.module import abi
from nncompiler.codegen.module.abi import Fit, Staged
from nncompiler.codegen.module.text import FunctionText, call_entry
from nncompiler.ir.model import Program
from nncompiler.ir.types import F32


def fit_function(program: Program, fit: Fit, attributes: str, parallel: bool = False) -> str:
    """The function; `parallel` is the one that takes a pool and hands it on."""
    return _FitText(program, fit, parallel).text(attributes)


class _FitText:
    def __init__(self, program: Program, fit: Fit, parallel: bool) -> None:
        self._fit = fit
        self._rows = fit.entry.rows
        self._step = abi.symbol(program, fit.entry.function, fit.entry.suffix)
        name, self._first = fit.symbol, ["%state", "%arena"]
        if parallel:
            self._step = abi.parallel_symbol(program, fit.entry)
            name = abi.parallel_symbol(program, fit.entry, fit=True)
            self._first = ["%pool", *self._first]
        self._names = {s.argument.buffer: f"%a{n}" for n, s in enumerate(fit.given)}
        pointers = [*self._first, *self._names.values(), "%order"]
        parameters = [*(f"ptr {p}" for p in pointers), "i64 %rows", "ptr %loss_sum"]
        self._f = FunctionText(name, parameters)
        self._stages: dict[str, str] = {}
        self._totals: list[str] = []

    def text(self, attributes: str) -> str:
        f, fit = self._f, self._fit
        given = [(self._names[s.argument.buffer], s.type.dtype.bytes) for s in fit.given]
        f.require([*((p, 64) for p in self._first), *given, ("%loss_sum", 8)])
        for s in fit.arguments:
            if s.offset is not None:
                self._stages[s.argument.buffer] = f.offset("%arena", s.offset)
        self._totals = [f.offset("%loss_sum", 8 * n) for n in range(len(fit.losses))]
        ordered = f.assign("icmp ne ptr %order, null")
        before = f.block
        f.line("br label %head")
        f.label("head")
        f.line(f"%row = phi i64 [ 0, %{before} ], [ %next, %add ]")
        left = f.assign("sub nsw i64 %rows, %row")
        f.line(f"%more = icmp sge i64 {left}, {self._rows}")
        f.line("br i1 %more, label %batch, label %done")
        f.label("batch")
        f.line(f"br i1 {ordered}, label %picked, label %direct")
        self._batch()
        f.label("done")
        return f.finish(attributes)

    def _batch(self) -> None:
        """One mini-batch, from the choice of its rows to the sum of its losses."""
        f = self._f
        staged = [s for s in self._fit.given if s.row_bytes]
        f.label("picked")
        self._gather(staged)
        f.line("br label %step")
        f.label("direct")
        direct = [self._at_row(s) for s in staged]
        f.line("br label %step")
        f.label("step")
        values = self._names | self._stages
        for s, at in zip(staged, direct, strict=True):
            stage = self._stages[s.argument.buffer]
            chosen = f.assign(f"phi ptr [ {stage}, %picked ], [ {at}, %direct ]")
            values[s.argument.buffer] = chosen
        arguments = [values[a.buffer] for a in self._fit.entry.plan.arguments]
        code = f.assign(call_entry("i32", self._step, [*self._first, *arguments]))
        f.line(f"br i1 {f.assign(f'icmp eq i32 {code}, {abi.OK}')}, label %add, label %failed")
        f.label("failed")
        f.line(f"ret i32 {code}")
        f.label("add")
        for s, total in zip(self._fit.losses, self._totals, strict=True):
            self._add_loss(s, total)
        f.line(f"%next = add i64 %row, {self._rows}")
        f.line("br label %head")

    def _gather(self, staged: list[Staged]) -> None:
        f = self._f
        order = f.assign("getelementptr i64, ptr %order, i64 %row")
        for s in staged:
            name = s.argument.buffer
            pointers = f"ptr {self._stages[name]}, ptr {self._names[name]}, ptr {order}"
            f.line(f"call void @nn.gather({pointers}, i64 {self._rows}, i64 {s.row_bytes})")

    def _at_row(self, s: Staged) -> str:
        base = self._names[s.argument.buffer]
        shift = self._f.assign(f"mul i64 %row, {s.row_bytes}")
        return self._f.assign(f"getelementptr i8, ptr {base}, i64 {shift}")

    def _add_loss(self, s: Staged, total: str) -> None:
        f = self._f
        type = "float" if s.type.dtype == F32 else "double"
        value = f.assign(f"load {type}, ptr {self._stages[s.argument.buffer]}, align 8")
        if type == "float":
            value = f.assign(f"fpext float {value} to double")
        weighted = f.assign(f"fmul double {value}, {float(self._rows):e}")
        before = f.assign(f"load double, ptr {total}, align 8")
        after = f.assign(f"fadd double {before}, {weighted}")
        f.line(f"store double {after}, ptr {total}, align 8")
