"""The operator library: one family per file. Importing this package registers every operator."""

from nncompiler.ir.ops import (  # noqa: F401
    arithmetic,
    constant,
    contract,
    control,
    index,
    join,
    logic,
    random,
    reduce,
    scan,
    scatter,
    shape,
    slice,
    unary,
    window,
)
