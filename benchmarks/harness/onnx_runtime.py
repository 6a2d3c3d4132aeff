"""ONNX Runtime: a session with all optimisations, its inputs and outputs bound."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort

from harness.implementation import Implementation
from harness.workload import Array, Arrays, Workload


class OnnxRuntime(Implementation):
    """One call is `run_with_iobinding`: nothing is copied or allocated for it."""

    def versions(self) -> dict[str, str]:
        return {"onnxruntime": ort.__version__}

    def prepare(
        self, workload: Workload, kind: str, batch: int, weights: Arrays | None, data: Arrays,
        onnx: str,
    ) -> str:  # fmt: skip
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        session = ort.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
        binding = session.io_binding()
        self.given = [ort.OrtValue.ortvalue_from_numpy(data[n]) for n in workload.inputs]
        for name, value in zip(workload.inputs, self.given, strict=True):
            binding.bind_ortvalue_input(name, value)
        self.found = []
        for output in session.get_outputs():
            assert output.type == "tensor(float)", output.type
            value = ort.OrtValue.ortvalue_from_shape_and_type(output.shape, np.float32)
            self.found.append(value)
            binding.bind_ortvalue_output(output.name, value)
        run = session._sess.run_with_iobinding  # without the checks of the Python layer
        self.session, self.binding = session, binding
        self.call = lambda: run(binding._iobinding, None)
        return ""

    def value(self) -> Array:
        return self.found[0].numpy()
