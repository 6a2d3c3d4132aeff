"""The ELF writer makes libraries of LLVM's objects, as the code of a model needs them."""

from __future__ import annotations

import ctypes
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from nncompiler.codegen.elf.link import link
from nncompiler.errors import CompilerBug
from nncompiler.runtime.elf import check, read_section
from tests.codegen.elf_cases import EXPORTS, IDENTITY, KERNEL, emit, exercise, opened


def segments(data: bytes) -> list[tuple[int, ...]]:
    """The program headers: kind, rights, offset, address, -, size in file, size, align."""
    offset, count = struct.unpack_from("<Q", data, 32)[0], struct.unpack_from("<H", data, 56)[0]
    return list(struct.iter_unpack("<IIQQQQQQ", data[offset : offset + 56 * count]))


def test_library_opens_and_computes(tmp_path: Path, library: bytes) -> None:
    """Constants, variables, pointer tables, vectors and jump tables all work through ctypes."""
    results = exercise(opened(tmp_path, library))
    assert results[:7] == [
        [2, 3, 5, 7],
        [11, 12, 13],
        [42, -21],
        5,
        [3, 7],
        [100 + 2 * i for i in range(16)],
        [14, 7, 5, -9, 6, -1],
    ]
    value = struct.unpack("<f", results[7])[0]  # type: ignore[arg-type]
    assert value == pytest.approx((0.7 * 1.1 + 2.2222223) * 0.7, rel=1e-6)


def test_alignment_is_kept(tmp_path: Path, library: bytes) -> None:
    """Vector constants and zeroed buffers that ask for 64 bytes get them in memory."""
    lib = opened(tmp_path, library)
    for function in (lib.lanes_at, lib.zeros_at):
        function.restype = ctypes.c_int64
        assert function() % 64 == 0


def test_same_bytes_twice(kernel: bytes, library: bytes) -> None:
    """The same arguments give the same file."""
    extra = {".nnmanifest": b'{"abi": 1}', ".nntexts": bytes(range(256)) * 5}
    assert link([emit(KERNEL)], EXPORTS, "libkernel.so", extra) == library
    assert link([kernel], EXPORTS, "libother.so", extra) != library


def test_gaps_before_pages_hold_what_is_not_loaded(kernel: bytes) -> None:
    """A section goes where it fits between loaded ones, and is read back from there."""
    small, large = b"small" * 20, bytes(range(256)) * 32
    found = [
        link([kernel], EXPORTS, "libkernel.so", {".nnsmall": x, ".nnlarge": large})
        for x in (b"", small)
    ]
    assert len(found[0]) == len(found[1])
    assert read_section(found[1], ".nnsmall") == small
    assert read_section(found[1], ".nnlarge") == large


def test_only_exports_are_visible(tmp_path: Path, library: bytes) -> None:
    """Global functions that are not exported cannot be found from outside."""
    lib = opened(tmp_path, library)
    for name in ("double", "negate", "calls", "nothing"):
        with pytest.raises(AttributeError):
            getattr(lib, name)


def test_many_exports_are_all_found(tmp_path: Path) -> None:
    """Every name of a hash table with collisions leads to its own function."""
    names = [f"lenet_function_{i}_b64" for i in range(200)]
    text = "".join(f"define i32 @{n}() {{\n  ret i32 {i}\n}}\n" for i, n in enumerate(names))
    lib = opened(tmp_path, link([emit(text)], names[::-1], "libmany.so", {}))
    assert [getattr(lib, name)() for name in names] == list(range(200))


