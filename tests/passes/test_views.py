"""What a view looks at lies in memory before the group that reads the view."""

from __future__ import annotations

from nncompiler.driver import Compilation, Options
from nncompiler.errors import Source
from nncompiler.ir.verify import verify

#: The gradient of pooling is cut out of the padding, and then seen under the shape of groups.
NETWORK = """
model net {
    input x : f32[batch, 2, 5, 4, 6]
    target t : f32[batch, 4]
    c = x |> conv3d(4, kernel=[2, 1, 3], stride=[2, 1, 2], padding="same", groups=2)
    y = c |> max_pool3d([2, 2, 1], stride=1, padding=[1, 0, 0]) |> global_avg_pool
    output y
    loss mse(y, t)
}
train { optimizer = adamw() batch = 17 }
"""


def test_viewed_values_come_before_their_readers() -> None:
    """A cheap value is not copied into a group that reads it through a view alone."""
    options = Options(functions=("train_step",))
    (made,) = Compilation(Source("net.nn", NETWORK), {}, options).optimised.values()
    assert verify(made) == []
