"""The Model: calls, prediction, evaluation, state, and what it says about wrong data."""

from __future__ import annotations

import copy
import gc
import json
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import nncompiler
from nncompiler.errors import CompilerBug, UserError
from nncompiler.runtime.artifact import Artifact
from nncompiler.runtime.call import aligned, pointer
from nncompiler.runtime.checks import convert
from nncompiler.runtime.manifest import parse
from nncompiler.runtime.model import Model
from tests.runtime_fake import Fake, data, record


def make(rows: tuple[int, ...] = (4,), compiler: bool = False, **more: Any) -> tuple[Model, Fake]:
    fake = Fake()
    hook = (lambda n: fake.artifact((n,))) if compiler else None
    return Model(fake.artifact(rows, **more), hook), fake


def expected(model: Model, x: Any) -> Any:
    p = model.parameters
    return np.asarray(x, np.float32) @ p["W"] + p["b"]


def test_init_is_decided_by_the_seed() -> None:
    """The same seed gives the same parameters and an optimizer at its beginning."""
    model, _ = make()
    first = model.state_dict()
    model.train_step(**data(4))
    assert model.step == 1
    model.init(2**63 + 1)
    assert model.step == 0 and (model.state_dict()["W"] != first["W"]).any()
    model.init()
    assert (model.state_dict()["W"] == first["W"]).all()


def test_parameters_are_views_that_cannot_be_written() -> None:
    """They follow training; a state_dict does not."""
    model, _ = make()
    views, copies = model.parameters, model.state_dict()
    model.train_step(**data(4))
    assert (views["W"] != copies["W"]).all() and (views["W"] == model.parameters["W"]).all()
    with pytest.raises(ValueError, match="read-only"):
        views["W"][0, 0] = 1
    with pytest.raises(TypeError):
        views["W"] = copies["W"]  # type: ignore[index]


@pytest.mark.parametrize("take", [copy.copy, copy.deepcopy, pickle.dumps])
def test_models_are_not_copied(take: Callable[[Model], object]) -> None:
    """Who tries is told what to do."""
    model, _ = make()
    with pytest.raises(TypeError, match="take `state_dict"):
        take(model)


def test_load_state_dict() -> None:
    """Strict about names, always about shapes; nothing is changed by an error."""
    model, fake = make()
    before = model.state_dict()
    good = {"W": np.ones((3, 1)), "b": [2]}
    cases: list[tuple[str, dict[str, Any], bool, str]] = [
        ("NN0805", {"W": good["W"], "bb": [1.0]}, True, "'bb' may be 'b'"),
        ("NN0805", {"W": good["W"], "bb": np.ones(3)}, True, "1 is missing: b"),
        ("NN0805", {"V": [[1], [1, 2]], 3: [1, 2]}, True, "another model: they are V, 3"),
        ("NN0806", {**good, "c": [1.0]}, True, "found c too"),
        ("NN0807", {**good, "b": np.ones(2)}, True, r"f32\[1\], but found f64\[2\]"),
        ("NN0807", {"b": np.ones(2)}, False, "other sizes"),
        ("NN0704", {**good, "b": ["x"]}, True, "parameter 'b'"),
        ("NN0704", {**good, "b": [1e300]}, True, "cannot hold"),
    ]
    for code, arrays, strict, text in cases:
        with pytest.raises(UserError, match=text) as error:
            model.load_state_dict(arrays, strict)
        assert error.value.code == code
        assert all((model.parameters[n] == v).all() for n, v in before.items())
    model.load_state_dict({"b": [5.0], "other": [0]}, strict=False)
    assert model.parameters["b"][0] == 5 and (model.parameters["W"] == before["W"]).all()
    fake.calls.clear()
    model.load_state_dict(good)
    assert fake.calls == ["line_load"]  # renews what derives from parameters
    assert (model.parameters["W"] == 1).all() and model.parameters["b"] == 2


