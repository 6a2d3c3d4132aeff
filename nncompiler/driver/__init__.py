"""From source to artifact: the one room that knows every stage, in order.

    parse ─▶ elaborate ─▶ autodiff, optimizer ─▶ passes ─▶ schedule, tile, memory ─▶ LLVM ─▶ ELF

`Compilation` holds the stages of one source file for one binding of its free sizes and runs each
on demand; `compile_artifact` puts several bindings into one shared object.
"""

from nncompiler.clock import Clock, Stage
from nncompiler.driver.artifact import build_artifact, compile_artifact, program
from nncompiler.driver.compilation import Compilation
from nncompiler.driver.options import FUNCTIONS, NAMED, Options, check_functions
from nncompiler.driver.source import decode_source, read_source

__all__ = [
    "FUNCTIONS", "NAMED", "Clock", "Compilation", "Options", "Stage", "build_artifact",
    "check_functions", "compile_artifact", "decode_source", "program", "read_source",
]  # fmt: skip
