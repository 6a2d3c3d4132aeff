"""Loading artifacts: real libraries are opened, all others refused before they are opened."""

from __future__ import annotations

import ctypes
import gc
import hashlib
import json
import lzma
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import pytest

import nncompiler
from nncompiler.codegen.elf.link import link
from nncompiler.errors import Limitation, UserError
from nncompiler.runtime import artifact as artifact_module
from nncompiler.runtime.artifact import cpu_features, load_artifact, open_artifact
from nncompiler.runtime.datasets import load_npz
from nncompiler.runtime.manifest import parse
from nncompiler.runtime.model import Model, load
from tests.runtime_fake import parsed, record

TEXTS = {"graph": {"infer": "graph @line.infer {}", "loss": "graph @line.loss {}"}, "plan": {}}
INFER = """
define i32 @line_infer_b1(ptr %state, ptr %arena, ptr %x, ptr %y) {
  %w = getelementptr i8, ptr %state, i64 64
  %a = load float, ptr %w
  %b = load float, ptr %x
  %c = fmul float %a, %b
  store float %c, ptr %y
  ret i32 0
}
define i32 @line_init(ptr %state, i64 %seed) {
  %w = getelementptr i8, ptr %state, i64 64
  store float SCALE, ptr %w
  ret i32 0
}
"""


def signed(data: bytes) -> bytes:
    """The file with its digest put in place of the zeros."""
    return data.replace(b"0" * 64, hashlib.sha256(data).hexdigest().encode())


def build(change: Callable[[dict[str, Any]], Any] = lambda r: None, scale: float = 2.0,
          text: str = INFER, sections: dict[str, bytes] | None = None) -> bytes:  # fmt: skip
    """A library with the interface of `line`: y = scale * x[0], and all else does nothing."""
    manifest = record((1,))
    manifest["source_sha256"] = "1" * 64
    change(manifest)
    names = [e["symbol"] for e in record((1,))["entries"]] + ["line_fit_b1", "line_load"]
    stubs = [f"define i32 @{n}() {{\n  ret i32 0\n}}" for n in names if f"@{n}(" not in text]
    source = "\n".join([text.replace("SCALE", f"{scale:e}"), *stubs])
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    triple = "x86_64-unknown-linux-gnu"
    module = llvm.parse_assembly(f'target triple = "{triple}"\n{source}')
    machine = llvm.Target.from_triple(triple).create_target_machine(reloc="pic", codemodel="small")
    if sections is None:
        sections = {".nnmanifest": json.dumps(manifest).encode(),
                    ".nntexts": lzma.compress(json.dumps(TEXTS).encode())}  # fmt: skip
    exports = re.findall(r"^define i32 @(\w+)", source, re.M)
    return signed(link([machine.emit_object(module)], exports, "line.so", sections))


@pytest.fixture(scope="module")
def library() -> bytes:
    """A whole artifact."""
    return build()


def test_a_library_is_loaded_and_run(library: bytes, tmp_path: Path) -> None:
    """From a file, through the checks, to native code."""
    path = tmp_path / "line.so"
    path.write_bytes(library)
    model = load(path)
    assert model.predict(np.float32([[3, 0, 0], [5, 0, 0]])).tolist() == [[6], [10]]
    step = model.bind("infer", x=np.ones((1, 3), np.float32))
    step()
    assert step.results["y"].tolist() == [[2]]
    model.save_artifact(tmp_path / "copy.so")
    assert load(tmp_path / "copy.so").predict(np.float32([[3, 0, 0]])).tolist() == [[6]]
    load(tmp_path / "copy.so").save_artifact(tmp_path / "line.so")
    assert (tmp_path / "line.so").read_bytes() == library  # its name apart, it is the same


def test_a_replaced_file_is_another_library(tmp_path: Path) -> None:
    """Written over in place, with the first still open: each model runs its own code."""
    models = []
    for scale in (2.0, 3.0, 4.0):
        (tmp_path / "line.so").write_bytes(build(scale=scale))
        models.append(load(tmp_path / "line.so"))
    x = np.ones((1, 3), np.float32)
    assert [float(m.predict(x)[0, 0]) for m in models] == [2, 3, 4]


@pytest.mark.parametrize("read", [nncompiler.compile, nncompiler.load, load_npz])
def test_numbers_are_no_paths(read: Any) -> None:
    """A number would be a descriptor, closed after reading: that of a library it may be."""
    descriptor = os.open(__file__, os.O_RDONLY)
    with pytest.raises(TypeError):
        read(descriptor)
    os.close(descriptor)


def test_libraries_are_closed_with_their_last_user(library: bytes) -> None:
    """Neither memory nor descriptors pile up; a bound call keeps its library."""
    def mapped() -> int:
        return Path("/proc/self/maps").read_text().count("/memfd:line")

    gc.collect()
    before, open_files = mapped(), len(os.listdir("/proc/self/fd"))
    calls = []
    for _ in range(3):
        model = Model(open_artifact(library))
        x = np.ones((1, 3), np.float32)
        calls.append(model.bind("infer", x=x))
        del model
    gc.collect()
    assert mapped() > before
    for call in calls:
        call()
        assert call.results["y"] == 2
    calls.clear()
    del call
    gc.collect()
    assert mapped() == before and len(os.listdir("/proc/self/fd")) == open_files


