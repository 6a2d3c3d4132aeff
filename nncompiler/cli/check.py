"""`nnc check`: parse and elaborate a file, verify its graphs, list what weights hold."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from nncompiler.cli import options
from nncompiler.cli.output import print_json

if TYPE_CHECKING:
    from nncompiler.ir.model import Network
    from nncompiler.ir.types import TensorType


def add_parser(subparsers: options.Subparsers) -> None:
    parser = options.add_verb(
        subparsers, "check", "Parse and elaborate a file, and verify its graphs."
    )
    parser.add_argument("file", help="a .nn file")
    options.add_model(parser)
    parser.add_argument(
        "--params", action="store_true", help="list parameters and states: name, type, bytes"
    )
    options.add_json(parser)


def run(args: argparse.Namespace) -> None:
    from nncompiler.ir import verify

    network = options.compilation_of(args).network
    for function in network.functions:
        verify.check(function)
    if args.json:
        print_json(_record(args.file, network))
        return
    if args.params:
        print(_parameters(network))
    elements = sum(t.size for _, t in network.parameters)
    sizes = "".join(f", {name} {n}" for name, n in network.sizes)
    print(f"{args.file}: ok, model {network.name}, {elements} parameters in "
          f"{len(network.parameters)} tensors{sizes}")  # fmt: skip


def _parameters(network: Network) -> str:
    from nncompiler.runtime.summary import Tensor, tensors

    parameters, states = (
        [Tensor(name, str(t), t.size, t.nbytes) for name, t in group]
        for group in (network.parameters, network.states)
    )
    return tensors(parameters, states) + "\n"


def _record(file: str, network: Network) -> dict[str, Any]:
    def typed(items: tuple[tuple[str, TensorType], ...]) -> list[dict[str, Any]]:
        return [
            {"name": n, "dtype": t.dtype.name, "shape": list(t.shape), "bytes": t.nbytes}
            for n, t in items
        ]

    return {
        "file": file, "model": network.name, "dtype": network.dtype.name,
        "sizes": dict(network.sizes),
        "inputs": typed(network.inputs), "targets": typed(network.targets),
        "outputs": typed(network.outputs), "losses": list(network.losses),
        "metrics": list(network.metrics), "parameters": typed(network.parameters),
        "states": typed(network.states),
    }  # fmt: skip
