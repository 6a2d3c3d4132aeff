"""The builtin functions in one table; `docs/language.md` lists it.

What operators suffice for is not here but in the standard library, written in the language.
"""

from __future__ import annotations

from nncompiler.lang.elaborate.builtins_conv import CONVOLUTION
from nncompiler.lang.elaborate.builtins_math import MATH
from nncompiler.lang.elaborate.builtins_shape import SHAPE
from nncompiler.lang.elaborate.draws import RANDOM
from nncompiler.lang.elaborate.init import INITIALISERS
from nncompiler.lang.elaborate.values import Builtin

_FAMILIES = (MATH, SHAPE, CONVOLUTION, RANDOM, INITIALISERS)
BUILTINS: dict[str, Builtin] = {f.name: f for family in _FAMILIES for f in family}