def test_dump_gives_the_embedded_texts(library: bytes) -> None:
    """By stage and function; unknown ones are named with the nearest."""
    artifact = open_artifact(library)
    assert artifact.text("graph", "loss") == "graph @line.loss {}"
    assert artifact.text("graph") == "graph @line.infer {}\ngraph @line.loss {}"
    with pytest.raises(UserError, match="did you mean 'graph'"):
        artifact.text("grap")
    with pytest.raises(UserError, match="a function of stage 'graph' among infer, loss"):
        artifact.text("graph", "apply")
    manifest = json.dumps(record((1,)) | {"source_sha256": ""}).encode()
    for texts in (b"junk", lzma.compress(b"[]"), lzma.compress(b'{"a": 1}'), lzma.compress(b"{}")):
        data = build(sections={".nnmanifest": manifest, ".nntexts": texts})
        with pytest.raises(UserError) as error:
            open_artifact(data).text("graph")
        assert error.value.code == "NN0611"
    with pytest.raises(UserError, match="no texts at all"):
        open_artifact(build(sections={".nnmanifest": manifest})).text("graph")


def test_texts_ask_for_lzma(library: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some builds of Python have none; only who reads texts needs it."""
    monkeypatch.setitem(sys.modules, "lzma", None)
    artifact = open_artifact(library)
    with pytest.raises(Limitation, match="the module lzma"):
        artifact.text("graph")


def never_open(*_: Any) -> Any:
    raise AssertionError("opened as a library")


def limit_of(record: dict[str, Any]) -> dict[str, Any]:
    """Of `group`, whose four integers index something, in the manifest of `line`."""
    loss = next(e for e in record["entries"] if e["function"] == "loss")
    return next(a for a in loss["arguments"] if a["name"] == "group")["limits"][0]


def steps(first: int, behind: int, step: int) -> list[dict[str, int]]:
    return [{"first": first, "behind": behind, "step": step}]


def test_what_is_refused_before_opening(
    library: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong ABI, missing features, foreign, damaged or no files."""
    monkeypatch.setattr(ctypes, "CDLL", never_open)
    cases = [
        ("NN0604", build(lambda r: r.update(abi=1)), "expected an artifact with ABI 2"),
        ("NN0606", build(lambda r: r["target"].update(features=["avx9", "sse4_2"])), "lacks avx9"),
        ("NN0602", build(sections={}), "a shared library without one"),
        ("NN0603", build(sections={".nnmanifest": b"{"}), "not JSON"),
        ("NN0603", build(lambda r: r.pop("digest")), "no digest"),
        ("NN0603", build(lambda r: r.update(digest="\ud800")), "no digest"),
        *(("NN0603", build(lambda r, p=p: limit_of(r).update(part=p)), "no such part")
          for p in (steps(0, 4, 0), steps(0, 5, 1), steps(4, 4, 1), 2 * steps(0, 4, 1))),
        ("NN0605", library.replace(b'"line"', b'"life"', 1), "do not match their digest"),
        ("NN0662", library[:-1], "cut off"),
        ("NN0660", b"", "is empty"),
        ("NN0660", b"PK\x03\x04 weights", "zip archive"),
        ("NN0660", Path(__file__).read_bytes(), "not a shared library"),
    ]
    for code, data, text in cases:
        with pytest.raises(UserError, match=text) as error:
            open_artifact(data)
        assert error.value.code == code
    for path in (tmp_path, tmp_path / "none.so"):
        with pytest.raises(UserError) as error:
            load_artifact(path)
        assert error.value.code == "NN0601"


def test_a_library_of_this_system_is_foreign() -> None:
    """Python's own shared objects are not taken for models."""
    paths = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines()
             if ".so" in line and "/memfd:" not in line}  # fmt: skip
    path = next(p for p in sorted(paths) if "numpy" in p)
    with pytest.raises(UserError, match="without one") as error:
        load_artifact(path)
    assert error.value.code == "NN0602"