@pytest.mark.parametrize("rows", [1, 3, 4, 9, 64])
def test_predict_covers_any_number_of_rows(rows: int) -> None:
    """With the compiled sizes, largest first, and rows in order."""
    model, fake = make((1, 8, 3))
    fake.calls.clear()
    x = data(rows)["x"]
    assert np.allclose(model.predict(x), expected(model, x), atol=1e-6)
    sizes = [int(call.rpartition("b")[2]) for call in fake.calls]
    assert sizes == sorted(sizes, reverse=True) and sum(sizes) == rows
    assert sizes.count(8) == rows // 8 and sizes.count(3) == rows % 8 // 3


def test_predict_takes_dicts_lists_and_other_types() -> None:
    """Targets among the data are ignored; conversions that lose nothing are made."""
    model, _ = make((1, 2))
    x = data(6)["x"]
    want = expected(model, x)
    for given in (data(6), {"x": x}, x, x.astype(np.float64), np.asfortranarray(x), x.tolist(),
                  x[::-1][::-1], np.repeat(x, 2, axis=1)[:, ::2], x.astype(">f4")):  # fmt: skip
        assert np.allclose(model.predict(given), want, atol=1e-6)
    frozen = x.copy()
    frozen.flags.writeable = False
    assert np.allclose(model.predict(frozen), want, atol=1e-6)
    assert np.allclose(model.predict(np.ones((2, 3), np.int64)), expected(model, np.ones((2, 3))))


def test_predictions_are_new_arrays() -> None:
    """Also from the second call on, which takes arrays as they are; others are still checked."""
    model, fake = make((1, 4))
    found = [(x := data(4, seed)["x"], model.predict(x)) for seed in range(4)]
    for x, y in found:
        assert np.allclose(y, expected(model, x), atol=1e-6)
    x, y = found[0]
    assert not any(np.shares_memory(y, other) for _, other in found[1:])
    x[...] = found[1][0]
    assert (model.predict({"x": x}) == found[1][1]).all() and (y != found[1][1]).any()
    model.load_state_dict({"W": np.ones((3, 1)), "b": [2]})
    for given in (data(4, 1), x, x.astype(np.float64), np.asfortranarray(x), x.tolist()):
        assert np.allclose(model.predict(given), expected(model, x), atol=1e-6)
    x.resize((3, 4), refcheck=False)  # the same object, of another shape
    one = np.array(1, np.float32)
    for given, code in ((x, "NN0703"), ({"x": x}, "NN0703"), ({"y": x.T}, "NN0701"),
                        ({"x": x.T, "z": x}, "NN0702"), (x.T + 1j, "NN0704"),
                        (one, "NN0703"), ({"x": one}, "NN0703"), ({"x": one[()]}, "NN0703"),
                        ({"x": np.ndarray}, "NN0703")):  # fmt: skip
        with pytest.raises(UserError) as error:
            model.predict(given)
        assert error.value.code == code
    fake.calls.clear()
    model.predict(data(8)["x"])
    model.predict(data(8)["x"])
    assert fake.calls == ["line_infer_b4"] * 4


def test_evaluate_weights_by_rows() -> None:
    """The means over all rows, whatever the batches."""
    arrays = data(11)
    values = [make(rows)[0].evaluate(arrays) for rows in ((1,), (11,), (4, 3), (8, 1))]
    assert set(values[0]) == {"loss", "accuracy"}
    for value in values[1:]:
        assert value == pytest.approx(values[0], rel=1e-5)


def test_sizes_are_compiled_on_demand_only_for_the_rest() -> None:
    """The calls do not depend on what was compiled before."""
    model, fake = make((4,), compiler=True)
    model.predict(data(3)["x"])
    fake.calls.clear()
    model.predict(data(7)["x"])
    model.predict(data(6)["x"])
    assert fake.calls == [f"line_infer_b{n}" for n in (4, 3, 4, 2)]


