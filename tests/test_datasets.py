"""Reading data files, the fixed split of the bundled digits, and scaling."""

import hashlib
import re
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from nncompiler.errors import UserError
from nncompiler.runtime import datasets

DATA = Path(__file__).parents[1] / "models" / "data"


def test_digits_split_has_the_published_sizes():
    """355 held-out rows, a tenth of the rest to validate, all types as the models declare them."""
    parts = datasets.digits()
    for part, rows in ((parts.train, 1298), (parts.validation, 144), (parts.test, 355)):
        assert part["image"].shape == (rows, 64) and part["image"].dtype == np.float32
        assert part["digit"].shape == (rows,) and part["digit"].dtype == np.int32
        assert part["image"].min() == 0.0 and part["image"].max() == 1.0
        assert part["image"].flags.c_contiguous


def test_digits_test_part_is_every_fifth_image_of_each_class():
    """The split agrees with counting through the file row by row."""
    raw = datasets.load_npz(DATA / "digits.npz")
    seen = [0] * 10
    test, validation, rest = [], [], 0
    for row, label in enumerate(raw["labels"]):
        seen[label] += 1
        if seen[label] % 5 == 0:
            test.append(row)
            continue
        rest += 1
        if rest % 10 == 0:
            validation.append(row)
    parts = datasets.digits()
    for part, rows in ((parts.test, test), (parts.validation, validation)):
        np.testing.assert_array_equal(part["digit"], raw["labels"][rows])
        np.testing.assert_array_equal(part["image"] * 16, raw["images"][rows].reshape(-1, 64))


def test_digits_under_other_names():
    """The keys are those asked for, in every part."""
    parts = datasets.digits(DATA / "digits.npz", keys=("x", "t"))
    assert [list(p) for p in (parts.train, parts.validation, parts.test)] == [["x", "t"]] * 3


def test_digits_file_is_the_documented_one():
    """The bundled file has the SHA-256 its README states."""
    stated = re.search(r"[0-9a-f]{64}", (DATA / "README.md").read_text())
    assert stated and hashlib.sha256((DATA / "digits.npz").read_bytes()).hexdigest() == stated[0]


def test_digits_not_installed(monkeypatch, tmp_path):
    """Without the repository around the package, the error says to pass a path."""
    monkeypatch.setattr(datasets, "_DIGITS", tmp_path / "digits.npz")
    with pytest.raises(UserError, match="pass the path") as caught:
        datasets.digits()
    assert caught.value.code == "NN0751"


def test_digits_refuses_another_data_set(tmp_path):
    """A file of other arrays is named with what it holds."""
    np.savez(tmp_path / "d.npz", images=np.zeros((3, 28, 28)), labels=np.zeros(3))
    with pytest.raises(UserError, match=re.escape("found images [3, 28, 28]")) as caught:
        datasets.digits(tmp_path / "d.npz")
    assert caught.value.code == "NN0756"


def test_stratified_split_is_a_partition():
    """Each row is in exactly one part, and each part is ascending."""
    labels = np.random.default_rng(0).integers(0, 4, 203)
    parts = datasets.stratified_split(labels, every_test=3, every_validation=4)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(203))
    assert all(np.all(np.diff(rows) > 0) for rows in parts)
    for label in range(4):
        assert np.sum(labels[parts[2]] == label) == np.sum(labels == label) // 3


def test_stratified_split_small_case():
    """A case small enough to read."""
    train, validation, test = datasets.stratified_split(
        np.array([0, 0, 1, 0, 1, 1]), every_test=2, every_validation=3)
    assert (train.tolist(), validation.tolist(), test.tolist()) == ([0, 2, 5], [3], [1, 4])


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda: datasets.stratified_split(np.zeros((2, 2))), "NN0754"),
        (lambda: datasets.stratified_split(np.zeros(9), every_test=1), "NN0755"),
        (lambda: datasets.stratified_split(np.zeros(9), every_validation=0), "NN0755"),
        (lambda: datasets.fit_range(np.zeros((0, 2))), "NN0754"),
        (lambda: datasets.fit_standard([[1.0], [np.nan]]), "NN0758"),
        (lambda: datasets.range_scaling([0, 3], [1, 3]), "NN0757"),
        (lambda: datasets.range_scaling(0, np.inf), "NN0757"),
        (lambda: datasets.one_hot([0, 3], 3), "NN0759"),
        (lambda: datasets.one_hot([-1], 3), "NN0759"),
        (lambda: datasets.one_hot([1.0], 3), "NN0759"),
    ],
)
def test_wrong_arguments(call, code):
    """Each wrong argument is refused with its own code."""
    with pytest.raises(UserError) as caught:
        call()
    assert caught.value.code == code


def test_load_npz_returns_what_was_saved(tmp_path):
    """Names, types and values survive, compressed or not."""
    given = {"a": np.arange(6, dtype=np.int32).reshape(2, 3), "b": np.array(2.5)}
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "d.npz", **given)
        read = datasets.load_npz(tmp_path / "d.npz")
        assert list(read) == list(given)
        for name, array in given.items():
            assert read[name].dtype == array.dtype
            np.testing.assert_array_equal(read[name], array)


def test_load_npz_of_nothing(tmp_path):
    """A missing file is named."""
    with pytest.raises(UserError, match="does not exist") as caught:
        datasets.load_npz(tmp_path / "none.npz")
    assert caught.value.code == "NN0751"


