"""A compiled model: its state in memory, and everything one does with it.

    model = load("digits.so")
    history = model.fit({"image": images, "digit": digits}, epochs=20)
    probs = model.predict(test_images)

Data are dicts of arrays keyed by the names of inputs and targets; where a model has one input, an
array alone will do to predict. A `Model` is for one thread; bound calls of `infer` may run in
several.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from nncompiler.errors import UserError
from nncompiler.runtime import checks, evaluation
from nncompiler.runtime.artifact import Artifact, load_artifact
from nncompiler.runtime.bindings import Bindings, Compiler
from nncompiler.runtime.call import ALIGNMENT, BoundCall, Call, aligned, pointer
from nncompiler.runtime.checks import Array, Data, Path
from nncompiler.runtime.crew import MOST
from nncompiler.runtime.state import State

# What trains, and what reads and writes files, is imported by the methods that need it: a process
# that only predicts starts in a sixth less time.
if TYPE_CHECKING:
    import numpy.typing as npt

    from nncompiler.runtime.callbacks import Callback
    from nncompiler.runtime.progress import Report
    from nncompiler.runtime.record import History, Record

Loss = float | dict[str, float]


def load(path: str | os.PathLike[str], threads: int = 1) -> Model:
    """The model in a compiled file, with its embedded weights, or else initialised with seed 0.

    One that was compiled without `init` must be given weights before it is used (else NN0719).
    """
    return Model(load_artifact(path), threads=threads)


class Model:
    """A compiled model over a state of its own.

    `compiler`, where given, compiles the model for a further number of rows when one is needed.
    Functions that gain by it run on `threads` threads, the caller's among them: to the same bits,
    whatever their number.
    """

    def __init__(
        self, artifact: Artifact, compiler: Compiler | None = None, threads: int = 1
    ) -> None:
        threads = checks.whole(threads, "threads", 1, MOST)
        self.artifact = artifact
        self.manifest = artifact.manifest
        self.name = artifact.manifest.name
        #: Where training stands; what a checkpoint holds besides the state.
        self.record: Record | None = None
        self.bindings = Bindings(artifact, compiler, threads)
        self.state = State(artifact)
        self._calls: dict[tuple[str, int], Call] = {}
        self._predictor: evaluation.Predictor | None = None
        self._batched = {
            f: next((a.name for a in self.bindings.any(f).given if a.batched), None)
            for f in {e.function for e in self.manifest.entries}
        }

    def __repr__(self) -> str:
        views = self.state.parameters()
        count = sum(views[e.name].size for e in self.manifest.parameters if e.kind == "param")
        return f"<Model {self.name}: {count} parameters, batch {self._sizes()}>"

    def __reduce__(self) -> str:
        raise TypeError(
            f"the model '{self.name}' is memory and native code, which is neither copied nor "
            "pickled: take `state_dict()`, or write it with `save_artifact` and `save` and load "
            "these where it is wanted"
        )

    # -- State

    def init(self, seed: int = 0) -> None:
        """Draw all parameters anew and reset the optimizer; the same seed gives the same bits.

        Parameters that are embedded in the artifact are taken instead of drawn.
        """
        seed = checks.whole(seed, "the seed", 0, 2**64 - 1)
        self.state.init(seed)
        self.record = None

    @property
    def parameters(self) -> Mapping[str, Array]:
        """Read-only views of the parameters by name; they follow training."""
        views = {name: view.view() for name, view in self.state.parameters().items()}
        for view in views.values():
            view.flags.writeable = False
        return MappingProxyType(views)

    @property
    def rate(self) -> float:
        """The learning rate before its schedule; may be set."""
        return float(self.state.views["rate"])

    @rate.setter
    def rate(self, value: float) -> None:
        self.state.views["rate"][...] = checks.at_least(value, "the learning rate", 0.0)

    @property
    def step(self) -> int:
        """The number of optimizer steps since `init`; several micro-batches may make one."""
        return int(self.state.views["step"])

    def state_dict(self) -> dict[str, Array]:
        """Copies of the parameters by name."""
        self.state.need_unfrozen()
        self.state.need_parameters()
        return {name: view.copy() for name, view in self.state.parameters().items()}

    def averages(self) -> dict[str, Array]:
        """`state_dict` with the moving averages that `ema` in the train block keeps; before the
        first step, and for what is not trained, the parameters themselves."""
        if not self.manifest.train.get("ema"):
            raise UserError(
                "NN0718", f"expected a model that keeps averages, but '{self.name}' does not",
                help="write `ema = 0.999` in the train block",
            )  # fmt: skip
        found = self.state_dict()
        for name in found if self.step else ():
            if (mean := self.state.views.get(f"opt.ema.{name}")) is not None:
                found[name] = mean.copy()
        return found

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within it, the parameters are their moving averages: to predict, evaluate and save."""
        held, means = self.state_dict(), self.averages()
        self.state.overwrite(means)
        try:
            yield
        finally:
            self.state.overwrite(held)

    def load_state_dict(self, arrays: Mapping[str, npt.ArrayLike], strict: bool = True) -> None:
        """Set parameters by name; nothing is changed if there is an error.

        With `strict`, all of them and no others; without, those that both sides have.
        """
        self.state.need_unfrozen()
        entries = {e.name: e for e in self.manifest.parameters}
        if strict:
            checks.parameter_names(arrays, entries)
        checked = {
            name: checks.parameter(arrays[name], entry)
            for name, entry in entries.items() if name in arrays
        }  # fmt: skip
        self.state.overwrite(checked)

    # -- Files

    def save(self, path: Path) -> None:
        """Write the parameters to an `.npz` or `.safetensors` file, atomically."""
        from nncompiler.runtime.weights import write_weights

        write_weights(path, self.state_dict())

    def load_weights(self, path: Path, strict: bool = True) -> None:
        """Set the parameters from an `.npz` or `.safetensors` file; see `load_state_dict`."""
        from nncompiler.runtime.weights import read_weights

        self.load_state_dict(read_weights(path), strict)

    save_weights = save

    def save_artifact(self, path: Path) -> None:
        """Write the compiled library itself, as it was compiled (not the current parameters)."""
        from nncompiler.runtime.files import write_atomically
        from nncompiler.runtime.naming import named_library

        image = named_library(self.artifact.image, path)
        write_atomically(path, lambda stream: stream.write(image))

    def save_checkpoint(self, path: Path) -> None:
        """Write parameters, optimizer state and the place in training, atomically."""
        from nncompiler.runtime import checkpoint

        self.state.need_unfrozen()
        self.state.need_parameters()
        checkpoint.write(path, self.name, self.manifest.state, self.state.views, self.record)

    def load_checkpoint(self, path: Path) -> None:
        """Become the model that a checkpoint was written from; `fit(resume=path)` also goes on."""
        from nncompiler.runtime import checkpoint

        self.state.need_unfrozen()
        arrays, self.record = checkpoint.read(path, self.name, self.manifest.state)
        self.state.overwrite(arrays)

    def resume(self, path: Path, fit: Record) -> Record:
        """Load a checkpoint if training with the settings of `fit` can go on from it."""
        from nncompiler.runtime import checkpoint

        arrays, record = checkpoint.read(path, self.name, self.manifest.state)
        if record is None:
            raise checkpoint.not_begun(path)
        record.check(fit)
        self.state.overwrite(arrays)
        return record

    # -- Calls

    def memory(self, function: str) -> tuple[Any, ...]:
        """The first arguments of an entry point: state and arena; else `UserError` NN0719."""
        self.state.need_parameters()
        return self.state.address, pointer(self.bindings.arena)

    def call(self, function: str, arrays: Mapping[str, npt.ArrayLike]) -> Call:
        """Run a function on just these arrays; the call holds the results until the next one."""
        try:
            rows = arrays[self._batched[function]].shape[0]  # type: ignore[index,union-attr]
            call = self._calls[function, rows]
        except (KeyError, AttributeError, IndexError, TypeError):
            call = self._prepare(function, self.bindings.rows_of(function, arrays))
        call(arrays)
        return call

    def _prepare(self, function: str, rows: int) -> Call:
        binding = self.bindings.get(function, rows)
        data = (*self.manifest.inputs, *self.manifest.targets)  # not every function reads them all
        known = (*(a.name for a in binding.entry.given), *(data if function != "apply" else ()))
        call = Call(binding.entry, binding.native, self.memory(function), known)
        return self._calls.setdefault((function, rows), call)

    def bind(self, function: str, **arrays: Array) -> BoundCall:
        """A call with fixed arrays, for loops where every microsecond counts; see `BoundCall`."""
        binding = self.bindings.get(function, self.bindings.rows_of(function, arrays))
        state, _ = self.memory(function)
        arena = pointer(aligned(max(ALIGNMENT, binding.entry.arena_bytes)))
        return BoundCall(binding.entry, binding.native, (state, arena), arrays)

    def train_step(self, **arrays: npt.ArrayLike) -> Loss:
        """One step of the optimizer on one batch. The loss before it (by name, if several)."""
        return self._losses(self.call("train_step", arrays))

    def loss(self, data: Data) -> Loss:
        """The loss of one batch (by name, if several), without training."""
        return self._losses(self.call("loss", data))

    def _losses(self, call: Call) -> Loss:
        if len(self.manifest.losses) == 1:
            return float(call.results[self.manifest.losses[0]])
        return {name: float(call.results[name]) for name in self.manifest.losses}

    def gradients(self, data: Data) -> dict[str, Array]:
        """The gradient of the loss for each parameter, from one batch."""
        results = self.call("grad", data).results
        return {n[5:]: a.copy() for n, a in results.items() if n.startswith("grad.")}

    def input_gradients(self, data: Data) -> dict[str, Any]:
        """The gradient of the loss of one batch, as in prediction, for each float input (by name
        of the loss first, if several). For models compiled with the function `input_grad`."""
        call = self.call("input_grad", data)
        inputs, losses = self.manifest.inputs, self.manifest.losses
        found = {loss: {
            name: call.results[key].copy() for name in inputs
            if (key := f"grad.{name}" if len(losses) == 1 else f"grad.{loss}.{name}")
            in call.results
        } for loss in losses}  # fmt: skip
        return found[losses[0]] if len(losses) == 1 else found

    def apply(self, gradients: Mapping[str, npt.ArrayLike]) -> None:
        """One step of the optimizer with given gradients, by name of the parameter."""
        given = {f"grad.{name}": value for name, value in gradients.items()}
        names = [a.name for a in self.bindings.any("apply").given]
        self.call("apply", given if any(n in given for n in names) else gradients)

    # -- Data sets

    def fit(
        self, data: Data, *, epochs: int | None = None, batch: int | None = None,
        validation_data: Data | None = None, shuffle: bool = True, seed: int = 0,
        callbacks: Sequence[Callback] = (), progress: bool | Report = True,
        check_nan: bool = False, initial_epoch: int = 0, resume: Path | None = None,
    ) -> History:  # fmt: skip
        """Train up to epoch `epochs` and give the history.

        `epochs` and `batch` are by default those of the `train` block. `seed` decides the order
        of the rows. `resume` goes on from a checkpoint, to the same bits as without the stop.
        `progress` is shown on stderr, or given to a function. With `check_nan`, data that are not
        finite are refused. Ctrl-C finishes the chunk (some 0.2 s) and raises KeyboardInterrupt;
        `save_checkpoint` then keeps the place.
        """
        from nncompiler.runtime import training

        settings = training.Settings(
            epochs, batch, shuffle, seed, tuple(callbacks), progress, check_nan, initial_epoch)
        return training.fit(self, data, validation_data, settings, resume)

    def predict(self, inputs: Data | npt.ArrayLike) -> Any:
        """The outputs for any number of rows: an array if there is one output, else a dict."""
        if self._predictor is None:
            self._predictor = evaluation.Predictor(self)
        return self._predictor(inputs)

    def evaluate(self, data: Data, *, check_nan: bool = False) -> dict[str, float]:
        """Losses and metrics over any number of rows, each the mean over the rows."""
        return evaluation.evaluate(self, data, check_nan)

    # -- Views

    def dump(self, stage: str, function: str | None = None) -> str:
        """The text of a stage of the compiler, embedded in the artifact."""
        return self.artifact.text(stage, function)

    def _sizes(self) -> str:
        rows = dict.fromkeys(e.rows for e in self.manifest.entries if e.rows)
        return ", ".join(map(str, rows)) or "fixed"

    def summary(self) -> str:
        """A table of the parameters and of the memory the model needs."""
        from nncompiler.runtime.summary import summary

        return summary(self, self._sizes())
