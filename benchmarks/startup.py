"""From the start of a process to the first prediction, and the memory that takes.

    python benchmarks/startup.py [--rounds 5] [--model mlp,lenet] [--write]

A new process for each measurement: it loads a model that is compiled or exported already, or that
is written in the framework, with its weights, and predicts once. Memory is the largest resident
set of that process, and of one that trains for ten steps. One thread.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from harness.implementation import IMPLEMENTATIONS
from harness.pool import PEERS, Pool
from harness.tables import ROOT, chosen, facts, parser, positive, publish, table
from harness.workload import find, names

import nncompiler
from nncompiler.api import build, request

#: Seconds from start to the first prediction.
TARGET = 0.2
STEPS = 10
FRAMEWORKS = ("ours", "ort", "openvino", "torch", "jax")
TRAINING = ("ours", "torch", "jax")

COMMON = """
import sys, json
import numpy as np
model, artifact, onnx, weights, data = sys.argv[1:]
given = dict(np.load(data))
"""
DONE = """
first = np.ravel(found)[:4].tolist()
# Not `getrusage`: its figure is never below that of the process that started this one.
used = next(line for line in open("/proc/self/status") if line[:6] == "VmHWM:").split()[1]
print(json.dumps({"first": first, "memory": 1024 * int(used)}), flush=True)
"""
CODE = {
    "ours": """
import nncompiler
found = nncompiler.load(artifact).predict(given)
found = next(iter(found.values())) if isinstance(found, dict) else found
""",
    "ort": """
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
found = onnxruntime.InferenceSession(onnx, options).run(None, given)[0]
""",
    "openvino": """
import openvino
compiled = openvino.compile_model(onnx, "CPU", {
    "INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"})
found = compiled(given)[0]
""",
    "torch": """
import torch
from harness.workload import find
from harness.torch_module import load, tensor
torch.set_num_threads(1)
made = find(model).torch()
load(made, dict(np.load(weights)))
made.module.eval()
with torch.inference_mode():
    found = made.infer(**{n: tensor(a) for n, a in given.items()})
found = found[0] if isinstance(found, tuple) else found
""",
    "jax": """
