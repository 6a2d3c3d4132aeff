"""What a train block and several losses mean."""

from __future__ import annotations

import pytest

from nncompiler.ir.train import Objective, OptimizerSpec, ScheduleSpec
from nncompiler.passes.training import optimizer
from tests.lang.elaborated import model, network


def trained(settings: str, losses: str = "loss mse(y, t)"):
    """The `TrainSpec` of a train block."""
    return network(f"""
    model m {{
        input  x : f32[batch, 4]
        target t : f32[batch, 1]
        y = x |> dense(1)
        output y
        {losses}
    }}
    train {{ {settings} }}""", batch=2).train


@pytest.mark.parametrize("text, kind, settings", [
    ("sgd(0.1)", "sgd", {"lr": 0.1}),
    ("sgd(lr = 0.1, momentum = 0.9)", "momentum", {"lr": 0.1, "momentum": 0.9}),
    ("sgd(0.1, 0.9, nesterov = true)", "nesterov", {"lr": 0.1, "momentum": 0.9}),
    ("adagrad()", "adagrad", {"lr": 0.01, "eps": 1e-10}),
    ("rmsprop(rho = 0.9)", "rmsprop", {"lr": 0.01, "rho": 0.9, "eps": 1e-8}),
    ("adam()", "adam", {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}),
    ("adamw(1e-2)", "adamw",
     {"lr": 1e-2, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.01}),
])
def test_optimizer(text, kind, settings):
    """An optimizer has all its settings."""
    assert trained(f"optimizer = {text}").optimizer == OptimizerSpec(kind, tuple(settings.items()))


@pytest.mark.parametrize("text, kind, settings", [
    ("constant()", "constant", {}),
    ("constant(warmup = 10)", "constant", {"warmup": 10}),
    ("step(every = 30)", "step", {"every": 30, "gamma": 0.1}),
    ("exponential(every = 5, gamma = 0.9, warmup = 2)", "exponential",
     {"every": 5, "gamma": 0.9, "warmup": 2}),
    ("cosine(total = 100, floor = 0.1)", "cosine", {"total": 100, "floor": 0.1}),
])
def test_schedule(text, kind, settings):
    """A schedule has all its settings."""
    found = trained(f"optimizer = sgd(1) schedule = {text}").schedule
    assert found == ScheduleSpec(kind, tuple(settings.items()))


def test_other_settings():
    """Batch, epochs, penalties and clipping; computed numbers are allowed."""
    found = trained("optimizer = sgd(1e-1) batch = 2 * 8 epochs = 3 l1 = 1e-5 l2 = 1e-4\n"
                    "clip_norm = 5 clip_value = 0.5")
    assert (found.batch, found.epochs, found.l1, found.l2) == (16, 3, 1e-5, 1e-4)
    assert (found.clip_norm, found.clip_value) == (5, 0.5)


def test_several_losses():
    """`minimize` gives each loss its parameters, in file order."""
    net = network("""
    model m {
        input x : f32[batch, 4]
        gen = x |> dense(1)
        gen2 = x |> dense(1)
        param s : f32[] = ones()
        output y = gen * s + gen2
        loss a = mean(gen)
        loss b = mean(gen2 * s)
    }
    train {
        optimizer = adam()
        minimize b over s
        minimize a over gen
    }""", batch=2)
    assert net.losses == ("a", "b")
    assert net.train.objectives == (Objective("b", "s"), Objective("a", "gen"))


def test_losses_over_one_name_alone():
    """A name covers what hangs from it by a dot or a bracket, not names that go on otherwise."""
    net = network("""
    model m {
        input x : f32[batch, 4]
        param s : f32[4] = ones()
        param scale : f32[4] = ones()
        h = x * s * scale
        for i in 0..2 {
            h = h |> dense(4) as block
        }
        output h
        loss a = mean(h)
        loss b = mean(h ** 2)
    }
    train {
        optimizer = adam()
        minimize a over s
        minimize b over block
        minimize a over block[1]
    }""", batch=2)
    covered = [[n for n, _ in net.parameters if o.covers(n)] for o in net.train.objectives]
    first, second = ["block[0].W", "block[0].b"], ["block[1].W", "block[1].b"]
    assert covered == [["s"], first + second, second]
    results = dict(optimizer.train_step(net).results)
    changed = {n.removeprefix("update.") for n in results if not n.startswith("update.opt.")}
    assert changed == {"a", "b", "step", "s", *first, *second}


def test_batch_of_a_train_block_without_one():
    """A train block without `batch` has steps of 32 rows, as the reference says."""
    net = network("""
    model m {
        input x : f32[batch, 4]
        output y = x |> dense(1)
        loss mean(y)
    }
    train { optimizer = adam() }""")
    assert dict(net.sizes) == {"batch": 32} and net.train.batch == 32


def test_no_train_block():
    """Without a train block there is no training."""
    assert model("output y = x").train is None