CROSS_A = """
@table = constant [2 x i32] [i32 30, i32 12]
@counter = external global i32
declare i32 @helper(i32)
declare void @memset(ptr, i32, i64)
define i32 @main_kernel(i32 %x) {
  %buffer = alloca [4096 x i8], align 64
  call void @memset(ptr %buffer, i32 7, i64 4096)
  %p = getelementptr i8, ptr %buffer, i64 4000
  %b = load volatile i8, ptr %p
  %bx = zext i8 %b to i32
  %v = call i32 @helper(i32 %x)
  %c = load i32, ptr @counter
  %s = add i32 %v, %c
  %t = add i32 %s, %bx
  ret i32 %t
}
define i32 @tail(i32 %x) {
  %v = musttail call i32 @helper(i32 %x)
  ret i32 %v
}
"""
CROSS_B = """
@table = external constant [2 x i32]
@counter = global i32 1000
@handler = global ptr @helper
define i32 @helper(i32 %x) noinline {
  %v = load i32, ptr @table
  %p = getelementptr i32, ptr @table, i32 1
  %w = load i32, ptr %p
  %s = add i32 %v, %w
  %t = add i32 %s, %x
  ret i32 %t
}
define void @memset(ptr %p, i32 %byte, i64 %n) "no-builtins" {
entry:
  %b = trunc i32 %byte to i8
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %loop ]
  %q = getelementptr i8, ptr %p, i64 %i
  store volatile i8 %b, ptr %q
  %next = add i64 %i, 1
  %done = icmp eq i64 %next, %n
  br i1 %done, label %exit, label %loop
exit:
  ret void
}
"""


def test_objects_refer_to_each_other(tmp_path: Path) -> None:
    """Calls, constants and variables of one object are bound to another; memset is ours."""
    objects = [emit(CROSS_A), emit(CROSS_B)]
    for order in (objects, objects[::-1]):
        data = link(order, ["main_kernel", "tail"], "libcross.so", {})
        lib = opened(tmp_path, data, f"cross{order is objects}.so")
        assert (lib.main_kernel(58), lib.tail(1)) == (30 + 12 + 58 + 1000 + 7, 43)


def line_of(name: str, numbers: tuple[float, ...]) -> str:
    """A polynomial with these coefficients, in float: each is a constant in memory."""
    text, total = "", "%x"
    for n, c in enumerate(numbers):
        bits = struct.unpack("<Q", struct.pack("<d", c))[0]
        text += f"  %m{n} = fmul float {total}, 0x{bits:016X}\n"
        text += f"  %a{n} = fadd float %m{n}, %x\n"
        total = f"%a{n}"
    return f"define float @{name}(float %x) {{\n{text}  ret float {total}\n}}\n"


def test_constants_of_several_objects_are_there_once(tmp_path: Path) -> None:
    """Those of one object are found among those of another, whatever their order."""
    many = (1.5, 2.25, -3.0, 0.625, 7.0)
    wanted = {"all": many, "few": many[1:3], "same": many, "other": (11.0, 1.5)}
    objects = [emit(line_of(name, numbers)) for name, numbers in wanted.items()]
    for n, order in enumerate((objects, objects[::-1])):
        data = link(order, list(wanted), "lib.so", {})
        lib = opened(tmp_path, data, f"lib{n}.so")
        for name, numbers in wanted.items():
            function = getattr(lib, name)
            function.restype, function.argtypes = ctypes.c_float, [ctypes.c_float]
            total = 0.5
            for k, c in enumerate(numbers):
                total = total * c + 0.5 if k else 0.5 * c + 0.5
            assert function(0.5) == total
        assert data.count(struct.pack("<2f", *many[1:3])) == 1
        assert data.count(struct.pack("<f", 11.0)) == 1


def test_offset_table_where_a_load_cannot_be_rewritten(tmp_path: Path) -> None:
    """An instruction that compares or calls through the offset table gets a slot of it."""
    first = """
    @elsewhere = external global i32
    declare i32 @callee(i32) nonlazybind
    define i32 @is_elsewhere(ptr %p) {
      %c = icmp eq ptr %p, @elsewhere
      %v = zext i1 %c to i32
      ret i32 %v
    }
    define i32 @call_it(i32 %x) {
      %v = call i32 @callee(i32 %x) nonlazybind
      %w = add i32 %v, 1
      ret i32 %w
    }
    """
    second = """
    @elsewhere = global i32 5
    define ptr @where() {
      ret ptr @elsewhere
    }
    define i32 @callee(i32 %x) {
      %v = mul i32 %x, 3
      ret i32 %v
    }
    """
    data = link([emit(first), emit(second)], ["is_elsewhere", "where", "call_it"], "libgot.so", {})
    got = read_section(data, ".got")
    assert got is not None and len(got) == 16
    lib = opened(tmp_path, data)
    lib.where.restype = ctypes.c_void_p
    lib.is_elsewhere.argtypes = [ctypes.c_void_p]
    where = lib.where()
    assert (lib.is_elsewhere(where), lib.is_elsewhere(where + 4), lib.call_it(5)) == (1, 0, 16)


