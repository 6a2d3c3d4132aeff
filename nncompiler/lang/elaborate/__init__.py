"""Elaboration: a parsed file and its free sizes -> `Network`.

`network` runs the model's body (`body` its statements, `expr` its expressions, `call` the fns and
layers in them) in a `context`; `builtins*` are the functions written in Python.
"""

from nncompiler.lang.elaborate.network import elaborate as elaborate
from nncompiler.lang.elaborate.network import interface as interface
from nncompiler.lang.elaborate.sizes import free_sizes as free_sizes
