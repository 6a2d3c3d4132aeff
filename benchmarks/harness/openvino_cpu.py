"""OpenVINO on the CPU: one infer request, tuned for latency, in f32, its tensors bound."""

from __future__ import annotations

import numpy as np
import openvino as ov

from harness.implementation import Implementation
from harness.workload import Array, Arrays, Workload


class OpenVino(Implementation):
    """One call is `start_async` and `wait` of a request, the quickest way from Python."""

    def versions(self) -> dict[str, str]:
        return {"openvino": ov.__version__.partition("-")[0]}

    def prepare(
        self, workload: Workload, kind: str, batch: int, weights: Arrays | None, data: Arrays,
        onnx: str,
    ) -> str:  # fmt: skip
        core = ov.Core()
        settings = {
            "INFERENCE_NUM_THREADS": self.threads, "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32",
            "ENABLE_CPU_PINNING": False,
        }  # fmt: skip
        self.compiled = core.compile_model(core.read_model(onnx), "CPU", settings)
        request = self.compiled.create_infer_request()
        self.arrays = [data[n] for n in workload.inputs]
        for k, array in enumerate(self.arrays):
            request.set_input_tensor(k, ov.Tensor(array, shared_memory=True))
        self.request = request

        def call() -> None:
            request.start_async()
            request.wait()

        self.call = call
        return ""

    def value(self) -> Array:
        return np.array(self.request.get_output_tensor(0).data)
