"""What an operator may ask for when it is lowered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from nncompiler.ir.kernel import Store
from nncompiler.ir.scalar import Affine, Const, Expr, Index, Load


class Lowering(Protocol):
    """What `Operator.lower` may ask for. Elements of the inputs are pulled at any index; folds
    open a scope."""

    def read(
        self, k: int, index: Sequence[Index], guard: Expr | None = None, fill: Const | None = None
    ) -> Expr:
        """The element of input `k` at `index` (one entry per dimension; dimensions of extent 1
        are read at 0).

        With a `guard`, memory is touched only where it holds, and the element is `fill` elsewhere.
        """
        ...

    def fold(
        self,
        combine: str,
        extents: Sequence[int],
        element: Callable[[tuple[Affine, ...]], tuple[Expr, ...]],
    ) -> tuple[Expr, ...]:
        """Combine ``element(axes)`` over new axes of the given extents; gives one local per
        value."""
        ...

    def let(self, value: Expr) -> Expr:
        """A local that holds `value`, for what is used more than once."""
        ...


class Memory(Protocol):
    """What `Operator.nest` may ask for: the operands and the result as memory holds them."""

    def load(self, k: int, index: Sequence[Index]) -> Load:
        """The element of operand `k` at `index`."""
        ...

    def result(self, index: Sequence[Index]) -> Load:
        """What was stored to the result at `index`."""
        ...

    def store(self, index: Sequence[Index], value: Expr) -> Store: ...
