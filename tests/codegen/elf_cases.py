"""A kernel in textual IR that has what a linker must place, and calls of all that is in it."""

from __future__ import annotations

import ctypes
import struct
from pathlib import Path

import llvmlite.binding as llvm

KERNEL = """
@primes = internal unnamed_addr constant [4 x i32] [i32 2, i32 3, i32 5, i32 7], align 64
@calls = global i32 10
@zeros = internal global [100 x i32] zeroinitializer, align 64
@ops = internal constant [2 x ptr] [ptr @double, ptr @negate]
@cursor = internal global ptr getelementptr (i8, ptr @primes, i64 8)
@lanes = internal constant <16 x i32> <i32 0, i32 1, i32 2, i32 3, i32 4, i32 5, i32 6, i32 7,
    i32 8, i32 9, i32 10, i32 11, i32 12, i32 13, i32 14, i32 15>, align 64

define i32 @double(i32 %x) {
  %y = shl i32 %x, 1
  ret i32 %y
}
define i32 @negate(i32 %x) {
  %y = sub i32 0, %x
  ret i32 %y
}
define i32 @prime(i32 %i) {
  %p = getelementptr i32, ptr @primes, i32 %i
  %v = load i32, ptr %p
  ret i32 %v
}
define i32 @count() {
  %v = load i32, ptr @calls
  %w = add i32 %v, 1
  store i32 %w, ptr @calls
  ret i32 %w
}
define i32 @indirect(i32 %i, i32 %x) {
  %p = getelementptr ptr, ptr @ops, i32 %i
  %f = load ptr, ptr %p
  %v = call i32 %f(i32 %x)
  ret i32 %v
}
define i32 @through_cursor() {
  %p = load ptr, ptr @cursor
  %v = load i32, ptr %p
  ret i32 %v
}
define i32 @zero_sum(i32 %i, i32 %x) {
  %p = getelementptr i32, ptr @zeros, i32 %i
  %v = load i32, ptr %p
  %w = add i32 %v, %x
  store i32 %w, ptr %p
  ret i32 %w
}
define float @polynomial(float %x) {
  %a = fmul float %x, 0x3FF19999A0000000
  %b = fadd float %a, 0x4001C71C80000000
  %c = fmul float %b, %x
  ret float %c
}
define void @add_lanes(ptr %out) {
  %v = load <16 x i32>, ptr @lanes, align 64
  %w = load <16 x i32>, ptr %out, align 4
  %s = add <16 x i32> %v, %w
  store <16 x i32> %s, ptr %out, align 4
  ret void
}
define i64 @lanes_at() {
  %i = ptrtoint ptr @lanes to i64
  ret i64 %i
}
define i64 @zeros_at() {
  %i = ptrtoint ptr @zeros to i64
  ret i64 %i
}
define i32 @jump(i32 %i) noinline {
  switch i32 %i, label %other [ i32 0, label %a
                                i32 1, label %b
                                i32 2, label %c
                                i32 3, label %d
                                i32 4, label %e ]
a:
  %va = call i32 @count()
  ret i32 %va
b:
  %vb = call i32 @prime(i32 3)
  ret i32 %vb
c:
  %vc = call i32 @through_cursor()
  ret i32 %vc
d:
  %vd = call i32 @indirect(i32 1, i32 9)
  ret i32 %vd
e:
  %ve = call i32 @zero_sum(i32 3, i32 6)
  ret i32 %ve
other:
  ret i32 -1
}
"""
EXPORTS = (
    "prime", "count", "indirect", "through_cursor", "zero_sum", "polynomial", "add_lanes",
    "lanes_at", "zeros_at", "jump",
)  # fmt: skip
IDENTITY = "define i32 @f(i32 %x) {\n  ret i32 %x\n}\n"


def emit(text: str, **options: object) -> bytes:
    """The object that LLVM makes of textual IR."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    settings = {
        "cpu": llvm.get_host_cpu_name(),
        "features": llvm.get_host_cpu_features().flatten(),
        "reloc": "pic",
        "codemodel": "small",
        "opt": 3,
        **options,
    }
    target = llvm.Target.from_triple("x86_64-unknown-linux-gnu")
    module = llvm.parse_assembly('target triple = "x86_64-unknown-linux-gnu"\n' + text)
    return target.create_target_machine(**settings).emit_object(module)  # type: ignore[no-any-return]


def opened(directory: Path, data: bytes, name: str = "lib.so") -> ctypes.CDLL:
    """The library, opened from a file."""
    (directory / name).write_bytes(data)
    return ctypes.CDLL(str(directory / name))


def exercise(lib: ctypes.CDLL) -> list[object]:
    """Call everything in `KERNEL`."""
    lib.polynomial.restype, lib.polynomial.argtypes = ctypes.c_float, [ctypes.c_float]
    lanes = (ctypes.c_int32 * 16)(*range(100, 116))
    lib.add_lanes(lanes)
    return [
        [lib.prime(i) for i in range(4)],
        [lib.count() for _ in range(3)],
        [lib.indirect(0, 21), lib.indirect(1, 21)],
        lib.through_cursor(),
        [lib.zero_sum(5, 3), lib.zero_sum(5, 4)],
        list(lanes),
        [lib.jump(i) for i in range(6)],
        struct.pack("<f", lib.polynomial(0.7)),
    ]
