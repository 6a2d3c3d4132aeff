"""The pipelines, and nothing else."""

from nncompiler.passes.cse import CommonSubexpressions
from nncompiler.passes.dce import DeadCode
from nncompiler.passes.downstream import Downstream
from nncompiler.passes.factor import Factor
from nncompiler.passes.fold_affine import FoldAffine
from nncompiler.passes.fuse import Fuse
from nncompiler.passes.manager import Pass
from nncompiler.passes.quotients import Quotients
from nncompiler.passes.simplify import Simplify
from nncompiler.passes.upstream import Upstream

#: What every function goes through before it is scheduled.
OPTIMISE: tuple[Pass, ...] = (
    Simplify(), CommonSubexpressions(), FoldAffine(), DeadCode(), Quotients(), Factor(), Fuse(),
    Upstream(), Downstream(),
)  # fmt: skip
