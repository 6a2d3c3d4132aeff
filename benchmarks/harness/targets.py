"""What is aimed at: the fastest peer's time over ours, at least, by case and threads."""

from __future__ import annotations

import math
from collections.abc import Sequence

from harness.measure import Row

#: (workload, kind) -> with one thread, with two and more. Inference has further ones below.
CASES = {
    ("tiny", "train"): (6.0, 6.0),
    ("tiny", "loop"): (2.5, 2.5),
    ("mlp", "train"): (1.15, 1.3),
    ("autoencoder", "train"): (1.15, 1.3),
    ("lenet", "train"): (4.5, 5.0),
    ("resnet20", "train"): (1.5, 1.6),
    ("char_lstm", "train"): (1.15, 1.3),
    ("gpt", "train"): (1.5, 1.6),
    ("tiny", "infer"): (3.0, 3.0),
    ("lenet", "infer"): (1.8, 1.5),
    ("char_lstm", "infer"): (1.2, 1.1),
    ("resnet20", "direct"): (0.97, 0.97),
}
INFERENCE = (1.0, 1.0)
#: Of the geometric mean over all rows of a kind.
MEANS = {"train": (2.0, 2.2), "infer": (1.25, 1.25)}
#: A row is met, too, by this share of its roofline.
ROOFLINE = 0.85


def target(row: Row) -> float:
    case = row.result.case
    return CASES.get((case.workload, case.kind), INFERENCE)[min(row.threads, 2) - 1]


def met(row: Row) -> bool:
    """Whether the row reaches its target, or its roofline."""
    if row.ours is None or row.speedup is None:
        return False
    return row.speedup.median >= target(row) or row.roofline >= ROOFLINE


def rank(row: Row) -> int:
    """Rows that are lost come first, then those that miss their target; the rest, and rows without
    a peer to compare with, last."""
    if row.ours is not None and row.speedup is None:
        return 2
    return 0 if row.lost else 1 if not met(row) else 2


def mean(rows: Sequence[Row]) -> float | None:
    """The geometric mean of the ratios; None where one is lacking."""
    found = [row.speedup.median for row in rows if row.speedup is not None]
    if not found or len(found) != len(rows):
        return None
    return math.exp(sum(map(math.log, found)) / len(found))
