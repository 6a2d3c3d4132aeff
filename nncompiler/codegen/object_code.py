"""From the LLVM text of one module to its object code. The same text gives the same bytes, in
whatever process."""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm

from nncompiler.codegen.target import Target, machine


def compile_module(text: str, target: Target) -> bytes:
    """The object file of a module."""
    return bytes(machine(target).emit_object(_optimised(text, target)))


def assembly_of(text: str, target: Target) -> str:
    """The same as assembly."""
    return str(machine(target).emit_assembly(_optimised(text, target)))


def _optimised(text: str, target: Target) -> Any:
    """The module after LLVM's scalar optimisations; vectors and unrolling are the emitter's.

    A module is one function that calls nothing, so the passes over whole modules find nothing
    more: they took a third of the time.
    """
    module = llvm.parse_assembly(text)
    module.verify()
    tuning = llvm.create_pipeline_tuning_options(speed_level=2)
    tuning.loop_vectorization = tuning.slp_vectorization = False
    tuning.loop_unrolling = tuning.loop_interleaving = False
    passes = llvm.create_pass_builder(machine(target), tuning)
    scalar = passes.getFunctionPassManager()
    for function in module.functions:
        if not function.is_declaration:
            scalar.run(function, passes)
    return module
