"""The state of a model in memory: parameters, optimizer slots, and where training stands."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping

from nncompiler.errors import UserError
from nncompiler.runtime.artifact import Artifact
from nncompiler.runtime.call import aligned, check_code, pointer
from nncompiler.runtime.checks import Array
from nncompiler.runtime.manifest import HEADER_BYTES, StateEntry


class State:
    """The bytes that compiled functions work on, and a view of each tensor in them by name."""

    def __init__(self, artifact: Artifact) -> None:
        self._artifact, self._manifest = artifact, artifact.manifest
        #: All of its bytes.
        self.memory = aligned(self._manifest.state_bytes)
        #: What compiled functions take.
        self.address = pointer(self.memory)
        self.views = {e.name: self._view(e) for e in self._manifest.state}
        #: Parameters that are zeros, for `init` was not compiled, until somebody sets them.
        self._unset = {e.name for e in self._manifest.parameters}
        if self._manifest.initialises:
            self._unset.clear()
        self._reset(0)

    def _view(self, entry: StateEntry) -> Array:
        stretch = self.memory[entry.offset : entry.offset + entry.bytes]
        return stretch.view(entry.dtype).reshape(entry.shape)

    def init(self, seed: int) -> None:
        """Draw all parameters and reset the optimizer; else `UserError` NN0719."""
        if not self._manifest.initialises:
            raise self._without_init()
        self._reset(seed)

    def _reset(self, seed: int) -> None:
        symbol = self._manifest.symbol("init")
        code = self._artifact.lookup(symbol)(self.address, ctypes.c_uint64(seed))
        check_code(code, symbol, {}, ())

    def need_parameters(self) -> None:
        """`UserError` NN0719 if there are parameters that have no values yet."""
        if self._unset:
            raise self._without_init()

    def need_unfrozen(self) -> None:
        """`UserError` NN0720 if the parameters became constants."""
        if self._manifest.frozen:
            raise UserError(
                "NN0720",
                f"expected a model with parameters, but those of '{self._manifest.name}' are "
                "frozen: constants since it was compiled",
                help="compile it without `freeze`, and load the weights",
            )

    def _without_init(self) -> UserError:
        return UserError(
            "NN0719",
            f"expected parameters, but '{self._manifest.name}' was compiled without `init`",
            help="load weights first, or compile it with `init` among the functions",
        )

    def parameters(self) -> dict[str, Array]:
        """Views of the parameters by name."""
        return {e.name: self.views[e.name] for e in self._manifest.parameters}

    def overwrite(self, arrays: Mapping[str, Array]) -> None:
        """Set tensors by name. Native `load`, last, renews what derives from them."""
        for name, values in arrays.items():
            self.views[name][...] = values
        self._unset -= arrays.keys()
        image = self.memory[HEADER_BYTES : self._manifest.infer_bytes].copy()
        symbol = self._manifest.symbol("load")
        load, size = self._artifact.lookup(symbol), ctypes.c_size_t(image.size)
        check_code(load(self.address, pointer(image), size), symbol, {}, ())
