"""Kernels in modules of several: each once, together as their names say."""

from __future__ import annotations

from collections.abc import Generator

from nncompiler.codegen.objects import bundles
from nncompiler.codegen.objects.bundles import bundled, module_text
from nncompiler.codegen.objects.object_code import compile_module
from nncompiler.codegen.target import host

NAMES = [f"k_{17 * n:02x}{last}" for n, last in enumerate("1370259b8d63c7e5a")]


def kernel(name: str, size: int = 0, factor: int = 3) -> str:
    return module_text([
        "declare i64 @llvm.smax.i64(i64, i64)",
        f"define i64 @{name}(i64 %x) {{\n  %y = mul i64 %x, {factor}\n{';' * size}\n"
        "  %z = call i64 @llvm.smax.i64(i64 %x, i64 %y)\n  ret i64 %z\n}",
    ])  # fmt: skip


def made(texts: dict[str, str]) -> tuple[list[str], str]:
    """The bundles, and what the generator of single modules gave."""

    def modules() -> Generator[tuple[str, str], None, str]:
        yield from texts.items()
        return "the end"

    found: list[str] = []

    def collect() -> Generator[str, None, None]:
        result = yield from bundled(modules())
        found.append(result)

    return list(collect()), found[0]


def names(bundle: str) -> list[str]:
    return [name for name in NAMES if f"define i64 @{name}(" in bundle]


def test_each_kernel_is_in_one_bundle_that_compiles() -> None:
    """In order, declarations once; LLVM takes every bundle."""
    found, end = made({name: kernel(name) for name in NAMES})
    assert end == "the end"
    assert [n for bundle in found for n in names(bundle)] == NAMES
    assert [names(b)[-1][-1] for b in found] == ["0", "8", "c", "a"]
    for bundle in found:
        assert bundle.count("declare ") == 1
        assert compile_module(bundle, host())


def test_no_kernel_changes_bundles_behind_the_next_end() -> None:
    """An edited kernel has another name and other text: of these bundles, its own changes."""
    texts = {name: kernel(name) for name in NAMES}
    before, _ = made(texts)
    edited = {("k_edited1" if n == NAMES[5] else n): t for n, t in texts.items()}
    edited["k_edited1"] = kernel("k_edited1", factor=5)
    after, _ = made(edited)
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, True, True]


def test_a_bundle_of_several_is_not_large() -> None:
    """What would make it too large begins another; what is too large alone stays alone."""
    sizes = {NAMES[4]: 20_000, NAMES[5]: 20_000, NAMES[6]: 2 * bundles._MOST}
    found, _ = made({n: kernel(n, sizes.get(n, 0)) for n in NAMES[:8]})
    groups = [names(bundle) for bundle in found]
    assert groups == [NAMES[:4], NAMES[4:5], NAMES[5:6], NAMES[6:7], NAMES[7:8]]
    assert all(len(b) <= bundles._MOST + 200 for b, g in zip(found, groups, strict=True) if g[1:])