def test_strong_definition_wins_over_weak(tmp_path: Path) -> None:
    """A weak function gives way to an ordinary one, in whichever order they come."""
    weak = emit("define weak i32 @f() {\n  ret i32 1\n}\ndefine i32 @g() {\n  ret i32 3\n}\n")
    strong = emit("define i32 @f() {\n  ret i32 2\n}\n")
    for order in ([weak, strong], [strong, weak]):
        lib = opened(tmp_path, link(order, ["f", "g"], "lib.so", {}), f"{order[0] is weak}.so")
        assert (lib.f(), lib.g()) == (2, 3)


def test_pages_are_writable_or_executable_but_never_both(library: bytes) -> None:
    """Rights of each segment, page alignment, no overlap, no executable stack, pointers sealed."""
    loads = [s for s in segments(library) if s[0] == 1]
    assert [s[1] for s in loads] == [4, 5, 6]
    for before, after in zip(loads, loads[1:], strict=False):
        assert before[3] + before[6] <= after[3]
    for _, _, offset, address, _, in_file, in_memory, align in loads:
        assert align == 4096 and offset == address and offset % 4096 == 0
        assert in_file <= in_memory and offset + in_file <= len(library)
    (stack,) = [s for s in segments(library) if s[0] == 0x6474E551]
    assert stack[1] == 6
    (sealed,) = [s for s in segments(library) if s[0] == 0x6474E552]
    (dynamic,) = [s for s in segments(library) if s[0] == 2]
    assert sealed[3] % 4096 == 0 and sealed[6] % 4096 == 0
    assert sealed[3] <= dynamic[3] and dynamic[3] + dynamic[6] <= sealed[3] + sealed[6]


def test_pages_in_memory_have_these_rights(tmp_path: Path, library: bytes) -> None:
    """The maps of the process show code not writable, and the pointer tables read-only."""
    path = tmp_path / "rights.so"
    lib = opened(tmp_path, library, path.name)
    assert lib.prime(0) == 2
    maps = Path("/proc/self/maps").read_text().splitlines()
    rights = [line.split()[1] for line in maps if line.endswith(str(path))]
    assert rights == ["r--p", "r-xp", "r--p", "rw-p"]


@pytest.mark.parametrize(
    "text, data",
    [
        (IDENTITY, 0),
        ("@v = global i32 4\n" + IDENTITY, 4),
        ("@v = global [5000 x i32] zeroinitializer\n" + IDENTITY, 20000),
    ],
    ids=["code", "data", "zeros"],
)
def test_few_sections(tmp_path: Path, text: str, data: int) -> None:
    """Libraries without variables, without zeroed memory, or with nothing else open as well."""
    blob = link([emit(text)], ["f"], "lib.so", {})
    check(blob)
    assert opened(tmp_path, blob).f(33) == 33
    assert [s for s in segments(blob) if s[0] == 1][-1][6] == 4096 + data


def test_data_without_code(tmp_path: Path) -> None:
    """A library of constants only can be opened and read."""
    blob = link([emit("@weights = constant [3 x float] [float 1.0, float 2.0, float 3.0]")],
                ["weights"], "lib.so", {})  # fmt: skip
    values = (ctypes.c_float * 3).in_dll(opened(tmp_path, blob), "weights")
    assert list(values) == [1.0, 2.0, 3.0]


