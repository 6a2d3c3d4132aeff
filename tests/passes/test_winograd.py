"""Winograd's transforms of convolutions: the same results as the direct form, where they are
taken, and how far off they round."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

import nncompiler
from nncompiler.driver import Compilation, Options, read_source
from nncompiler.ir.body import reads_and_writes, statements
from nncompiler.ir.graph import Function
from nncompiler.ir.interp import run
from nncompiler.ir.kernel import Buffer, For, Kernel, Plan
from nncompiler.ir.sampling import random_arguments
from nncompiler.ir.text import parse_plan, print_plan
from nncompiler.ir.verify_plan import verify_plan
from nncompiler.passes.arithmetic import winograd_kernels
from nncompiler.passes.arithmetic.winograd import winograd
from nncompiler.passes.layout.channels_last import channels_last
from nncompiler.passes.layout.images import choose_layouts, regions
from nncompiler.passes.lowering.schedule import schedule
from nncompiler.passes.manager import run_passes
from nncompiler.passes.memory.arena import place
from nncompiler.passes.pipelines import OPTIMISE
from tests.differential import row_major, untransformed
from tests.networks import layout_of, run_planned

MODELS = Path(__file__).resolve().parents[2] / "models"

#: Locals and parameters bear the names that the kernels of the transforms use themselves.
NETWORK = """
model net {{
    input x : f32[batch, {c}, {h}, {w}]
    target y : f32[batch, {o}, {h} - {crop}, {w} - {crop}]
    param m00 : f32[{o}, 1, 1] = normal()
    z = x |> conv2d({o}, 3, padding={pad}, bias={bias}) as acc
    z = relu(z * m00) |> conv2d({o}, 3, padding=1, bias=false) as mh11
    output out = z
    loss mean((z - y) ** 2)
}}
train {{ optimizer = sgd(lr=0.1) batch = {n} }}
"""


def source_of(**sizes: object) -> str:
    given = {"n": 3, "c": 2, "o": 3, "h": 6, "w": 4, "pad": 1, "bias": "true", **sizes}
    return NETWORK.format(**given, crop=0 if given["pad"] else 2)


def graphs(**sizes: object) -> dict[str, Function]:
    options = Options(dtype="f64", functions=("infer", "grad"))
    return Compilation(read_source(source_of(**sizes)), {}, options).graphs


def transformed(f: Function, few: bool = False) -> Plan:
    """The plan of `f` with everything transformed that can be, the batch last, or for a `few`
    images the channels.
    """
    plan = schedule(run_passes(f, OPTIMISE), layout_of(f))
    if not few:
        return place(winograd(choose_layouts(plan, row_major), untransformed))
    for region in regions(plan):
        plan = channels_last(plan, region) or plan
    return place(winograd(plan, untransformed))


def transforms(plan: Plan) -> int:
    """How many convolutions are transformed: each has weights of its own."""
    return sum(b.name.endswith(".U") for b in plan.buffers)


def sides(plan: Plan) -> set[int]:
    """How many elements the tiles have along each direction."""
    return {math.isqrt(b.type.shape[0]) for b in plan.buffers if b.name.endswith(".U")}


def check_plan(f: Function, plan: Plan) -> None:
    """It is sound, is read back, and computes what the graph says."""
    assert verify_plan(plan) == []
    assert print_plan(parse_plan(print_plan(plan))) == print_plan(plan)
    values = random_arguments(f, 5)
    expected, found = run(f, values), run_planned(f, plan, layout_of(f), values)
    for key, array in expected.items():
        np.testing.assert_allclose(found[key], array, rtol=1e-9, atol=1e-10, err_msg=key)


@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"pad": 0},
        {"n": 2, "c": 3, "o": 2, "h": 2, "w": 2},
        {"n": 9, "c": 3, "o": 2, "h": 4, "w": 10, "bias": "false"},
        {"n": 5, "h": 8, "w": 6, "pad": 0, "bias": "false"},
        {"n": 17, "c": 2, "o": 5, "h": 4, "w": 12},
        {"n": 2, "c": 33, "o": 3, "h": 16, "w": 8},
        {"n": 2, "c": 2, "o": 17, "h": 14, "w": 16, "bias": "false"},
    ],
)
def test_plan_with_transforms_computes_what_the_graph_says(sizes: dict[str, object]) -> None:
    """Forwards two convolutions are transformed, in the gradient that of an input as well."""
    for name, f in graphs(**sizes).items():
        plan = transformed(f)
        assert transforms(plan) == (2 if name == "infer" else 3)
        check_plan(f, plan)


@pytest.mark.parametrize(
    "sizes",
    [
        {"n": 1, "c": 3, "o": 16},
        {"n": 1, "c": 15, "o": 8, "h": 2, "w": 2},
        {"n": 1, "c": 17, "o": 8, "h": 8, "w": 18, "bias": "false"},
        {"n": 1, "c": 33, "o": 24, "h": 6, "w": 10, "pad": 0},
        {"n": 3, "c": 2, "o": 8, "h": 10, "w": 4},
        {"n": 2, "c": 8, "o": 8, "h": 4, "w": 14, "pad": 0},
        {"n": 1, "c": 8, "o": 16, "h": 16, "w": 16},
        {"n": 3, "c": 2, "o": 8, "h": 8, "w": 12},
    ],
)
def test_transforms_of_few_images_compute_what_the_graph_says(sizes: dict[str, object]) -> None:
    """The second convolution, and the gradient of its input, whose channels lie last."""
    for name, f in graphs(**sizes).items():
        plan = transformed(f, few=True)
        assert transforms(plan) == (1 if name == "infer" else 2)
        check_plan(f, plan)


@pytest.mark.parametrize("few", [False, True])
@pytest.mark.parametrize(
    "sizes",
    [
        {"n": 17, "c": 1, "o": 5, "h": 4, "w": 12},
        {"n": 3, "c": 4, "o": 1, "h": 6, "w": 10, "pad": 0},
        {"n": 1, "c": 5, "o": 33, "h": 4, "w": 4},
        {"n": 1, "c": 1, "o": 1, "h": 4, "w": 4},
        {"n": 3, "c": 2, "o": 9, "h": 8, "w": 12},
        {"n": 2, "c": 3, "o": 2, "h": 1, "w": 4},
        {"n": 2, "c": 3, "o": 17, "h": 17, "w": 16},
        {"n": 3, "c": 16, "o": 16, "h": 12, "w": 2},
    ],
)
def test_awkward_sizes(sizes: dict[str, object], few: bool) -> None:
    """One channel, one image, one tile, what no tile covers: whatever is transformed of them."""
    for f in graphs(**sizes).values():
        check_plan(f, transformed(f, few))


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({"h": 8, "w": 12}, {6}),
        ({"h": 8, "w": 10}, {4}),
        ({"h": 6, "w": 4}, {4}),
        ({"h": 10, "w": 14, "pad": 0}, {6}),
    ],
)
def test_tiles_cover_the_results(sizes: dict[str, object], expected: set[int]) -> None:
    """Tiles of 4 x 4 where they do so without a rest, else of 2 x 2."""
    assert sides(transformed(graphs(**sizes)["grad"])) == expected


@pytest.mark.parametrize(("h", "side"), [(6, 4), (8, 6)])
def test_weights_are_transformed_at_once_where_registers_hold_a_tile(h: int, side: int) -> None:
    """Those of 4 x 4 elements; larger ones line by line, by way of a buffer."""
    plan = transformed(graphs(h=h, w=h)["infer"])
    assert sides(plan) == {side}
    written = {name for k in plan.kernels() for name in reads_and_writes(k)[1]}
    assert any(name.endswith(".Uh") for name in written) == (side == 6)


def test_the_cheaper_transform_is_taken() -> None:
    """The cost decides between the transforms as well as against the direct form."""
    f = graphs(h=8, w=8)["infer"]
    plan = choose_layouts(schedule(run_passes(f, OPTIMISE), layout_of(f)), row_major)

    def only_small(kernel: Kernel, buffers: Mapping[str, Buffer]) -> float:
        large = any(a.extent == 36 for s in statements(kernel.body) if isinstance(s, For)
                    for a in s.axes)  # fmt: skip
        return 1e9 if large else untransformed(kernel, buffers)

    assert sides(winograd(plan, untransformed)) == {6}
    assert sides(winograd(plan, only_small)) == {4}


@pytest.mark.parametrize("sizes", [{"h": 5}, {"w": 7, "pad": 0}, {"n": 1, "o": 8, "h": 7}])
def test_an_odd_number_of_rows_or_columns_stays(sizes: dict[str, object]) -> None:
    """Tiles are two by two, or four by four."""
    for f in graphs(**sizes).values():
        assert not transforms(transformed(f, few=sizes.get("n") == 1))


OTHERS = """
model net {{
    input x : f32[batch, 4, 8, 8]
    output out = x |> conv2d(4, {arguments})
}}
"""


@pytest.mark.parametrize(
    "arguments",
    ["3, stride=2, padding=1", "5, padding=2", "1", "3, padding=1, groups=2"],
)
def test_other_windows_stay(arguments: str) -> None:
    """Strides, windows of another size and groups are no business of these transforms."""
    source = read_source(OTHERS.format(arguments=arguments))
    c = Compilation(source, {"batch": 4}, Options(functions=("infer",)))
    assert not transforms(transformed(c.graphs["infer"]))


@pytest.mark.parametrize(
    ("function", "batch", "count"), [("infer", 32, 16), ("train_step", 32, 32), ("infer", 1, 16)]
)
def test_resnet_is_transformed_where_it_may_be(function: str, batch: int, count: int) -> None:
    """All its windows of stride 1 but the first, unless the option says otherwise."""
    for flag, expected in ((False, count), (True, 0)):
        options = Options(cpu="x86-64-v3", direct=flag, functions=(function,))
        c = Compilation(read_source(MODELS / "resnet20.nn"), {"batch": batch}, options)
        assert transforms(c.plans[function]) == expected


@pytest.mark.parametrize("cpu", ["x86-64-v3", "x86-64-v4"])
def test_few_channels_pay_without_padding(cpu: str) -> None:
    """The second convolution of LeNet is transformed, in parts that workers share, and the
    gradient of its input is not: a quarter of that is on padding, which the direct form leaves
    out."""
    source, functions = read_source(MODELS / "lenet.nn"), ("infer", "train_step")
    plans = Compilation(source, {"batch": 64}, Options(cpu=cpu, functions=functions)).plans
    for plan in plans.values():
        assert transforms(plan) == 1
        assert any(loop.parallel for loop in plan.loops())


@pytest.mark.parametrize(
    ("batch", "side"), [(16, 8), (1, 8), (3, 8), (16, 12), (16, 16), (3, 10)]
)
def test_rounding_is_of_the_same_order_and_threads_do_not_matter(batch: int, side: int) -> None:
    """Gradients of wide layers against those in f64, and bit for bit on two to four threads."""
    source = source_of(n=batch, c=32, o=32, h=side, w=side)
    functions = ["init", "grad"]
    exact = nncompiler.compile(source, dtype="f64", direct=True, functions=functions)
    values = exact.state_dict()
    generator = np.random.default_rng(3)
    data = {k: generator.standard_normal((batch, 32, side, side)).astype(np.float32) for k in "xy"}

    def gradients(flag: bool, threads: int = 1) -> dict[str, np.ndarray]:
        model = nncompiler.compile(source, direct=flag, threads=threads, functions=functions)
        model.load_state_dict({k: v.astype(np.float32) for k, v in values.items()})
        return dict(model.gradients(data))

    rounded = {k: v.astype(np.float32).astype(np.float64) for k, v in values.items()}
    exact.load_state_dict(rounded)
    wanted = exact.gradients({k: v.astype(np.float64) for k, v in data.items()})
    plain, found = gradients(True), gradients(False)
    assert any(not np.array_equal(plain[k], found[k]) for k in found)
    for shared in (gradients(False, threads) for threads in (2, 3, 4)):
        for name in wanted:
            np.testing.assert_array_equal(found[name], shared[name])
    for name, array in wanted.items():
        assert np.abs(found[name] - array).max() <= 4e-6 * np.abs(array).max(), name


def test_kernels_of_equal_convolutions_are_made_once() -> None:
    """Blocks of a network repeat: what differs in the names of buffers alone is renamed."""
    conv = "|> conv2d(8, 3, padding=1, bias=false) |> relu "
    source = f"model net {{ input x : f32[batch, 8, 6, 4] output y = x {conv * 5} }}"
    f = Compilation(read_source(source), {"batch": 3}, Options(functions=("infer",))).graphs
    winograd_kernels._stored.cache_clear()
    plan = transformed(f["infer"])
    assert transforms(plan) == 5
    assert len({b.name for b in plan.buffers if b.name.endswith((".U", ".V"))}) == 10
    assert winograd_kernels._stored.cache_info().misses <= 2  # of the weights, and of the images
    assert verify_plan(plan) == []
