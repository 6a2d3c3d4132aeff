"""Weights and checkpoints as files: exact, deterministic, atomic, and safe to read."""

from __future__ import annotations

import json
import os
import random
import signal
import struct
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nncompiler.errors import UserError
from nncompiler.runtime import files
from nncompiler.runtime.files import write_atomically
from nncompiler.runtime.model import Model
from nncompiler.runtime.npz import read_npz
from nncompiler.runtime.weights import read_weights, write_weights
from tests.runtime_fake import Fake, data

ARRAYS: dict[str, Any] = {
    "h1.W": np.arange(6, dtype=np.float32).reshape(2, 3), "file": np.float64(1.5) * np.ones(()),
    "bits": np.array([True, False, True]), "empty": np.zeros((0, 4), np.float32),
    "pixels": np.arange(5, dtype=np.uint8), "ünï.c/ode": np.array([-1, 2**31 - 1], np.int32),
    "turned": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "swapped": np.arange(3, dtype=">i8"), "half": np.float16([1, np.inf, np.nan]),
}  # fmt: skip
SUFFIXES = (".npz", ".safetensors")


def same(found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    return found.keys() == wanted.keys() and all(
        found[n].dtype.newbyteorder("=") == a.dtype.newbyteorder("=") and found[n].shape == a.shape
        and np.array_equal(found[n], a, equal_nan=a.dtype.kind == "f") for n, a in wanted.items())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_weights_round_trip(suffix: str, tmp_path: Path) -> None:
    """All types, shapes, orders and names; the same arrays give the same bytes."""
    first, second = tmp_path / f"a{suffix}", tmp_path / f"b{suffix.upper()}"
    write_weights(first, ARRAYS)
    found = read_weights(first)
    assert same(found, ARRAYS) and all(a.flags.writeable for a in found.values())
    write_weights(second, ARRAYS)
    assert first.read_bytes() == second.read_bytes()
    assert sorted(os.listdir(tmp_path)) == [first.name, second.name]


def test_npz_is_numpys(tmp_path: Path) -> None:
    """NumPy reads what is written, and what NumPy writes is read, compressed too."""
    write_weights(tmp_path / "a.npz", ARRAYS)
    with np.load(tmp_path / "a.npz") as loaded:
        assert same(dict(loaded), ARRAYS)
    plain = {n: a for n, a in ARRAYS.items() if n not in ("file",)}
    np.savez_compressed(tmp_path / "b.npz", **plain)
    assert same(read_weights(tmp_path / "b.npz"), plain)


def test_safetensors_layout(tmp_path: Path) -> None:
    """Length, padded header, contiguous data, byte for byte as the format says."""
    write_weights(tmp_path / "a.safetensors", {
        "b": np.float32([1, 2]), "a": np.uint8([7]), "c": np.float64([3])})
    header = (b'{"c":{"dtype":"F64","shape":[1],"data_offsets":[0,8]},'
              b'"b":{"dtype":"F32","shape":[2],"data_offsets":[8,16]},'
              b'"a":{"dtype":"U8","shape":[1],"data_offsets":[16,17]}}')  # fmt: skip
    header += b" " * (-len(header) % 8)
    body = struct.pack("<dffB", 3, 1, 2, 7)
    whole = struct.pack("<Q", len(header)) + header + body
    assert (tmp_path / "a.safetensors").read_bytes() == whole


def container(header: Any, body: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def tensor(start: int, stop: int, shape: Any = (1,), dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


MALICIOUS = [
    b"", b"\0" * 7, container(b"", length=2**63), container(b"{}", length=3), container(b"[]"),
    container(b"{" * 100_000), container(b'{"a":' * 100_000), container(b"\xff\xfe"),
    container({"a": tensor(0, 4)}), container({"a": tensor(0, 4)}, b"\0" * 5),
    container({"a": tensor(0, 4), "b": tensor(0, 4)}, b"\0" * 4),
    container({"a": tensor(0, 4), "b": tensor(2, 6)}, b"\0" * 6),
    container({"a": tensor(4, 8)}, b"\0" * 8), container({"a": tensor(4, 0)}, b"\0" * 4),
    container({"a": tensor(-4, 0)}), container({"a": tensor(0, 4, [2])}, b"\0" * 4),
    container({"a": tensor(0, 0, [2**40, 2**40, 0])}, b"x"),
    container({"a": tensor(0, 4, [2**62, 4])}, b"\0" * 4),
    container({"a": tensor(0, 4, [1.0])}, b"1234"),
    container({"a": tensor(0, 4, [True])}, b"1234"),
    container({"a": tensor(0, 4, [1], "F99")}, b"1234"),
    container({"a": tensor(0, 4, [1], ["F32"])}, b"1234"), container({"a": []}),
    container({"a": {"dtype": "F32"}}), container({"a": tensor(0, 4, [1] * 64)}, b"1234"),
    container(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
              b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', b"1234"),
    container({"a": tensor(0, 10**400)}), container(b'{"a": NaN}'),
]  # fmt: skip


@pytest.mark.parametrize("content", MALICIOUS, ids=range(len(MALICIOUS)))
def test_malicious_safetensors(content: bytes, tmp_path: Path) -> None:
    """Headers that lie are refused, whatever they claim."""
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read_weights(path)
    assert error.value.code == "NN0802"


def test_safetensors_metadata_and_odd_bools(tmp_path: Path) -> None:
    """Metadata is skipped; a bool is never a byte other than 0 or 1."""
    path = tmp_path / "a.safetensors"
    path.write_bytes(container(
        {"__metadata__": {"format": "pt"}, "a": tensor(0, 3, [3], "BOOL")}, b"\0\x01\x7f"))
    assert read_weights(path)["a"].view(np.uint8).tolist() == [0, 1, 1]
    for name, array in (("__metadata__", np.zeros(1)), ("a", np.zeros(1, complex))):
        with pytest.raises(UserError) as error:
            write_weights(tmp_path / "b.safetensors", {name: array})
        assert error.value.code == "NN0808"
    assert os.listdir(tmp_path) == ["a.safetensors"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_damaged_weights_give_errors(suffix: str, tmp_path: Path) -> None:
    """Cut off anywhere, or with any byte changed: arrays or a UserError, nothing else."""
    path = tmp_path / f"a{suffix}"
    write_weights(path, {"W": np.ones((4, 4), np.float32), "b": np.zeros(4, np.float32)})
    whole = path.read_bytes()
    chance = random.Random(1)
    outcomes = {"read": 0, "refused": 0}
    for _ in range(400):
        changed = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        path.write_bytes(changed[: chance.choice([len(changed), chance.randrange(len(changed))])])
        try:
            read_weights(path)
            outcomes["read"] += 1
        except UserError as error:
            assert error.code == "NN0802"
            outcomes["refused"] += 1
    assert outcomes["refused"] > 200


def test_wrong_weights_files(tmp_path: Path) -> None:
    """Missing, of another kind, holding Python objects, or in no folder."""
    objects = tmp_path / "o.npz"
    np.savez(objects, a=np.array([{}], object))
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "folder.npz").mkdir()
    (tmp_path / "folder.safetensors").mkdir()
    with zipfile.ZipFile(tmp_path / "other.npz", "w") as archive:
        archive.writestr("readme.txt", "hello")
    for name, code in (("none.npz", "NN0801"), ("none.safetensors", "NN0801"), ("w.bin", "NN0804"),
                       ("o.npz", "NN0802"), ("text.npz", "NN0802"), ("other.npz", "NN0802"),
                       ("folder.npz", "NN0801"), ("folder.safetensors", "NN0801")):
        with pytest.raises(UserError) as error:
            read_weights(tmp_path / name)
        assert error.value.code == code
    assert "it holds Python objects" in str(pytest.raises(UserError, read_weights, objects).value)
    text = pytest.raises(UserError, read_weights, tmp_path / "text.npz").value
    assert "objects" not in str(text) and "pickle" not in str(text)
    with pytest.raises(UserError) as error:
        write_weights(tmp_path / "no" / "w.npz", ARRAYS)
    assert error.value.code == "NN0809"


@pytest.mark.parametrize("where", ["write", "fsync", "replace"])
@pytest.mark.parametrize("kind", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_old_file(
    where: str, kind: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither half of a new file nor a temporary one is left behind."""
    path = tmp_path / "w.npz"
    path.write_bytes(b"old")

    def fail(*_: Any) -> None:
        raise kind

    if where != "write":
        monkeypatch.setattr(files.os, where, fail)
    with pytest.raises(UserError if isinstance(kind, OSError) else KeyboardInterrupt):
        write_atomically(path, fail if where == "write" else lambda s: s.write(b"new"))
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["w.npz"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    """The file behind it is replaced."""
    (tmp_path / "real.npz").write_bytes(b"old")
    (tmp_path / "link.npz").symlink_to(tmp_path / "real.npz")
    write_atomically(tmp_path / "link.npz", lambda stream: stream.write(b"new"))
    assert (tmp_path / "link.npz").is_symlink() and (tmp_path / "real.npz").read_bytes() == b"new"


def test_permissions_stay(tmp_path: Path) -> None:
    """Those of the file that is replaced."""
    path = tmp_path / "w.npz"
    path.write_bytes(b"old")
    path.chmod(0o640)
    write_atomically(path, lambda stream: stream.write(b"new"))
    assert path.read_bytes() == b"new" and path.stat().st_mode & 0o777 == 0o640


def test_a_pipe_stays_a_pipe(tmp_path: Path) -> None:
    """What is no regular file is written to, and not replaced."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDWR)
    write_atomically(path, lambda stream: stream.write(b"new"))
    assert os.read(reader, 10) == b"new" and path.is_fifo() and os.listdir(tmp_path) == ["pipe"]
    os.close(reader)


_WRITER = """
import sys, numpy as np
from nncompiler.runtime.weights import write_weights
print("ready", flush=True)
n = 0
while True:
    n += 1
    write_weights(sys.argv[1], {"a": np.full(100_000, n), "b": np.full(100_000, n)})
"""


def test_a_killed_writer_leaves_a_whole_file(tmp_path: Path) -> None:
    """Killed at any moment: the file reads as one that was written whole."""
    path = tmp_path / "w.npz"
    root = Path(__file__).resolve().parents[1]
    for delay in (0.005, 0.02, 0.031):
        write_weights(path, {"a": np.zeros(1), "b": np.zeros(1)})
        writer = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(path)], cwd=root, stdout=subprocess.PIPE)
        assert writer.stdout is not None
        with writer, writer.stdout:
            writer.stdout.readline()
            time.sleep(delay)
            writer.send_signal(signal.SIGKILL)
        arrays = read_weights(path)
        assert arrays["a"][0] == arrays["b"][-1]


def trained(epochs: int = 1) -> Model:
    fake = Fake()
    model = Model(fake.artifact((4,)))
    model.fit(data(8), epochs=epochs, progress=False)
    return model


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_model_saves_and_loads_weights(suffix: str, tmp_path: Path) -> None:
    """Exactly the parameters, by name."""
    model, path = trained(), tmp_path / f"w{suffix}"
    model.save(path)
    assert sorted(read_weights(path)) == ["W", "b"]
    twin = Model(Fake().artifact((4,)))
    twin.load_weights(path)
    assert (twin.predict(data(4)) == model.predict(data(4))).all() and twin.step == 0


def test_checkpoint_holds_all_of_the_state(tmp_path: Path) -> None:
    """Header, parameters and slots, bit for bit, and the place in training."""
    model, path = trained(2), tmp_path / "run.ckpt"
    model.rate = 0.0625
    model.save_checkpoint(path)
    twin = Model(Fake().artifact((4,)))
    twin.load_checkpoint(path)
    assert (twin.state.memory == model.state.memory).all()
    assert twin.step == 4 and twin.rate == 0.0625
    assert twin.record == model.record
    fresh = Model(Fake().artifact((4,)))
    fresh.save_checkpoint(path)
    twin.load_checkpoint(path)
    assert twin.record is None and (twin.state.memory == fresh.state.memory).all()
    with pytest.raises(UserError, match="before any"):
        twin.fit(data(8), resume=path, progress=False)


def _edit(path: Path, change: Any) -> None:
    arrays = read_npz(path)
    text = json.loads(arrays["training"].tobytes())
    change(arrays, text)
    if "training" in arrays:
        arrays["training"] = np.frombuffer(json.dumps(text).encode(), np.uint8)
    write_weights(path, arrays)


@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("NN0810", lambda a, t: a.pop("training")),
        ("NN0810", lambda a, t: t.update(version=2)),
        ("NN0810", lambda a, t: t.pop("record")),
        ("NN0810", lambda a, t: t["record"].update(epoch=-1)),
        ("NN0810", lambda a, t: t["record"].update(history={"loss": ["x"]})),
        ("NN0810", lambda a, t: t.update(record=[])),
        ("NN0811", lambda a, t: t.update(model="other")),
        ("NN0811", lambda a, t: a.pop("slot/opt.m.W")),
        ("NN0811", lambda a, t: a.update({"slot/opt.v.W": a["slot/opt.m.W"]})),
        ("NN0811", lambda a, t: a.update({"param/W": a["param/W"].T})),
        ("NN0811", lambda a, t: a.update({"param/W": a["param/W"].astype("f8")})),
    ],
)  # fmt: skip
def test_wrong_checkpoints_change_nothing(code: str, change: Any, tmp_path: Path) -> None:
    """Of another model, of other tensors, or no checkpoint at all."""
    path = tmp_path / "c.npz"
    trained().save_checkpoint(path)
    _edit(path, change)
    model = Model(Fake().artifact((4,)))
    before = model.state.memory.copy()
    with pytest.raises(UserError) as error:
        model.load_checkpoint(path)
    assert error.value.code == code and model.record is None
    assert (model.state.memory == before).all()


def test_a_checkpoint_is_not_taken_for_weights(tmp_path: Path) -> None:
    """Who passes one is told what it is good for."""
    model = trained(2)
    model.save_checkpoint(tmp_path / "c.npz")
    with pytest.raises(UserError, match="is a checkpoint") as error:
        model.load_weights(tmp_path / "c.npz")
    assert error.value.code == "NN0802" and "--resume" in str(error.value)