import jax
from harness.workload import find
found = jax.jit(find(model).jax().infer)(dict(np.load(weights)), **given)
found = found[0] if isinstance(found, tuple) else found
""",
}


class Files:
    """What the processes of a model load."""

    def __init__(self, model: str, folder: Path, pool: Pool) -> None:
        workload = find(model)
        kind, self.batch = next(c for c in workload.cases if c[0] == "infer")
        data = workload.data(self.batch, np.random.default_rng(0))
        self.model = model
        artifact, onnx, weights, given, every = (
            folder / f"{model}.{end}" for end in ("so", "onnx", "w.npz", "x.npz", "all.npz")
        )
        made = nncompiler.compile(ROOT / workload.path, batch=self.batch, functions=("infer",))
        np.savez(weights, **made.state_dict())
        np.savez(given, **{n: data[n] for n in workload.inputs})
        np.savez(every, **data)
        batch = ((("batch", self.batch),),)
        wanted = request(
            ROOT / workload.path, bindings=batch, functions=("infer",), weights=str(weights)
        )
        artifact.write_bytes(build(wanted).so)
        pool.get("export", 1).ask(
            "prepare", workload=model, kind=kind, batch=self.batch, data=str(every),
            weights=str(weights), onnx=str(onnx),
        )  # fmt: skip
        self.arguments = [model, *map(str, (artifact, onnx, weights, given))]


def predicted(name: str, files: Files) -> tuple[float, int, list[float]]:
    """Seconds until the answer is there, bytes of memory, the first numbers of the answer."""
    python = sys.executable if IMPLEMENTATIONS[name].ours else str(PEERS)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'benchmarks'}"}
    environment |= {"JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1"}
    if name == "jax":
        environment |= IMPLEMENTATIONS[name].single
    start = time.perf_counter()
    run = subprocess.run(
        [python, "-c", COMMON + CODE[name] + DONE, *files.arguments], env=environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    took = time.perf_counter() - start
    if run.returncode:
        raise SystemExit(f"{name}, {files.model}: {run.stderr.strip()}")
    answer = json.loads(run.stdout.splitlines()[-1])
    return took, answer["memory"], answer["first"]


def trained(name: str, model: str, folder: Path, weights: str, cores: list[int]) -> int:
    """Bytes of memory of a new process that trains; what is compiled is in the cache."""
    workload = find(model)
    batch = next(batch for kind, batch in workload.cases if kind == "train")
    data = folder / "train.npz"
    arrays = workload.data(batch, np.random.default_rng(0))
    np.savez(data, **arrays)  # type: ignore[arg-type]
    given = {"workload": model, "kind": "train", "batch": batch, "data": str(data)}
    if name == "ours":
        path = ROOT / workload.path
        nncompiler.compile(path, batch=batch, threads=1, functions=("train_step",))
    with Pool(cores) as pool:
        worker = pool.get(name, 1)
        worker.ask("prepare", **given, weights=weights, onnx="")
        worker.ask("values", steps=STEPS)
        found: int = worker.ask("memory")
    return found


def start_rows(every: Sequence[Files], rounds: int) -> tuple[list[list[str]], list[list[str]]]:
    """Seconds and megabytes, a row for each model."""
    seconds, memory = [], []
    for files in every:
        times: dict[str, list[float]] = {n: [] for n in FRAMEWORKS}
        used = {}
        expected = predicted("ours", files)[2]
        for _ in range(rounds):
            for name in FRAMEWORKS:
                took, used[name], first = predicted(name, files)
                if not np.allclose(first, expected, 1e-3, 1e-6):
                    raise SystemExit(f"{name}, {files.model}: predicts {first}, not {expected}")
                times[name].append(took)
        title = f"{files.model}, {files.batch}"
        medians = {n: statistics.median(t) for n, t in times.items()}
        ours = f"{medians['ours']:.3f}"
        shown = [f"**{ours}**" if medians["ours"] > TARGET else ours]
        seconds.append([title, *shown, *(f"{medians[n]:.2f}" for n in FRAMEWORKS[1:])])
        memory.append([title, *(megabytes(used[n]) for n in FRAMEWORKS)])
    return seconds, memory


def megabytes(count: int) -> str:
    return f"{count / 1e6:.0f}"


def main() -> None:
    flags = parser(__doc__ or "")
    flags.add_argument("--rounds", type=positive, default=5, help="default: %(default)s")
    flags.add_argument("--model", metavar="NAME[,NAME...]", help="default: all workloads")
    options = flags.parse_args()
    options.model = chosen(flags, "--model", options.model, names())
    known = facts() | {"rounds": str(options.rounds)}
    models, cores = options.model, sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Pool(cores) as pool:
            every = [Files(model, folder, pool) for model in models]
        seconds, memory = start_rows(every, options.rounds)
        training = [
            [f.model, *(megabytes(trained(n, f.model, folder, f.arguments[3], cores))
                        for n in TRAINING)]
            for f in every
        ]  # fmt: skip
    titles = [IMPLEMENTATIONS[n].title for n in FRAMEWORKS]
    text = "# Start\n\nSeconds from the start of a process to its first prediction: Python, "
    text += f"imports, model, weights, one call. Medians; ours should stay below {TARGET} s.\n\n"
    text += table(("model, batch", *titles), seconds)
    text += "\nLargest resident memory of that process, in MB.\n\n"
    text += table(("model, batch", *titles), memory)
    text += f"\nLargest resident memory of a process that trains for {STEPS} steps, in MB.\n\n"
    text += table(("model", *(IMPLEMENTATIONS[n].title for n in TRAINING)), training)
    publish("startup", text, options.write, known)


if __name__ == "__main__":
    main()
