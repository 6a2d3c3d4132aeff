"""A static-graph compiler for neural networks: `.nn` source to native training and inference.

    import nncompiler
    model = nncompiler.compile("models/digits_mlp.nn")
    model.fit({"image": images, "digit": digits})
    probs = model.predict({"image": more})

A tour of the rooms, in the order in which a model passes through them:

    model.nn ─parse─▶ syntax ─elaborate─▶ Graph ─passes─▶ Graph ─schedule─▶ Plan ─▶ .so + .h

- `errors`   source positions and the three kinds of error: of the user, of this version, of the
             compiler.
- `lang`     the language: grammar, syntax tree, elaboration into graphs, formatter. `stdlib/*.nn`
             holds layers, activations and losses, written in the language itself.
- `ir`       the two levels that passes work on. A *Graph* is an ordered SSA program of tensor
             operators; a compiled model is a handful of them over one state: init, infer, loss,
             grad, train_step, apply. A *Plan* is the same program as loop nests over buffers with
             known addresses. Both are frozen and have a text form that is read back, a verifier
             and an interpreter. An operator is one class in `ir/ops`: shape rule, NumPy
             reference, gradient, lowering. No other file knows it.
- `passes`   Graph to Graph: autodiff and the optimizer *write* graph, so that the backward pass is
             fused and planned like everything else; narrow, simplify, cse, fold-affine, dce,
             quotients, factor, sink, fuse, upstream, downstream. `lowering` makes a plan,
             `layout`, `tiling` and others improve it, `memory` places its buffers. Pipelines are
             tuples in `pipelines.py`.
- `codegen`  Plan to LLVM IR with explicit vectors, and to the shared library, which it writes
             itself.
- `driver`   the one file that knows every stage, in order.
- `runtime`  loads artifacts and trains them; needs NumPy only. `cache` keeps what was compiled,
             `api` is `compile` below, `cli` the command `nnc`.

Imports go one way: errors ← ir ← {lang, passes, codegen} ← driver ← api ← cli; `lang`, `passes`
and `codegen` never import each other, and `runtime` imports `errors` alone. Importing this package
loads none of its rooms.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as type checkers know it; importing `typing` takes longer than the rest
if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from nncompiler.runtime.model import Model

__version__ = "0.1.0"
__all__ = ["compile", "load"]


def compile(
    path_or_text: str | os.PathLike[str],
    *,
    batch: int | Sequence[int] | None = None,
    sizes: Mapping[str, int] | None = None,
    dtype: str = "f32",
    cpu: str = "host",
    threads: int = 1,
    direct: bool = False,
    tune: bool = False,
    functions: Sequence[str] | None = None,
    freeze: str | os.PathLike[str] | None = None,
    cache: bool = True,
) -> Model:
    """The model in a `.nn` file, or in source text, compiled and initialised with seed 0.

    `batch` gives one or more batch sizes, by default that of the `train` block; further ones are
    compiled when they are needed. Steps run on `threads` threads where that helps, to the same
    bits whatever their number. `sizes` binds other free sizes. With `direct`, no convolution is
    computed by transforms (Winograd), which round otherwise. With `tune`, register tiles are
    compared by running them on this machine, not by the cost model alone. `functions` are those to
    compile, by default all. `freeze` names a file of weights that become constants: the model
    can only predict, with the batch sizes given, but faster. With `cache`, what was compiled
    before is taken from the compile cache.
    """
    from nncompiler.api import compile_model

    return compile_model(
        path_or_text, batch=batch, sizes=sizes, dtype=dtype, cpu=cpu, threads=threads,
        direct=direct, tune=tune, functions=functions, freeze=freeze, cache=cache,
    )  # fmt: skip


def load(path: str | os.PathLike[str], *, threads: int = 1) -> Model:
    """The model in a compiled artifact (`.so`), with its embedded weights, or else seed 0."""
    from nncompiler.runtime.model import load as load_model

    return load_model(path, threads)
