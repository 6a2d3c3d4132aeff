"""Register tiles by the clock (`--tune`): with clocks that tell what a test wants to hear."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random

import numpy as np
import pytest

import nncompiler
from nncompiler.api import Request, build
from nncompiler.cache import Cache, key_of
from nncompiler.codegen import target as targets
from nncompiler.codegen.target import Target, host, select
from nncompiler.driver import Compilation, Options, build_artifact
from nncompiler.driver.trial import Trial
from nncompiler.driver.tuning import Kept, Tuner, fastest, tuner_for
from nncompiler.errors import Source, UserError
from nncompiler.ir.body import extents
from nncompiler.ir.kernel import Buffer, Kernel, Plan, Schedule
from nncompiler.ir.nests import contraction
from nncompiler.ir.text import print_plan
from nncompiler.ir.verify_schedule import verify_schedule
from nncompiler.passes.tiling.tile import CANDIDATES, choose_schedule, tiles
from nncompiler.record import replace
from nncompiler.runtime.artifact import open_artifact
from nncompiler.runtime.model import Model
from tests.cli.conftest import Nnc, cache_folder, nnc  # noqa: F401
from tests.fuzz_schedules import difference
from tests.nest_harness import buffer
from tests.random_nests import NESTS, Maker

#: Two products that are worth trials, and one that is not.
TWO = """model two {
    input x : f32[batch, 128]
    output y = x |> dense(128) |> relu |> dense(96) |> relu |> dense(2)
    target t : f32[batch, 2]
    loss mse(y, t)
}

train {
    optimizer = sgd(lr=0.1)
    batch = 64
}
"""


class Fake:
    """A clock for which the schedules with these numbers take so many seconds, others one."""

    def __init__(self, seconds: Mapping[int, float]) -> None:
        self.seconds = seconds
        self.tried: list[tuple[Kernel, tuple[Schedule, ...]]] = []

    def __call__(
        self, kernel: Kernel, _: Mapping[str, Buffer], schedules: Sequence[Schedule], __: Target,
        around: Mapping[str, int],
    ) -> Callable[[int], float]:  # fmt: skip
        self.tried.append((kernel, tuple(schedules)))
        return lambda number: self.seconds.get(number, 1.0)


def compiled(fake: Fake | None, kept: Kept | None = None) -> Compilation:
    """The stages of the model, tiles chosen by this clock."""
    tuner = None if fake is None else Tuner(host(), kept, lambda t: key_of([t.encode()]), fake)
    return Compilation(Source("two.nn", TWO), {}, Options(tuner=tuner))


def texts(c: Compilation) -> dict[str, str]:
    """The plans as they are printed."""
    return {name: print_plan(plan) for name, plan in c.plans.items()}


def schedules(plan: Plan) -> list[Schedule]:
    """Those of all kernels, apart from what threads share."""
    return [replace(k.schedule, parallel=(), parts=0) for k in plan.kernels()]


def test_without_a_faster_tile_nothing_changes() -> None:
    """Where the model's own choice is as fast, plans are the same; each kernel is tried once."""
    fake, plain = Fake({1: 0.99}), compiled(None)
    tuned = compiled(fake)
    assert texts(tuned) == texts(plain)
    kernels = {str(k.body) for k, _ in fake.tried}
    assert len(kernels) == len(fake.tried) >= 4
    assert not [s for s in plain.clock.stages if s.name == "tune"]
    detail = tuned.clock.stages[-1].detail
    assert detail == f"{len(kernels)} kernels timed, 0 changed, 0.0 % of their time less"


@pytest.mark.parametrize("number", [1, 3])
def test_the_fastest_tile_is_in_the_plan(number: int) -> None:
    """The plan has the tile that the clock prefers; results are the same up to rounding."""
    fake, plain = Fake({number: 0.8}), compiled(None)
    tuned = compiled(fake)
    found = schedules(tuned.plans["infer"])
    wanted = [tried[number] for _, tried in fake.tried if len(tried) > number]
    assert wanted and texts(tuned) != texts(plain)
    assert len([s for s in found if s in wanted]) == 2
    assert re.search(r"[1-9] changed, (19.9|20.0) %", tuned.clock.stages[-1].detail)
    x = np.random.default_rng(0).normal(size=(64, 128)).astype(np.float32)
    made = [Model(open_artifact(build_artifact([c]).so)).predict(x) for c in (plain, tuned)]
    np.testing.assert_allclose(made[0], made[1], rtol=0, atol=1e-5)


def test_what_was_timed_is_kept(tmp_path: Path) -> None:
    """The second time no clock is asked, and the plan is the same; damaged entries are timed
    again, as are sound ones that say nonsense."""
    store = Cache(tmp_path)
    first, second = Fake({2: 0.5}), Fake({})
    wanted = texts(compiled(first, store))
    assert texts(compiled(second, store)) == wanted and not second.tried
    entries = [path for path, _ in store.files()]
    assert len(entries) == len(first.tried)
    for path in entries:
        path.write_bytes(path.read_bytes()[:-1])
    again = Fake({2: 0.5})
    assert texts(compiled(again, store)) == wanted and len(again.tried) == len(entries)


@pytest.mark.parametrize("payload", [
    b"", b"{", b"[]", b"7", b"\xff", b'{"number": 9, "seconds": 1, "part": 1}',
    b'{"number": -1, "seconds": 1, "part": 1}', b'{"number": 1, "seconds": "x", "part": 1}',
])  # fmt: skip
def test_nonsense_that_was_kept_is_timed_again(payload: bytes) -> None:
    """Whatever an entry holds, plans are sound."""

    class Odd:
        def get(self, key: str, /) -> bytes:
            return payload

        def put(self, key: str, payload: bytes, /) -> None:
            assert len(key) == 64 and payload

    fake = Fake({1: 0.5})
    assert texts(compiled(fake, Odd())) == texts(compiled(Fake({1: 0.5})))
    assert fake.tried


