"""Inference of a workload as an ONNX file, written by PyTorch's exporter."""

from __future__ import annotations

import warnings
from pathlib import Path

import onnx
import torch

from harness.implementation import Implementation
from harness.torch_module import load
from harness.workload import Array, Arrays, Torch, Workload

OPSET = 18


class Export(Implementation):
    """`prepare` writes the file; there is nothing to time."""

    def versions(self) -> dict[str, str]:
        return {"onnx": onnx.__version__}

    def prepare(
        self, workload: Workload, kind: str, batch: int, weights: Arrays | None, data: Arrays,
        onnx: str,
    ) -> str:  # fmt: skip
        assert weights is not None and kind == "infer"
        made = workload.torch()
        load(made, weights)
        # Indices as they are given, i32: no conversion is part of the model.
        given = tuple(torch.from_numpy(data[n]) for n in workload.inputs)
        write(Infer(made).eval(), given, workload, Path(onnx))
        return ""

    def value(self) -> Array:
        raise NotImplementedError


class Infer(torch.nn.Module):
    """Inference as a module."""

    def __init__(self, made: Torch) -> None:
        super().__init__()
        self.module, self.infer = made.module, made.infer

    def forward(self, *given: torch.Tensor) -> object:
        return self.infer(*given)


def write(
    module: Infer, given: tuple[torch.Tensor, ...], workload: Workload, path: Path
) -> None:
    names = {"input_names": list(workload.inputs), "output_names": [workload.output]}
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, given, str(path), opset_version=OPSET, dynamo=False, **names)
    onnx.checker.check_model(onnx.load(str(path)))