def test_gradients_and_apply_make_a_step() -> None:
    """The gradient of the loss, by parameter; applied, it is train_step."""
    model, twin = make()[0], make()[0]
    arrays = data(4)
    gradients = model.gradients(arrays)
    assert {n: g.shape for n, g in gradients.items()} == {"W": (3, 1), "b": (1,)}
    before = model.loss(arrays)
    model.apply(gradients)
    assert twin.train_step(**arrays) == before
    assert (model.parameters["W"] == twin.parameters["W"]).all() and model.step == 1


def test_bound_calls_use_arrays_in_place() -> None:
    """Contents may change between calls; results are the arrays given or its own."""
    model, _ = make()
    arrays = data(4)
    step = model.bind("train_step", **arrays)
    twin, _ = make()
    for seed in range(3):
        for name, values in data(4, seed).items():
            arrays[name][...] = values
        assert step() is None  # type: ignore[func-returns-value]
        assert step.results["loss"] == twin.train_step(**data(4, seed))
    y = np.zeros((4, 1), np.float32)
    infer = model.bind("infer", x=arrays["x"], y=y)
    infer()
    assert infer.results["y"] is y and np.allclose(y, expected(model, arrays["x"]))
    arrays["group"][2] = 7
    with pytest.raises(UserError, match="from 0 to 1, but found 7 in row 2"):
        step()
    del model
    gc.collect()
    infer()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("x", lambda a: a.astype(np.float64)), ("x", np.asfortranarray), ("x", lambda a: a[:, :2]),
        ("x", lambda a: a.tolist()), ("y", lambda a: a[:2]), ("y", "read-only"),
    ],
)  # fmt: skip
def test_bound_calls_take_no_other_arrays(name: str, change: Any) -> None:
    """A copy would not follow the caller's array."""
    model, _ = make()
    arrays: dict[str, Any] = {"x": data(4)["x"], "y": np.zeros((4, 1), np.float32)}
    if change == "read-only":
        arrays["y"].flags.writeable = False
    else:
        arrays[name] = change(arrays[name])
    with pytest.raises(UserError, match=f"'{name}'") as error:
        model.bind("infer", **arrays)
    assert error.value.code == "NN0714"