def test_other_systems_are_a_limitation(library: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said before anything is opened."""
    monkeypatch.setattr(artifact_module.platform, "machine", lambda: "aarch64")
    with pytest.raises(Limitation) as error:
        open_artifact(library)
    assert error.value.code == "NN0607"


def test_a_function_that_is_promised_must_be_there() -> None:
    """A manifest that names a function the library lacks."""
    data = build(lambda r: r["entries"][0].update(symbol="line_apple"))
    with pytest.raises(UserError, match="no function 'line_apple'") as error:
        open_artifact(data)
    assert error.value.code == "NN0609"


def test_damaged_files_are_refused(library: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any byte changed, any piece cut off or moved: a UserError, and never opened."""
    monkeypatch.setattr(ctypes, "CDLL", never_open)
    chance = random.Random(0)
    for _ in range(400):
        data = bytearray(library)
        at = chance.randrange(len(data))
        match chance.randrange(4):
            case 0:
                data[at] ^= 1 << chance.randrange(8)
            case 1:
                del data[at:]
            case 2:
                data[at:at] = chance.randbytes(chance.randint(1, 80))
            case 3:
                data[at : at + 8] = (chance.getrandbits(64) | 1 << 63).to_bytes(8, "little")
        if data != library:
            with pytest.raises(UserError):
                open_artifact(bytes(data))


def test_manifests_that_lie_are_refused() -> None:
    """Any value of a manifest replaced by any other: a Manifest that agrees, or NN0603."""
    values = [None, True, -1, 0, 1, 63, 2**40, 2**70, 1.5, "", "x", "f32", "a-b",
              [], [0], [2**40] * 3, {}, {"x": 1}]  # fmt: skip
    chance = random.Random(2)

    def places(item: Any) -> list[tuple[Any, Any]]:
        if not isinstance(item, (dict, list)):
            return []
        pairs = item.items() if isinstance(item, dict) else enumerate(item)
        return [p for k, v in pairs for p in [(item, k), *places(v)]]

    refused = 0
    for _ in range(400):
        manifest = record((1, 4))
        holder, key = chance.choice(places(manifest))
        if chance.random() < 0.2:
            del holder[key]
        else:
            holder[key] = chance.choice(values)
        try:
            found = parse(json.dumps(manifest).encode())
        except UserError as error:
            assert error.code in ("NN0603", "NN0604")
            refused += 1
            continue
        for entry in found.state:
            assert entry.offset >= 0 and entry.offset + entry.bytes <= found.state_bytes
        assert all(e.arena_bytes <= found.arena_bytes for e in found.entries)
    assert refused > 200


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r["state"]["entries"][4].update(offset=32),
        lambda r: r["state"]["entries"][5].update(offset=72),
        lambda r: r["state"]["entries"][5].update(offset=129),
        lambda r: r["state"]["entries"][5].update(offset=320),
        lambda r: r["state"]["entries"][4].update(name="b"),
        lambda r: r["state"]["entries"][3].update(kind="param"),
        lambda r: r["state"]["entries"].pop(0),
        lambda r: r["state"].update(infer_bytes=321),
        lambda r: r["state"].update(infer_bytes=0),
        lambda r: r["entries"][1]["arguments"][0].update(shape=[4, 3]),
        lambda r: r["entries"][1]["arguments"][0].update(shape=[]),
        lambda r: r["entries"][1]["arguments"][0].update(name="y"),
        lambda r: r["entries"][1].update(symbol="printf@GLIBC"),
    ],
)
def test_manifests_that_contradict_themselves(change: Any) -> None:
    """Tensors over each other or outside of the state, batches of other sizes, odd names."""
    manifest = record((1,))
    change(manifest)
    with pytest.raises(UserError) as error:
        parse(json.dumps(manifest).encode())
    assert error.value.code == "NN0603"


def test_deep_json_is_refused() -> None:
    """No recursion error comes out."""
    for data in (b"[" * 100_000, b'{"a":' * 100_000, b"\xff", b"null", b"[]", b'"abi"'):
        with pytest.raises(UserError) as error:
            parse(data)
        assert error.value.code == "NN0603"


def test_outputs_with_a_row_for_each_row_are_batched() -> None:
    """In all bindings; gradients and losses never are."""
    found = {a.name: a.batched for e in parsed((3, 1)).entries for a in e.results}
    assert found == {"y": True, "loss": False, "accuracy": False, "grad.W": False, "grad.b": False}
    manifest = record((3, 5))
    for entry in manifest["entries"]:
        if entry["function"] == "infer":
            entry["arguments"][1]["shape"] = [3, 1]
    entries = parse(json.dumps(manifest).encode()).entries
    assert not any(a.batched for e in entries for a in e.results)


def test_features_are_those_of_proc_cpuinfo() -> None:
    """x86-64 has sse2 everywhere."""
    assert "sse2" in cpu_features() and "avx9" not in cpu_features()


def test_loading_needs_numpy_only(library: bytes, tmp_path: Path) -> None:
    """With the compiler's dependencies blocked from import, a model loads and predicts; what
    trains or writes files, and masked arrays, are not imported for it."""
    (tmp_path / "line.so").write_bytes(library)
    code = (
        "import sys\n"
        "for name in ('llvmlite', 'lark', 'networkx'): sys.modules[name] = None\n"
        "import numpy as np\n"
        "from nncompiler.runtime.model import load\n"
        "print(load(sys.argv[1]).predict(np.ones((2, 3), np.float32)).ravel().tolist())\n"
        "assert not [n for n in sys.modules if n.startswith('nncompiler.')\n"
        "            and n.split('.')[1] not in ('runtime', 'errors')]\n"
        "late = 'nncompiler.runtime.training', 'zipfile', 'numpy.ma'\n"
        "assert not [n for n in late if n in sys.modules]\n"
    )
    root = Path(__file__).resolve().parents[1]
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "line.so")], cwd=root, text=True,
        capture_output=True, check=False)
    assert (result.stdout, result.stderr) == ("[2.0, 2.0]\n", "")