REFUSED = {
    "undefined": ([IDENTITY, "declare i32 @puts(i32)\ndeclare float @llvm.sin.f32(float)\n"
                   "define float @g(float %x) {\n  %a = call i32 @puts(i32 1)\n"
                   "  %s = call float @llvm.sin.f32(float %x)\n  ret float %s\n}\n"],
                  "NN0561", "undefined symbols: puts, sinf"),
    "twice": ([IDENTITY, IDENTITY], "NN0562", "symbol f, but found it in objects 0 and 1"),
    "thread-local": ([IDENTITY, "@t = thread_local global i32 1\n"], "NN0564", ".tdata"),
    "constructor": ([IDENTITY, "@llvm.global_ctors = appending global [1 x { i32, ptr, ptr }]"
                     " [{ i32, ptr, ptr } { i32 65535, ptr @c, ptr null }]\n"
                     "define void @c() {\n  ret void\n}\n"], "NN0564", ".ctors"),
    "common": ([IDENTITY, "@many = common global i32 0\n"], "NN0564", "many"),
    "alignment": ([IDENTITY, "@big = constant i32 1, align 8192\n"], "NN0564", "8192"),
    "chosen": ([IDENTITY, "@i = ifunc i32 (), ptr @r\ndefine ptr @r() {\n  ret ptr @f2\n}\n"
                "define i32 @f2() {\n  ret i32 1\n}\n"], "NN0564", "symbol i is"),
    "pointer in code": ([IDENTITY, "define void @g() prefix ptr @f {\n  ret void\n}\n"
                         "declare i32 @f(i32)\n"], "NN0563", "R_X86_64_64 against f in object 1"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_kernel_never_needs_is_refused(case: str) -> None:
    """The error names the symbol or section that is out of place."""
    texts, code, message = REFUSED[case]
    with pytest.raises(CompilerBug) as caught:
        link([emit(text) for text in texts], ["f"], "lib.so", {})
    assert caught.value.code == code
    assert message in caught.value.message


@pytest.mark.parametrize(
    "options, code, message",
    [
        ({"reloc": "static"}, "NN0563", "R_X86_64_32"),
        ({"codemodel": "large"}, "NN0561", "_GLOBAL_OFFSET_TABLE_"),
    ],
    ids=["static", "large"],
)
def test_code_for_another_model_is_refused(
    options: dict[str, str], code: str, message: str
) -> None:
    """Objects that are not position independent or not small are refused by what they lack."""
    with pytest.raises(CompilerBug) as caught:
        link([emit(KERNEL, **options)], EXPORTS, "lib.so", {})
    assert caught.value.code == code and message in caught.value.message


def test_bad_arguments_are_refused(kernel: bytes) -> None:
    """Exports that do not exist or repeat, section names in use, objects that are none."""
    cases = [
        ("NN0565", "nothing", lambda: link([kernel], ["nothing"], "lib.so", {})),
        ("NN0565", "distinct", lambda: link([kernel], ["prime", "prime"], "lib.so", {})),
        ("NN0565", "cursor", lambda: link([kernel], ["cursor"], "lib.so", {})),
        ("NN0566", "'.text'", lambda: link([kernel], [], "lib.so", {".text": b""})),
        ("NN0566", "'manifest'", lambda: link([kernel], [], "lib.so", {"manifest": b""})),
        ("NN0560", "object 1", lambda: link([kernel, b"\x7fELF"], [], "lib.so", {})),
        ("NN0560", "object 0", lambda: link([kernel[:-100]], [], "lib.so", {})),
        ("NN0560", "object 0", lambda: link([b"x" * 500], [], "lib.so", {})),
    ]
    for code, message, attempt in cases:
        with pytest.raises(CompilerBug) as caught:
            attempt()
        assert caught.value.code == code and message in caught.value.message


def test_links_where_no_tool_is_installed(tmp_path: Path) -> None:
    """With an empty PATH a process emits, links, opens and calls."""
    script = (
        f"import sys; sys.path[:0] = {sys.path!r}\n"
        "from elf_cases import IDENTITY, emit, opened\n"
        "from nncompiler.codegen.elf.link import link\n"
        "from pathlib import Path\n"
        "lib = opened(Path(sys.argv[1]), link([emit(IDENTITY)], ['f'], 'lib.so', {}))\n"
        "print(lib.f(77))\n"
    )
    environment = {"PATH": "", "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout == "77\n", done.stderr