def test_load_npz_refuses_python_objects(tmp_path):
    """An array of Python objects is refused, never unpickled."""
    np.savez(tmp_path / "d.npz", a=np.array([{"x": 1}], dtype=object))
    with pytest.raises(UserError, match="Python objects") as caught:
        datasets.load_npz(tmp_path / "d.npz")
    assert caught.value.code == "NN0753"


def test_load_npz_refuses_other_files(tmp_path):
    """Empty, foreign and single-array files and directories are not data files."""
    np.save(tmp_path / "single.npy", np.zeros(3))
    (tmp_path / "single.npy").rename(tmp_path / "single.npz")
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "text.npz").write_text("image,digit\n")
    (tmp_path / "folder.npz").mkdir()
    for name in ("single", "empty", "text", "folder"):
        with pytest.raises(UserError, match=f"{name}.npz") as caught:
            datasets.load_npz(tmp_path / f"{name}.npz")
        assert caught.value.code == ("NN0751" if name == "folder" else "NN0752"), name


def test_load_npz_refuses_damaged_files(tmp_path):
    """Cut off or with a flipped byte in the data, a file is refused with a UserError."""
    np.savez(tmp_path / "d.npz", a=np.arange(64.0))
    whole = (tmp_path / "d.npz").read_bytes()
    flipped = bytearray(whole)
    flipped[300] ^= 0xFF
    for damaged in (whole[:10], whole[: len(whole) // 2], whole[:-1], bytes(flipped)):
        (tmp_path / "d.npz").write_bytes(damaged)
        with pytest.raises(UserError) as caught:
            datasets.load_npz(tmp_path / "d.npz")
        assert caught.value.code == "NN0752"


HEADER = "{'descr': %s, 'fortran_order': False, 'shape': %s, }\n"


@pytest.mark.parametrize("header", [
    HEADER % ("'<f8'", "(2"), "'''", HEADER % ("[('a',)]", "(2,)"), HEADER % ("()", "(2,)"),
    HEADER % ("'<f8'", "(-1,)"), HEADER % ("'<f8'", f"({2**62}, 4)"), "(" * 3000, "\\", "",
])  # fmt: skip
def test_load_npz_refuses_damaged_headers(tmp_path, header):
    """Whatever the reader of headers makes of one."""
    data = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + bytes(64)
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("a.npy", data)
    with pytest.raises(UserError) as caught:
        datasets.load_npz(tmp_path / "d.npz")
    assert caught.value.code == "NN0752"


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_load_npz_refuses_damaged_archives(tmp_path, method):
    """However they are compressed; what is still read is what was written."""
    np.save(tmp_path / "a.npy", rows := np.arange(200.0))
    with zipfile.ZipFile(tmp_path / "d.npz", "w", method) as archive:
        archive.write(tmp_path / "a.npy", "a.npy")
    whole, refused = (tmp_path / "d.npz").read_bytes(), 0
    for at in range(30, len(whole), 7):
        damaged = bytearray(whole)
        damaged[at] ^= 0xFF
        (tmp_path / "d.npz").write_bytes(damaged)
        try:
            found = datasets.load_npz(tmp_path / "d.npz")
        except UserError as error:
            assert error.code == "NN0752"
            refused += 1
        else:
            assert all(np.array_equal(array, rows) for array in found.values())
    assert refused > 10


def test_normalise_gives_the_worked_example():
    """The power plant rows of the textbook come out as printed."""
    raw = [[3.21, 86.34], [31.41, 68.50], [19.31, 30.59], [20.64, 99.97]]
    scaled = datasets.normalise(raw, [1.81, 25.56], [37.11, 100.16])
    printed = [[0.04, 0.81], [0.84, 0.58], [0.50, 0.07], [0.53, 1.00]]
    np.testing.assert_allclose(scaled, printed, atol=6e-3)


@pytest.mark.parametrize("fit", [datasets.fit_range, datasets.fit_standard])
def test_scaling_is_undone_by_its_inverse(fit):
    """inverse(apply(x)) is x, per column, for a one-column target too."""
    for shape in ((50, 3), (50,)):
        rows = np.random.default_rng(1).normal(7.0, 3.0, shape)
        scaling = fit(rows)
        np.testing.assert_allclose(scaling.inverse(scaling.apply(rows)), rows, rtol=1e-14)


def test_fitted_scalings_have_their_range_and_moments():
    """Extremes become 0 and 1; mean and deviation become 0 and 1; a constant column becomes 0."""
    rows = np.random.default_rng(2).normal(7.0, 3.0, (50, 3))
    rows[:, 1] = 0.1
    ranged = datasets.fit_range(rows).apply(rows)
    assert ranged.min(axis=0).tolist() == [0, 0, 0] and ranged.max(axis=0).tolist() == [1, 0, 1]
    standard = datasets.fit_standard(rows).apply(rows)
    np.testing.assert_allclose(standard.mean(axis=0), 0, atol=1e-14)
    np.testing.assert_allclose(standard.std(axis=0), [1, 0, 1])
    assert np.all(standard[:, 1] == 0)


def test_scaled_values_are_f32_unless_f64_was_given():
    """Pixels become f32; f64 stays."""
    scaling = datasets.range_scaling(0, 16)
    assert scaling.apply(np.array([4], dtype=np.uint8)).dtype == np.float32
    assert scaling.inverse(np.array([0.5], dtype=np.float32)).dtype == np.float32
    assert scaling.apply(np.array([4.0])).dtype == np.float64


def test_one_hot():
    """One row per label, of any leading shape."""
    assert datasets.one_hot([2, 0], 3).tolist() == [[0, 0, 1], [1, 0, 0]]
    assert datasets.one_hot(np.zeros((2, 4), np.uint8), 5).shape == (2, 4, 5)
