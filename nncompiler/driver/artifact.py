"""Several bindings of one source as one shared object, its header and manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from nncompiler.clock import Clock
from nncompiler.driver.compilation import Compilation
from nncompiler.driver.constants import lay_constants
from nncompiler.driver.options import UNBOUND, Options
from nncompiler.errors import Limitation, Source
from nncompiler.ir.image import pack
from nncompiler.ir.model import Program
from nncompiler.ir.types import Array

if TYPE_CHECKING:
    from nncompiler.codegen.emit import Artifact, Compile


def program(bindings: Sequence[Compilation]) -> Program:
    """What code generation needs of all bindings; init and apply are taken from the first."""
    first = bindings[0]
    if first.options.frozen is not None:
        return _frozen_program(bindings)[0]
    entries = list(first.entries())
    for other in bindings[1:]:
        if other.layout != first.layout:
            raise Limitation(
                "NN0926", "the size of a state of this model depends on what differs between the "
                f"bindings {first.suffix} and {other.suffix}",
                help="compile one binding at a time: each has its own state",
            )  # fmt: skip
        entries += [e for e in other.entries() if e.function not in UNBOUND]
    train = first.network.train
    rate = train.optimizer.get("lr") if train else 0.0
    return Program(first.network.name, first.network.dtype, first.layout, tuple(entries), rate)


def _frozen_program(bindings: Sequence[Compilation]) -> tuple[Program, bytes]:
    """The same of frozen models, and the constants of all of them: what `init` copies."""
    network = bindings[0].network
    constants = lay_constants(network.dtype, [p for c in bindings for p in c.frozen_plans])
    plans = iter(constants.plans)
    entries = [e for c in bindings for e in c.entries(islice(plans, len(c.frozen_plans)))]
    whole = Program(network.name, network.dtype, constants.layout, tuple(entries))
    return whole, constants.image


def compile_artifact(
    source: Source,
    bindings: Sequence[Mapping[str, int]] = ({},),
    options: Options | None = None,
    clock: Clock | None = None,
    weights: Mapping[str, Array] | None = None,
    objects: Compile | None = None,
) -> Artifact:
    """Compile every binding into one shared object, its header and manifest.

    `weights` are embedded; `objects` may keep machine code from one compilation to the next.
    """
    clock = clock or Clock()
    first = Compilation(source, bindings[0], options, clock)
    rest = [Compilation(source, b, options, clock, first.file) for b in bindings[1:]]
    return build_artifact([first, *rest], weights, objects)


def build_artifact(
    compilations: Sequence[Compilation],
    weights: Mapping[str, Array] | None = None,
    objects: Compile | None = None,
    timed: bool = False,
) -> Artifact:
    """`compile_artifact` for bindings of one source that are there already, with one clock.

    With `timed`, the kernels' times are measured by the code itself (see `codegen.module.ticks`).
    """
    from nncompiler import __version__
    from nncompiler.codegen.emit import build
    from nncompiler.codegen.objects.processes import helpers_ahead

    first, image = compilations[0], None
    if weights is not None:
        image = pack(first.layout, weights)
    kernels = sum(len(f.nodes) for c in compilations for f in c.optimised.values())
    with helpers_ahead(kernels):
        if first.options.frozen is None:
            whole = program(compilations)
        else:
            whole, image = _frozen_program(compilations)
        return first.clock.run(
            "codegen",
            lambda: build(
                whole,
                first.target,
                networks=[c.network for c in compilations],
                texts=first.texts,
                source_sha256=hashlib.sha256(first.source.text.encode()).hexdigest(),
                version=__version__,
                weights=image,
                compile=objects,
                timed=timed,
            ),
            lambda a: f"{len(a.so)} bytes of shared object",
        )
