"""Integers of arguments that become indices are checked: those, and no others."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

import nncompiler
from nncompiler.errors import UserError
from nncompiler.ir.graph import Builder
from nncompiler.ir.index_bounds import index_bounds, is_part, joined, whole
from nncompiler.ir.op import Operator, Part, Sample
from nncompiler.ir.types import F32, I32, TensorType
from tests.ops_support import OPERATORS, build

MOVING = [
    pytest.param(op, sample, id=f"{op.name}-{n}")
    for op in OPERATORS
    if type(op).origin is not Operator.origin
    for n, sample in enumerate(op.samples())
]


def parts_of(shape: tuple[int, ...], rng: np.random.Generator) -> list[Part]:
    """The whole and some others."""
    found = [whole(shape)]
    for _ in range(8):
        ends = [sorted(rng.integers(0, n + 1, 2)) for n in shape]
        found.append(tuple(range(a, b, rng.integers(1, 4)) for a, b in ends))
    return found


@pytest.mark.parametrize(("op", "sample"), MOVING)
def test_where_elements_come_from(op: Operator, sample: Sample) -> None:
    """The reference, applied to numbers of places, says the same."""
    _, node = build(op.name, sample)
    shapes = [t.shape for t in sample.inputs]
    sizes = np.cumsum([1000, *(int(np.prod(s)) for s in shapes)])
    given = [np.arange(sizes[k], sizes[k + 1]).reshape(s) for k, s in enumerate(shapes)]
    result = op.reference(node, *given)
    assert isinstance(result, np.ndarray)
    for part in parts_of(result.shape, np.random.default_rng(4)):
        taken = set(result[np.ix_(*part)].flat)
        for k, places in enumerate(given):
            if (found := op.origin(node, k, part)) is None:
                assert not all(part) or op.name in ("reshape", "pad")
            elif all(part):
                assert all(r.step > 0 for r in found)
                assert set(places[np.ix_(*found)].flat) == taken & set(places.flat)


def test_parts_are_joined() -> None:
    """Neighbours become one; a part of one that is as strict is left out, a stricter is not."""
    column = [(range(4), range(k, k + 1)) for k in range(5)]
    assert joined(dict.fromkeys(column, 7)) == [((range(4), range(5)), 7)]
    apart = dict.fromkeys((column[0], column[2]), 7)
    assert sorted(joined(apart), key=str) == [(p, 7) for p in apart]
    all_ = (range(4), range(5))
    assert joined({all_: 7, column[1]: 7, column[2]: 9}) == [(all_, 7)]
    assert joined({all_: 7, column[1]: 5}) == [(column[1], 5), (all_, 7)]
    rows = {(range(0, 8, 2),): 3, (range(0, 8, 4),): 4}
    assert joined(rows) == [((range(0, 8, 2),), 3)]
    assert joined({(): 5}) == [((), 5)] and joined({}) == []


def test_parts_lie_within() -> None:
    assert is_part((), ()) and is_part((range(1, 8, 3),), (8,))
    assert not is_part((range(1, 8, 3),), (7,)) and not is_part((range(3),), (3, 1))
    assert not is_part((range(-1, 2),), (3,)) and not is_part((range(2, 2),), (3,))


def test_of_bodies_and_their_results() -> None:
    """What a group makes of a sequence, and another node indexes with."""
    b = Builder("f")
    k = b.param("input", "k", TensorType(I32, (4, 3)))
    table = b.param("param", "table", TensorType(F32, (9, 2)))
    column = b.emit("slice", k, start=(0, 2), stop=(4, 3), step=(1, 1))
    rows = b.emit("gather", table, b.emit("reshape", column, shape=(4,)), axis=0)
    assert index_bounds(b.finish([("r", rows)]))[k] == {(range(4), range(2, 3)): 9}


COLUMNS = """
model columns {
  input k: i32[batch, 7, 3]
  param few: f32[5, 2] = normal()
  param many: f32[100, 2] = normal()
  x = gather(few, k[:, 1:6:2, 0]) + gather(many, k[:, 1:4, 1])
  y = gather(few, k[:, 0, 2]) + gather(few, k[:, 1, 2]) + gather(few, k[:, 2, 2])
  output z = sum(x, axis=1) + y
}
"""
USED = {
    **dict.fromkeys([(1, 0), (3, 0), (5, 0), (0, 2), (1, 2), (2, 2)], 5),
    **dict.fromkeys([(1, 1), (2, 1), (3, 1)], 100),
}


def compiled(tmp_path: Path, text: str, batch: int) -> nncompiler.Model:
    path = tmp_path / "columns.nn"
    path.write_text(text)
    model = nncompiler.compile(path, batch=batch)
    model.init(0)
    return model


def test_columns_index_different_tables(tmp_path: Path) -> None:
    """Every element of the input, with numbers inside and outside: native code tells, and Python
    finds the place."""
    model = compiled(tmp_path, COLUMNS, 2)
    for row, t, c in itertools.product(range(4), range(7), range(3)):
        limit = USED.get((t, c), 2**31)
        for number in (limit - 1, min(limit, 2**31 - 1), -1):
            k = np.zeros((4, 7, 3), np.int32)
            k[row, t, c] = number
            if 0 <= number < limit or (t, c) not in USED:
                model.predict({"k": k})
                continue
            with pytest.raises(UserError, match="NN0705") as error:
                model.predict({"k": k})
            assert f"found {number} in index [{row}, {t}, {c}]" in str(error.value)


def test_data_of_many_batches(tmp_path: Path) -> None:
    """Before training, the whole data are looked at."""
    trained = COLUMNS.replace("output z", "target w: f32[batch, 2]\n  z").replace(
        "+ y\n", "+ y\n  loss mse(z, w)\n"
    )
    trained += "train { optimizer = sgd(lr=0.1) }\n"
    model = compiled(tmp_path, trained, 2)
    k, w = np.zeros((8, 7, 3), np.int32), np.zeros((8, 2), np.float32)
    k[6, 3, 0] = 5
    with pytest.raises(UserError, match=r"from 0 to 4, but found 5 in index \[6, 3, 0\]"):
        model.fit({"k": k, "w": w}, epochs=1, progress=False)
    k[6, 3, 0], k[:, 6], k[:, 2, 0] = 4, 10**6, -5  # the rest indexes nothing
    model.fit({"k": k, "w": w}, epochs=1, progress=False)


COMPUTED = """
model computed {
  input x: f32[batch, 2]
  input k: i32[batch]
  param table: f32[5, 2] = normal()
  param two: f32[2, 3] = normal()
  output y = gather(table, i32(x[:, 0]))
  output z = sum(gather(two, i32(one_hot(k, 10))), axis=1)
}
"""


def test_computed_indices_are_not_checked(tmp_path: Path) -> None:
    """Floats that are rounded, and digits that are counted, index what is nearest."""
    model = compiled(tmp_path, COMPUTED, 3)
    x = np.array([[4.7, 9], [-3, 0], [100, 2]], np.float32)
    found = model.predict({"x": x, "k": np.array([9, 0, 3], np.int32)})
    table, two = model.parameters["table"], model.parameters["two"]
    np.testing.assert_array_equal(found["y"], table[[4, 0, 4]])
    np.testing.assert_allclose(found["z"], np.tile(9 * two[0] + two[1], (3, 1)), rtol=1e-5)
