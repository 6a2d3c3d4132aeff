"""The manifest of an artifact: everything a caller must know, as JSON-ready data.

It becomes the section `.nnmanifest` and is read before the library is opened. `digest` is filled
in last: the SHA-256 of the whole file while the digest itself was `NO_DIGEST`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nncompiler.codegen.module import abi
from nncompiler.codegen.module.run import Call, Repeat, flat
from nncompiler.codegen.target import Target
from nncompiler.ir.kernel import Plan
from nncompiler.ir.model import EntryPoint, Network, Program
from nncompiler.ir.types import TensorType

NO_DIGEST = "0" * 64


def manifest(
    program: Program,
    target: Target,
    networks: Sequence[Network],
    source_sha256: str,
    version: str,
    embedded: bool,
) -> dict[str, Any]:
    state = program.state
    return {
        "abi": abi.VERSION,
        "name": abi.identifier(program.name),
        "nncompiler": version,
        "target": {
            "cpu": target.cpu,
            "tune": target.tune,
            "features": sorted(target.required_features),
        },
        "dtype": str(program.dtype),
        "state": {
            "bytes": state.bytes,
            "infer_bytes": state.infer_bytes,
            "frozen": state.frozen,
            "entries": [
                {"name": e.name, "kind": e.kind, "offset": e.offset, **_type(e.type)}
                for e in state.entries
            ],
        },
        "arena_bytes": abi.arena_bytes(program),
        "entries": [_init(program), *(_entry(program, e) for e in abi.public(program))],
        "fit": {f.entry.suffix: f.symbol for f in abi.fits(program)},
        "parallel_fit": {
            f.entry.suffix: abi.parallel_symbol(program, f.entry, fit=True)
            for f in abi.fits(program)
            if abi.is_parallel(f.entry.plan)
        },
        "embedded_weights": embedded,
        "initialises": embedded or abi.draws(program),
        "source_sha256": source_sha256,
        "digest": NO_DIGEST,
        **_network(networks),
    }


def _type(type: TensorType) -> dict[str, Any]:
    return {"dtype": str(type.dtype), "shape": list(type.shape)}


def _init(program: Program) -> dict[str, Any]:
    return {
        "symbol": abi.symbol(program, "init"), "function": "init", "suffix": "", "rows": 0,
        "arena_bytes": 0, "bound": 0, "arguments": [],
    }


def _entry(program: Program, entry: EntryPoint) -> dict[str, Any]:
    return {
        "symbol": abi.symbol(program, entry.function, entry.suffix),
        "function": entry.function,
        "suffix": entry.suffix,
        "rows": entry.rows,
        "arena_bytes": entry.plan.arena_bytes,
        "bound": entry.plan.bound,
        "arguments": _arguments(entry.plan, entry.batched),
        "parallel": abi.parallel_symbol(program, entry),
    }


def _arguments(plan: Plan, batched: Sequence[str]) -> list[dict[str, Any]]:
    """`limits` are lengths that an argument's integers index: those of a part, by positions along
    each dimension, or all where none is named."""
    table = plan.table()
    found = []
    for a in plan.arguments:
        row = {"name": a.buffer.removeprefix("%"), "role": a.role, "batched": a.buffer in batched}
        row |= _type(table[a.buffer].type)
        checks = [c for c in plan.checks if c.buffer == a.buffer]
        if checks:
            row["limits"] = [
                {
                    "below": c.extent,
                    "part": [
                        {"first": r.start, "behind": r.stop, "step": r.step} for r in c.part
                    ],
                }
                for c in checks
            ]
        found.append(row)
    return found


def kernel_texts(
    calls: Mapping[tuple[str, str], tuple[Call | Repeat, ...]],
) -> dict[str, str]:
    """By entry point, a line for each kernel: its name in the plan, that of its function in the
    machine code, which profilers show, and the nodes that it computes.
    """
    return {
        f"{function}_{suffix}".rstrip("_"): "".join(
            f"{' '.join((c.name, c.function, *c.nodes))}\n" for c in flat(found)
        )
        for (function, suffix), found in calls.items()
    }


def _network(networks: Sequence[Network]) -> dict[str, Any]:
    """What the model is, apart from its code; the first network stands for all bindings."""
    if not networks:
        empty: dict[str, Any] = {
            k: [] for k in ("inputs", "targets", "outputs", "losses", "metrics")
        }
        return empty | {"sizes": {}, "train": None}
    first = networks[0]
    sizes: dict[str, list[int]] = {}
    for network in networks:
        for name, value in network.sizes:
            if value not in sizes.setdefault(name, []):
                sizes[name].append(value)
    return {
        "inputs": [name for name, _ in first.inputs],
        "targets": [name for name, _ in first.targets],
        "outputs": [name for name, _ in first.outputs],
        "losses": list(first.losses),
        "metrics": list(first.metrics),
        "sizes": sizes,
        "train": _train(first),
    }


def _train(network: Network) -> dict[str, Any] | None:
    spec = network.train
    if spec is None:
        return None
    return {
        "batch": spec.batch,
        "epochs": spec.epochs,
        "optimizer": spec.optimizer.kind,
        "settings": dict(spec.optimizer.settings),
        "schedule": {"kind": spec.schedule.kind, **dict(spec.schedule.settings)},
        "l1": spec.l1,
        "l2": spec.l2,
        "clip_norm": spec.clip_norm,
        "clip_value": spec.clip_value,
        "objectives": [{"loss": o.loss, "prefix": o.prefix} for o in spec.objectives],
        "frozen": list(spec.frozen),
        "rates": dict(spec.rates),
        "accumulate": spec.accumulate,
        "ema": spec.ema,
    }
