"""The builtin functions in one table; `docs/language.md` lists it.

What operators suffice for is not here but in the standard library, written in the language.
"""

from __future__ import annotations

from nncompiler.lang.elaborate_builtins_math import MATH
from nncompiler.lang.elaborate_builtins_shape import SHAPE
from nncompiler.lang.elaborate_init import INITIALISERS
from nncompiler.lang.elaborate_values import Builtin

BUILTINS: dict[str, Builtin] = {f.name: f for f in (*MATH, *SHAPE, *INITIALISERS)}
