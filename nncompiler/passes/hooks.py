"""Hooks for `run_passes`: verify, print, time, dump, compare with the interpreter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from nncompiler.errors import CompilerBug, UserError
from nncompiler.ir import verify
from nncompiler.ir.graph import Function
from nncompiler.ir.interp import run
from nncompiler.ir.sampling import random_arguments
from nncompiler.ir.text import print_function
from nncompiler.ir.types import F64, Array
from nncompiler.passes.manager import Event, describe
from nncompiler.record import dataclass, field

Write = Callable[[str], object]


def verify_after(event: Event) -> None:
    """Re-run the operators' shape rules; a failure is a bug of the pass."""
    if verify.verify(event.after):
        text = verify.annotate(event.after)
        raise CompilerBug(
            "NN0493", f"pass '{event.step.name}' made an ill-formed function:\n{text}"
        )


@dataclass(frozen=True, slots=True)
class PrintAfter:
    """Print the function after every pass, or only after passes that changed it."""

    write: Write
    only_changed: bool = False

    def __call__(self, event: Event) -> None:
        if event.after is event.before and self.only_changed:
            self.write(f"// after {describe(event.step)}: unchanged\n")
            return
        self.write(f"// after {describe(event.step)}\n{print_function(event.after)}\n")


@dataclass(slots=True)
class TimePasses:
    """Collect (pass, seconds, nodes before, nodes after)."""

    rows: list[tuple[str, float, int, int]] = field(default_factory=list)

    def __call__(self, event: Event) -> None:
        sizes = len(event.before.nodes), len(event.after.nodes)
        self.rows.append((describe(event.step), event.seconds, *sizes))

    def table(self) -> str:
        lines = [f"{'pass':24s} {'ms':>9s} {'nodes':>13s}"]
        lines += [f"{n:24s} {1e3 * s:9.2f} {a:6d} ->{b:5d}" for n, s, a, b in self.rows]
        lines.append(f"{'total':24s} {1e3 * sum(r[1] for r in self.rows):9.2f}")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class DumpEach:
    """Write the function after every pass to numbered files `NN-pass.nnir` in a folder."""

    folder: Path

    def __call__(self, event: Event) -> None:
        name = f"{event.index + 1:02d}-{event.after.name}-{event.step.name}.nnir"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_text(print_function(event.after), encoding="utf-8")
        except OSError as error:
            reason = error.strerror or error
            raise UserError("NN0906", f"cannot write into '{self.folder}': {reason}") from None


@dataclass(slots=True)
class CheckPasses:
    """Interpret before and after in f64 on the same random data; name the pass that changed a
    value.

    Results a pass adds (autodiff) are not compared.
    """

    seed: int = 0
    tolerance: float = 1e-6  # folded constants are rounded to f32
    _known: dict[str, Array] = field(default_factory=dict)
    _of: Function | None = None  # whose values are known: several functions may share one hook

    def __call__(self, event: Event) -> None:
        arguments = random_arguments(event.before, self.seed)
        if event.before is not self._of:
            self._known = run(event.before, arguments, F64)
        after = run(event.after, arguments, F64)
        for name, old in self._known.items():
            if name not in after:
                raise CompilerBug("NN0494", f"pass '{event.step.name}' lost the result '{name}'")
            if not close(old, after[name], self.tolerance):
                raise CompilerBug(
                    "NN0494",
                    f"pass '{event.step.name}' changed the value of result '{name}' "
                    f"of '{event.after.name}'",
                )
        self._known, self._of = after, event.after


def close(a: Array, b: Array, tolerance: float) -> bool:
    """Equal up to `tolerance` times the largest magnitude; NaN and inf at the same places."""
    if a.shape != b.shape:
        return False
    if a.dtype.kind != "f":
        return bool(np.array_equal(a, b))
    finite = np.isfinite(a)
    if not np.array_equal(finite, np.isfinite(b)) or not np.array_equal(
        a[~finite], b[~finite], equal_nan=True
    ):
        return False
    x, y = np.asarray(a[finite], np.float64), np.asarray(b[finite], np.float64)
    scale = max(1.0, float(np.max(np.abs(x), initial=0.0)))
    return bool(np.max(np.abs(x - y), initial=0.0) <= tolerance * scale)
