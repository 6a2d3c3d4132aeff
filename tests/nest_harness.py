"""Compiles hand-built kernels and runs them on NumPy arrays, for the tests of code generation."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping

import llvmlite.binding as llvm
import numpy as np

from nncompiler.codegen.kernel import KernelCode, emit_kernel
from nncompiler.codegen.objects.object_code import optimised
from nncompiler.codegen.target import TRIPLE, Target, host, machine, select
from nncompiler.ir.kernel import Axis, Buffer, Kernel, Schedule
from nncompiler.ir.scalar import Affine, Load
from nncompiler.ir.types import DTYPES, TensorType

#: What plans for vectors of 32 and of 64 bytes are made for.
AVX2, AVX512 = (select(level).machine for level in ("x86-64-v3", "x86-64-v4"))


def buffer(name: str, array: np.ndarray, **fields) -> Buffer:
    """A buffer that an array fits; its strides are the array's."""
    dtype = DTYPES[
        {
            "float32": "f32",
            "float64": "f64",
            "int32": "i32",
            "int64": "i64",
            "uint8": "u8",
            "uint32": "u32",
            "uint64": "u64",
            "bool": "bool",
        }[array.dtype.name]
    ]
    strides = tuple(s // array.itemsize for s in array.strides)
    fields = {"space": "argument", "strides": strides} | fields
    return Buffer(name, TensorType(dtype, array.shape), **fields)


def module_text(code, counters: Mapping[str, int] | None = None) -> str:
    """A module with an entry point ``run(void **pointers)`` around one kernel."""
    slots = range(len(code.pointers))
    fetch = [
        f"  %s{n} = getelementptr ptr, ptr %table, i64 {n}\n  %a{n} = load ptr, ptr %s{n}"
        for n in slots
    ]
    args = [f"ptr %a{n}" for n in slots] + [f"i64 {(counters or {})[c]}" for c in code.counters]
    call = f"  call void @kernel({', '.join(args)})"
    run = "\n".join(["define void @run(ptr %table) {", *fetch, call, "  ret void", "}"])
    declarations = "\n".join(sorted(code.declarations))
    return f'target triple = "{TRIPLE}"\n{declarations}\n{code.text}\n{run}\n'


class Compiled:
    """A kernel in memory; call it with arrays by buffer name."""

    def __init__(
        self, kernel: Kernel, buffers: Mapping[str, Buffer], target: Target | None = None
    ) -> None:
        target = target or host()
        self._link(emit_kernel(kernel, buffers, target, "kernel"), target)

    @classmethod
    def of_code(
        cls, code: KernelCode, target: Target, counters: Mapping[str, int] | None = None
    ) -> Compiled:
        """Code at hand, whose function is called ``kernel``, at fixed counters of plan loops."""
        compiled = cls.__new__(cls)
        compiled._link(code, target, counters)
        return compiled

    def _link(
        self, code: KernelCode, target: Target, counters: Mapping[str, int] | None = None
    ) -> None:
        self.code = code
        module = optimised(module_text(code, counters), target)
        machine(target)  # registers LLVM's targets
        # The engine takes ownership of its target machine, so the shared one will not do.
        own = llvm.Target.from_triple(TRIPLE).create_target_machine(
            cpu=target.cpu, features="", opt=1, reloc="pic", codemodel="small"
        )
        self._engine = llvm.create_mcjit_compiler(module, own)
        self._engine.finalize_object()
        address = self._engine.get_function_address("run")
        self._run = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)

    def bind(self, arrays: Mapping[str, np.ndarray]):
        """A call without arguments, for timing."""
        table = (ctypes.c_void_p * len(self.code.pointers))(
            *(arrays[g[0]].ctypes.data for g in self.code.pointers)
        )
        return lambda: self._run(table)

    def __call__(self, **arrays: np.ndarray) -> None:
        self.bind(arrays)()


def run(kernel: Kernel, target: Target | None = None, **arrays: np.ndarray) -> None:
    """Compile for the layouts of these arrays and run once on them."""
    Compiled(kernel, {n: buffer(n, a) for n, a in arrays.items()}, target)(**arrays)


def axes(**extents: int) -> tuple[Axis, ...]:
    return tuple(Axis(n, e) for n, e in extents.items())


def load(name: str, array: np.ndarray, *index: object, **fields) -> Load:
    """``name[index]``, where an index is an axis name, a number or an index form."""
    return Load(name, at(*index), DTYPES[_dtype(array)], **fields)


def at(*index: object) -> tuple:
    forms = {str: Affine.axis, int: lambda n: Affine((), n)}
    return tuple(forms.get(type(i), lambda i: i)(i) for i in index)


def _dtype(array: np.ndarray) -> str:
    return buffer("", array).type.dtype.name


def kernel(*body, **schedule) -> Kernel:
    return Kernel("k", tuple(body), Schedule(**schedule))
