"""The pipelines, and nothing else."""

from nncompiler.passes.fusion.downstream import Downstream
from nncompiler.passes.fusion.fuse import Fuse
from nncompiler.passes.fusion.upstream import Upstream
from nncompiler.passes.graph.cse import CommonSubexpressions
from nncompiler.passes.graph.dce import DeadCode
from nncompiler.passes.graph.factor import Factor
from nncompiler.passes.graph.fold_affine import FoldAffine
from nncompiler.passes.graph.narrow import Narrow
from nncompiler.passes.graph.quotients import Quotients
from nncompiler.passes.graph.simplify import Simplify
from nncompiler.passes.graph.sink import Sink
from nncompiler.passes.manager import Pass

#: What every function goes through before it is scheduled.
OPTIMISE: tuple[Pass, ...] = (
    Narrow(), Simplify(), CommonSubexpressions(), FoldAffine(), DeadCode(), Quotients(), Factor(),
    Sink(), Fuse(), Upstream(), Downstream(),
)  # fmt: skip