def _replace(**changes: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda arrays: {k: v for k, v in {**arrays, **changes}.items() if v is not None}


X, T, G = (data(4)[name] for name in ("x", "t", "group"))
WRONG: list[tuple[str, Any, str]] = [
    ("NN0701", _replace(x=None), "'x' missing"),
    ("NN0701", _replace(x=None, xx=X), "rename 'xx' to 'x'"),
    ("NN0702", _replace(y=X), "found 'y' too"),
    ("NN0703", _replace(x=X[:, :2]), r"f32\[.*,3\], but found f32\[4,2\]"),
    ("NN0703", _replace(x=X[0]), r"but found f32\[3\]"),
    ("NN0703", _replace(t=T[:, 0]), r"f32\[.*,1\], but found f32\[4\]"),
    ("NN0704", _replace(x=X.astype(complex)), "f32, but found complex128"),
    ("NN0704", _replace(x=X.astype(str)), "to be f32, but found <U"),
    ("NN0704", _replace(x=X.astype(object)), "to be f32, but found object"),
    ("NN0704", _replace(x=X.astype(float) * 1e39), "which f32 cannot hold"),
    ("NN0704", _replace(x=np.full((4, 3), 2**24 + 1)), "found int64 with 16777217 at index"),
    ("NN0704", _replace(x=[[1, 2, 3], [1, 2]]), "array of numbers, but found list"),
    ("NN0704", _replace(x=np.ma.masked_array(X)), "masked"),
    ("NN0704", _replace(group=G.astype(np.float32)), r"i32, but found float32"),
    ("NN0704", _replace(group=np.full(4, 2**31)), "which i32 cannot hold"),
    ("NN0705", _replace(group=np.int64([0, 1, 0, 2])), "from 0 to 1, but found 2 in row 3"),
    ("NN0705", _replace(group=np.int32([-1, 1, 0, 2])), "found -1 in row 0"),
]  # fmt: skip


@pytest.mark.parametrize(("code", "change", "text"), WRONG)
def test_wrong_data(code: str, change: Any, text: str) -> None:
    """The same words from a step and from a data set; the state is as before."""
    model, _ = make()
    before = model.state_dict()
    calls: tuple[Callable[[Any], Any], ...] = (
        lambda a: model.train_step(**a), model.loss, model.gradients, model.evaluate,
        lambda a: model.fit(a, progress=False))  # fmt: skip
    for call in calls:
        with pytest.raises(UserError, match=text) as error:
            call(change(data(4)))
        assert error.value.code == code
    assert (model.parameters["W"] == before["W"]).all()


@pytest.mark.parametrize("given", [None, 3, [1, 2], np.ones((4, 3), np.float32)])
def test_data_without_names(given: Any) -> None:
    """One batch is a dict as a data set is."""
    model, _ = make()
    for call in (model.loss, model.gradients, model.evaluate):
        with pytest.raises(UserError, match="keyed by 'x', 't'") as error:
            call(given)
        assert error.value.code == "NN0701"


def test_wrong_data_sets() -> None:
    """Rows that differ, no rows, no dict, NaN where it is asked for."""
    model, _ = make((1, 4))
    cases: list[tuple[str, Any, str]] = [
        ("NN0708", {**data(4), "t": data(5)["t"]}, "'x' 4, 't' 5"),
        ("NN0707", {name: a[:0] for name, a in data(4).items()}, "at least one row"),
        ("NN0701", [X, T], "keyed by 'x', 't', 'group', but found list"),
        ("NN0706", {**data(4), "t": np.abs(T) * [[1], [np.inf], [1], [1]]}, "found inf in 't' at"),
    ]
    for code, arrays, text in cases:
        with pytest.raises(UserError, match=text) as error:
            model.evaluate(arrays, check_nan=True)
        assert error.value.code == code
    with pytest.raises(UserError, match="'x' to hold rows, but it is empty"):
        model.predict([])
    with pytest.raises(UserError, match="single row, add the axis"):
        model.predict(X[0])
    with pytest.raises(UserError, match="'x' missing"):
        model.predict({"t": T})


def test_unknown_functions_and_sizes() -> None:
    """Named with the nearest known one, or with the flag to compile with."""
    model, _ = make()
    with pytest.raises(UserError, match="did you mean 'infer'"):
        model.bind("inferr", x=X)
    with pytest.raises(UserError, match="but found 'bogus'") as error:
        model.bind("bogus")
    assert error.value.help is None
    with pytest.raises(UserError, match=r"--batch 4,3"):
        model.train_step(**data(3))
    with pytest.raises(UserError, match=r"\(4\) make up, but found 1 more"):
        model.predict(data(5)["x"])
    small, _ = make(functions=("infer",))
    with pytest.raises(UserError, match="--function train_step") as error:
        small.fit(data(4), progress=False)
    assert error.value.code == "NN0711"


def test_a_foreign_binding_is_a_bug() -> None:
    """A further artifact with another layout of the state never runs over this one."""
    fake, other = Fake(), Fake()
    changed = record((3,))
    changed["state"]["entries"][4]["name"] = "V"
    foreign = Artifact(parse(json.dumps(changed).encode()), other.lookup)
    model = Model(fake.artifact((4,)), lambda n: foreign)
    with pytest.raises(CompilerBug, match="another way"):
        model.predict(data(3)["x"])


def test_an_unknown_native_code_is_a_bug() -> None:
    """A code that the interface does not have is not taken for success."""
    model, fake = make()
    fake._functions["line_infer_b4"] = lambda *_: 9
    model = Model(fake.artifact((4,)))
    with pytest.raises(CompilerBug, match="returned 9"):
        model.predict(X)


def test_rate_can_be_set() -> None:
    """To a finite number from 0."""
    model, _ = make()
    model.rate = 0.5
    assert model.rate == 0.5
    for wrong in (-1, float("nan"), float("inf"), "1", True):
        with pytest.raises(UserError, match="learning rate"):
            model.rate = wrong  # type: ignore[assignment]


def test_summary_and_repr() -> None:
    """Parameters with types and sizes, state and arena."""
    model, _ = make((4, 1))
    lines = model.summary().splitlines()
    assert lines[0] == "line, batch 4, 1"
    assert [line.split() for line in lines[3:6]] == [
        ["W", "f32[3,1]", "3", "12"], ["b", "f32[1]", "1", "4"], ["total", "4", "16"]]
    assert "state  320 B (192 B of it for inference)" in lines and "arena  256 B" in lines
    assert repr(model) == "<Model line: 4 parameters, batch 4, 1>"


def test_states_are_no_parameters() -> None:
    """What the model keeps without training is listed and counted apart."""
    model = nncompiler.compile("""model norm {
        input x : f32[batch, 3]
        output y = x |> dense(2) |> batch_norm()
    }""", batch=2)  # fmt: skip
    first, second = model.summary().split("\n\n")[1:3]
    assert "running_mean" not in first and first.split()[-3:] == ["total", "12", "48"]
    assert "running_mean" in second and second.split()[-3:] == ["total", "4", "16"]
    assert repr(model) == "<Model norm: 12 parameters, batch 2>"


def test_memory_is_aligned_and_kept() -> None:
    """State and arenas begin at multiples of 64; a pointer keeps its array alive."""
    for size in (1, 64, 1000):
        memory = aligned(size)
        assert memory.ctypes.data % 64 == 0 and memory.size == size and not memory.any()
    array = np.arange(8, dtype=np.float32)
    array.flags.writeable = False
    held, writable = pointer(array), pointer(np.ones(3))
    assert held.value == array.ctypes.data and held.array is array
    assert "cparam" in repr(writable)


@pytest.mark.parametrize("dtype", ["f4", "f8", "i4", "u1", "?", "u4", "i8"])
def test_convert_keeps_values_or_refuses(dtype: str) -> None:
    """Over all pairs of types: the same numbers, or an error."""
    values = [0, 1, -1, 255, 256, 2**31 - 1, 2**31, 2**53 + 1, 1e300, 0.5, np.nan]
    for source in ("f2", "f4", "f8", "i1", "i4", "i8", "u1", "u8", "?"):
        for value in values:
            with np.errstate(all="ignore"):
                try:
                    array = np.array([value]).astype(source)
                except OverflowError:
                    continue
            try:
                found = convert(array, np.dtype(dtype), "it")
            except UserError as error:
                assert error.code == "NN0704"
                continue
            if source[0] == "f":
                assert dtype[0] == "f"
                assert found == array.astype(dtype) or np.isnan(array)
                assert np.isfinite(found) == np.isfinite(array)
            else:
                assert int(found[0]) == int(array[0])


def test_the_same_array_with_new_contents() -> None:
    """A step reads what the array holds now, also where another array came between."""
    model, twin = make()[0], make()[0]
    arrays = data(4)
    for seed in (1, 2, 3, 4):
        for name, values in data(4, seed).items():
            arrays[name][...] = values
        assert model.train_step(**arrays) == twin.train_step(**data(4, seed))
        assert model.train_step(**data(4, 9)) == twin.train_step(**data(4, 9))
    arrays["x"].resize((3, 4), refcheck=False)  # the same object, of another shape
    with pytest.raises(UserError) as error:
        model.train_step(**arrays)
    assert error.value.code in ("NN0703", "NN0710")


def test_bound_inference_runs_in_threads() -> None:
    """Each bound call has an arena and results of its own."""
    model, _ = make()
    calls = [model.bind("infer", x=data(4, seed)["x"]) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda call: [call() for _ in range(50)], calls))
    for seed, call in enumerate(calls):
        assert np.allclose(call.results["y"], expected(model, data(4, seed)["x"]))
    assert len({id(call._call.args[1]._obj) for call in calls}) == 4
