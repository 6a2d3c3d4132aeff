"""`import`: what another file defines, confined to the folder of the model."""

from __future__ import annotations

import numpy as np
import pytest

from nncompiler.errors import UserError
from nncompiler.ir.interp import run
from nncompiler.ir.types import F64
from nncompiler.lang.elaborate import elaborate
from nncompiler.lang.elaborate.imports import imported_texts
from nncompiler.lang.parse import parse

MAIN = """import "blocks/affine.nn"
import "blocks/act.nn"

model m {
    input x : f32[3, 4]
    output y = x |> affine(2) |> twice
}
"""
AFFINE = """import "act.nn"

model other {
    input z : f32[1]
    output z
}

layer affine(units)(x : f32[batch, n]) {
    param W : f32[n, units] = ones()
    return helper(x @ W)
}

fn helper(x) {
    return twice(x) + 1
}
"""
ACT = "fn twice(x) {\n    return 2 * x\n}\n"


@pytest.fixture
def project(tmp_path):
    """A model with two files in a folder below it."""
    (tmp_path / "model/blocks").mkdir(parents=True)
    (tmp_path / "model/main.nn").write_text(MAIN)
    (tmp_path / "model/blocks/affine.nn").write_text(AFFINE)
    (tmp_path / "model/blocks/act.nn").write_text(ACT)
    return tmp_path / "model"


def network(path):
    """Elaborate a file under the name it has."""
    return elaborate(parse(path.read_bytes(), str(path)), dtype=F64)


def test_definitions_of_other_files(project, monkeypatch):
    """Layers and fns, through two ways to one file; the name of the model may be relative."""
    x = np.arange(12.0).reshape(3, 4)
    net = network(project / "main.nn")
    assert [n for n, _ in net.parameters] == ["y.W"]
    found = run(net.function("infer"), {"x": x, "y.W": np.ones((4, 2))})["y"]
    np.testing.assert_allclose(found, 2 * (2 * x.sum(1, keepdims=True) + 1) * np.ones((1, 2)))
    monkeypatch.chdir(project)
    named = elaborate(parse(MAIN, "main.nn"), dtype=F64)
    assert named.parameters == net.parameters


def test_texts_are_told(project):
    """What decides the result besides the file itself, for a cache; nothing of a wrong file."""
    name = str(project / "main.nn")
    assert imported_texts(MAIN.encode(), name) == [AFFINE.encode(), ACT.encode()]
    assert imported_texts(b'import "nothing.nn"', name) == []
    assert imported_texts(b"model m {", name) == []


def test_definition_of_the_file_itself_is_not_hidden(project):
    """A file that is imported does not see what its importer defines."""
    (project / "blocks/act.nn").write_text("fn twice(x) {\n    return 2 * mine(x)\n}\n")
    (project / "main.nn").write_text(MAIN + "fn mine(x) {\n    return x\n}\n")
    with pytest.raises(UserError) as caught:
        network(project / "main.nn")
    assert caught.value.code == "NN0101" and caught.value.span.file.endswith("blocks/act.nn")


@pytest.mark.parametrize("path", ["../outside.nn", "/etc/passwd.nn", "blocks/../act.nn", "",
                                  "blocks", "blocks\\act.nn", "C:act.nn", "blocks//act.nn",
                                  "link.nn", "folder/outside.nn", "blocks/act.nn\0.nn"])
def test_confined(project, path):
    """No path and no link leads out of the folder."""
    (project.parent / "outside.nn").write_text(ACT)
    (project / "link.nn").symlink_to(project.parent / "outside.nn")
    (project / "folder").symlink_to(project.parent)
    with pytest.raises(UserError) as caught:
        elaborate(parse(f'import "{path}"\n' + MAIN, str(project / "main.nn")))
    assert caught.value.code == ("NN0002" if "\0" in path else "NN0222")


def test_link_within_the_folder(project):
    """A link that stays inside is as good as a file."""
    (project / "link.nn").symlink_to(project / "blocks/act.nn")
    file = parse(MAIN.replace("blocks/act.nn", "link.nn"), str(project / "main.nn"))
    assert elaborate(file, dtype=F64).parameters


@pytest.mark.parametrize("code, make", [
    ("NN0223", lambda p: p.mkdir()),
    ("NN0223", lambda p: p.symlink_to(p)),
    ("NN0003", lambda p: p.write_bytes(b"# " * (1 << 20))),
    ("NN0020", lambda p: p.write_text("fn f(x) {\n    return x +\n}\n")),
])
def test_what_cannot_be_read(project, code, make):
    """A folder, a link to itself, a file that is too large or wrong: it is the one named."""
    make(project / "bad.nn")
    with pytest.raises(UserError) as caught:
        elaborate(parse('import "bad.nn"\n' + MAIN, str(project / "main.nn")))
    assert caught.value.code == code
    assert code == "NN0223" or str(project / "bad.nn") in caught.value.render()


def test_text_without_a_file():
    """A text that is in no file has no folder to import from."""
    with pytest.raises(UserError) as caught:
        elaborate(parse(MAIN, "not on disk.nn"))
    assert caught.value.code == "NN0223"


def test_cache_sees_what_is_imported(project, monkeypatch, tmp_path):
    """A change in an imported file makes another artifact."""
    from nncompiler.api import build, request

    monkeypatch.setenv("NNCOMPILER_CACHE", str(tmp_path / "cache"))
    first = build(request(project / "main.nn"))
    assert build(request(project / "main.nn")).cached and not first.cached
    (project / "blocks/act.nn").write_text(ACT.replace("2", "3"))
    assert not build(request(project / "main.nn")).cached
