"""From the LLVM text of one module to its object code. The same text gives the same bytes, in
whatever process."""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm

from nncompiler.codegen.target import Target, machine


def compile_module(text: str, target: Target) -> bytes:
    """The object file of a module."""
    return bytes(machine(target).emit_object(optimised(text, target)))


def assembly_of(text: str, target: Target) -> str:
    """The same as assembly."""
    return str(machine(target).emit_assembly(optimised(text, target)))


#: In what has this, LLVM's combiner of instructions finds more than instruction selection does.
_LOGIC = " = xor "


def optimised(text: str, target: Target) -> Any:
    """The module after what is left for LLVM's middle end: patterns of single instructions.

    Vectors, unrolling, sharing and the places of instructions are the emitter's. Instruction
    selection finds patterns itself, but those of logic: numbers that may be NaN, random bits.
    """
    module = llvm.parse_assembly(text)
    module.verify()
    if _LOGIC not in text:
        return module
    passes = llvm.create_new_function_pass_manager()
    passes.add_instruction_combine_pass()
    passes.add_simplify_cfg_pass()
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    builder = llvm.create_pass_builder(machine(target), options)
    for function in module.functions:
        if not function.is_declaration:
            passes.run(function, builder)
    return module