def test_a_tile_must_win_twice() -> None:
    """The margin counts, and a tile that is fast once by chance is not taken."""
    assert fastest(lambda n: [1.0, 0.98, 0.9][n], 3).number == 2
    assert fastest(lambda n: [1.0, 0.98, 0.975][n], 3).number == 0
    readings = 0

    def lucky(number: int) -> float:
        nonlocal readings
        readings += number == 1
        return 0.5 if number == 1 and readings <= 13 else 1.0

    found = fastest(lucky, 3)
    assert (found.number, found.part) == (0, 1.0)


def test_a_processor_that_is_not_here(monkeypatch: pytest.MonkeyPatch, nnc: Nnc) -> None:  # noqa: F811
    """Code that this machine cannot run cannot be timed; lower levels can."""
    monkeypatch.setattr(targets, "host", lambda: select("x86-64-v3"))
    assert tuner_for("x86-64-v2", None, str).target == select("x86-64-v2")
    with pytest.raises(UserError, match="x86-64-v4") as info:
        nncompiler.compile(TWO, cpu="x86-64-v4", tune=True)
    assert info.value.code == "NN0505"
    model = Path(__file__).parent.parent / "models" / "tiny.nn"
    result = nnc("dump", model, "--stage", "plan", "--cpu", "x86-64-v4", "--tune")
    assert result.code != 0 and "NN0505" in result.err


@pytest.mark.parametrize("seed", range(24))
def test_every_candidate_is_right(seed: int) -> None:
    """Each tile to pick from gives what the interpreter gives; the first is the model's choice,
    and they are in order."""
    r = Random(seed)
    m = Maker(r)
    nest = r.choice([make for make in NESTS if contraction(make(Maker(Random(1))))])(m)
    table = {n: buffer(n, a) for n, a in m.arrays.items()}
    before = {n: a.copy() for n, a in m.arrays.items()}
    found = tiles(nest, table, host().machine, CANDIDATES)
    if not found:
        return  # too small for a tile
    assert found[0][1] == choose_schedule(nest, table, host().machine)
    assert [cycles for cycles, _ in found] == sorted(cycles for cycles, _ in found)
    assert len({repr(s) for _, s in found}) == len(found) <= CANDIDATES
    for _, schedule in found:
        tiled = replace(nest, schedule=schedule)
        assert not verify_schedule(tiled, extents(tiled), ())
        for name, array in m.arrays.items():
            array[...] = before[name]  # in place: the schedule is for this layout
        assert difference(tiled, m.arrays, host(), r) is None


def test_command_line(nnc: Nnc, tmp_path: Path) -> None:  # noqa: F811
    """With real trials: a line on stderr, a model that loads; the second time from the cache."""
    path, out = tmp_path / "two.nn", tmp_path / "two.so"
    path.write_text(TWO)
    first = nnc("compile", path, "-o", out, "--tune", "--function", "infer")
    assert first.code == 0
    line = re.search(r"^tune: 2 kernels timed, [012] changed, .* less$", first.err, re.M)
    assert line is not None
    data = out.read_bytes()
    nncompiler.load(out)
    second = nnc("compile", path, "-o", out, "--tune", "--function", "infer")
    assert line[0] in second.err and out.read_bytes() == data
    plan = nnc("dump", path, "--stage", "plan", "--tune", "--function", "infer")
    assert line[0] in plan.err and "schedule contract" in plan.out
    assert "tune" not in nnc("dump", path, "--stage", "plan", "--function", "infer").err


def test_the_key_of_an_artifact(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A tuned artifact is not taken for one that is not."""
    monkeypatch.setenv("NNCOMPILER_CACHE", str(tmp_path))
    monkeypatch.setattr(Trial, "__init__", lambda self, *_: None)
    monkeypatch.setattr(Trial, "__call__", lambda self, number: 1.0 - number / 10)
    wanted = Request("two.nn", TWO.encode(), functions=("init", "infer"))
    plain, tuned = build(wanted), build(replace(wanted, tune=True))
    assert not tuned.cached and tuned.so != plain.so
    assert build(wanted).so == plain.so and build(replace(wanted, tune=True)).cached


def test_kernels_inside_of_loops() -> None:
    """A kernel that a plan loop runs is worth trials where all rounds together are; it is run half
    way through, where sums have all their terms."""
    source = Source("r.nn", """model r {
    input x : f32[batch, 40, 32]
    output y = x |> lstm(32) |> dense(1)
}
""")
    fake = Fake({1: 0.5})
    tried: list[tuple[Kernel, Mapping[str, Buffer], Sequence[Schedule], Mapping[str, int]]] = []

    def attempt(kernel, buffers, some, target, around):  # type: ignore[no-untyped-def]
        tried.append((kernel, buffers, some, around))
        return fake(kernel, buffers, some, target, around)

    tuner = Tuner(host(), attempt=attempt)
    c = Compilation(source, {"batch": 8}, Options(functions=("infer",), tuner=tuner))
    assert c.plans
    inside = [x for x in tried if x[3]]
    assert inside and all([*x[3].values()] == [40] for x in inside)
    kernel, buffers, some, around = inside[0]
    trial = Trial(kernel, buffers, some, host(), around)
    assert all(trial(number) > 0 for number in range(len(some)))
