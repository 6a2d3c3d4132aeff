"""`nnc predict`: the outputs of a model on data."""

from __future__ import annotations

import argparse
from typing import Any

from nncompiler.cli import UsageError, models, options
from nncompiler.cli.output import need_apart, need_writable, print_json, say
from nncompiler.errors import UserError

MAX_JSON = 1_000_000


def add_parser(subparsers: options.Subparsers) -> None:
    parser = options.add_verb(
        subparsers, "predict", "The outputs of a model for every row of its inputs. Printed, "
        "large ones in extracts; -o writes all.",
    )  # fmt: skip
    models.add_use(parser)
    parser.add_argument("-o", "--output", metavar="OUT.npz", help="write the outputs to a file")


def run(args: argparse.Namespace) -> None:
    if args.output is not None and not args.output.endswith((".npz", ".safetensors")):
        raise UsageError(
            "NN0919", f"expected -o OUT.npz or .safetensors, but found '{args.output}'"
        )
    if args.output is not None:
        need_apart((args.model, args.data, args.weights), args.output)
        need_writable(args.output)
    whole = args.part == "all"  # else targets say how rows are split
    model = models.open_model(args, ("init", "infer") if whole else ("init", "infer", "loss"))
    inputs = [a.name for a in model.bindings.any("infer").given]
    wanted = [a for a in model.manifest.data if a.name in inputs or not whole]
    data = models.data_of(args, wanted)
    found = model.predict({name: data[name] for name in inputs})
    outputs = found if isinstance(found, dict) else {model.manifest.outputs[0]: found}
    if args.output is not None:
        from nncompiler.runtime.weights import write_weights

        write_weights(args.output, outputs)
        say(f"{args.output}: {', '.join(f'{n} {_type(a)}' for n, a in outputs.items())}")
    elif args.json:
        _print_json(outputs)
    else:
        import numpy as np

        for name, array in outputs.items():
            text = np.array2string(array, threshold=1000, precision=6, suppress_small=True)
            print(f"{name} {_type(array)}\n{text}")


def _print_json(outputs: dict[str, Any]) -> None:
    size = sum(a.size for a in outputs.values())
    if size > MAX_JSON:
        raise UserError(
            "NN0920", f"expected at most {MAX_JSON} numbers to print, but found {size}",
            help="write them to a file with -o OUT.npz",
        )  # fmt: skip
    print_json({name: array.tolist() for name, array in outputs.items()})


def _type(array: Any) -> str:
    return f"{array.dtype}[{','.join(map(str, array.shape))}]"
