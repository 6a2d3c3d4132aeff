"""The import rule of the package, checked on its syntax trees; every rule on a planted breach too.

`violations` and `operator_mentions` read the files below a root and import nothing. The rules:

- `errors ← ir ← {lang, passes, codegen} ← driver ← report ← cli`; `report` does not import `lang`
  or `codegen`. `runtime` imports nothing of the package but `errors`; `record` imports nothing and
  all but these two may import it; the package itself imports rooms only inside functions, so that
  importing it stays cheap. Imports inside functions, under TYPE_CHECKING, or by
  `import_module("...")` count too.
- The folders within `passes`, and those within `codegen`, import each other one way.
- `codegen` does not import the operators (`ir.op`, `ir.ops`) and does not name one, neither as an
  identifier nor as a string. Two kinds of name are exempt. An operator that shares its name with a
  scalar primitive (`add`, `exp`) means the primitive there, which is the vocabulary of code
  generation. `contract` is also the name of a nest strategy, chosen by the form of a nest whatever
  operator it came from. Builtins of Python called by name (`sum(...)`) mean the builtin.
- Dependencies are numpy, llvmlite (only in `codegen`), lark (only in `lang`) and networkx (only
  inside functions, never in `errors` or `runtime`). `errors` needs none of them.
- No pickle, marshal or shelve, and no `allow_pickle=True`. No file over 400 lines.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import subprocess
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = "nncompiler"
MAX_LINES = 400
ROOT = "(package)"  # nncompiler/__init__.py and the names it offers

_MIDDLE = {"errors", "ir", "record"}
_ALL = _MIDDLE | {"lang", "passes", "codegen", "runtime"}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "record": set(),
    "ir": {"errors", "record"},
    "lang": _MIDDLE,
    "passes": _MIDDLE,
    "codegen": _MIDDLE,
    "runtime": {"errors"},
    "clock": {"record"},
    "driver": _ALL | {"clock"},
    "cache": {"errors"},
    "api": _ALL | {"clock", "driver", "cache", ROOT},
    "report": _MIDDLE | {"passes", "driver"},
    "cli": _ALL | {"clock", "driver", "report", "cache", "api", ROOT},
    "__main__": {"cli"},
    ROOT: _ALL | {"driver", "api"},
}
UNSAFE = {"pickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle"}


@dataclass(frozen=True)
class Import:
    """An imported dotted name; `lazy` when in a function or under TYPE_CHECKING."""

    name: str
    line: int
    lazy: bool


def violations(root: Path) -> list[str]:
    """Every breach in the package directory `root`, in order of file and line."""
    found: list[str] = []
    for path in sorted(root.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        place = path.relative_to(root).as_posix()
        room = _room_of_file(path.relative_to(root))
        if (lines := len(text.splitlines())) > MAX_LINES:
            found.append(f"{place}:{MAX_LINES + 1}: {lines} lines, more than {MAX_LINES}")
        if room not in MAY_IMPORT:
            found.append(f"{place}:1: no room '{room}' in the import rule")
            continue
        tree = ast.parse(text)
        for entry in _imports(tree, [PACKAGE, *path.relative_to(root).parts[:-1]]):
            if breach := _breach(entry, room, root):
                found.append(f"{place}:{entry.line}: {breach}")
        found += [
            f"{place}:{node.value.lineno}: allow_pickle=True"
            for node in ast.walk(tree)
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle"
            and not (isinstance(node.value, ast.Constant) and node.value.value is False)
        ]
    return found


def folder_imports(root: Path, room: str) -> dict[str, set[str]]:
    """Which folders of a room each of its folders imports; files beside the folders may import
    any, and be imported."""
    found: dict[str, set[str]] = {}
    for path in sorted((root / room).glob("*/*.py")):
        package = [PACKAGE, *path.relative_to(root).parts[:-1]]
        own = found.setdefault(path.parent.name, set())
        for entry in _imports(ast.parse(path.read_text(encoding="utf-8")), package):
            parts = entry.name.split(".")
            if parts[:2] == [PACKAGE, room] and (root / room / parts[2]).is_dir():
                own.add(parts[2])
        own.discard(path.parent.name)
    return found


def _room_of_file(relative: Path) -> str:
    if relative.as_posix() == "__init__.py":
        return ROOT
    return relative.parts[0].removesuffix(".py")


def _imports(tree: ast.AST, package: list[str]) -> Iterator[Import]:
    """Every import; relative names start from `package`."""

    def visit(node: ast.AST, lazy: bool) -> Iterator[Import]:
        for name in _imported_names(node, package):
            yield Import(name, node.lineno, lazy)
        inside = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        # The body of `if TYPE_CHECKING:` never runs; its else branch does.
        unrun = node.body if isinstance(node, ast.If) and _is_type_checking(node.test) else ()
        for child in ast.iter_child_nodes(node):
            yield from visit(child, inside or child in unrun)

    return visit(tree, False)


def _imported_names(node: ast.AST, package: list[str]) -> list[str]:
    match node:
        case ast.Import():
            return [alias.name for alias in node.names]
        case ast.ImportFrom():
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            return [f"{module}.{alias.name}" for alias in node.names]
        case ast.Call(
            func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
            args=[ast.Constant(value=str(name)), *_],
        ):
            dots = len(name) - len(name.lstrip("."))
            base = package[: len(package) - dots + 1] if dots else []
            return [".".join([*base, name[dots:]])]
        case _:
            return []


def _is_type_checking(test: ast.expr) -> bool:
    return ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def _breach(entry: Import, room: str, root: Path) -> str | None:
    """What is wrong with this import in this room, or None."""
    first, *rest = entry.name.split(".")
    if first == PACKAGE:
        return _package_breach(entry, rest, room, root)
    if first in UNSAFE:
        return f"imports {first}, which runs what it reads"
    if first in sys.stdlib_module_names:
        return None
    match first:
        case "numpy":
            allowed = room != "errors"
        case "llvmlite":
            allowed = room == "codegen"
        case "lark":
            allowed = room == "lang"
        case "networkx" if room not in ("errors", "runtime"):
            return None if entry.lazy else "imports networkx outside a function"
        case _:
            allowed = False
    return None if allowed else f"'{room}' imports {first}"


def _package_breach(entry: Import, rest: list[str], room: str, root: Path) -> str | None:
    target = rest[0] if rest else ROOT
    if target == "__version__":
        return None  # an attribute of the parent package, which is loaded before any room
    if rest and not (root / target).is_dir() and not (root / f"{target}.py").is_file():
        target = ROOT
    if room == "codegen" and rest[:2] in (["ir", "op"], ["ir", "ops"]):
        return "'codegen' imports the operators"
    if target != room and target not in MAY_IMPORT[room]:
        return f"'{room}' imports '{target}'"
    if room == ROOT and not entry.lazy and target != "errors":
        return f"'{target}' imported outside a function: importing the package must stay cheap"
    return None


def operator_mentions(root: Path, operators: Collection[str]) -> list[str]:
    """Where `codegen` spells one of these names as an identifier or as a whole string."""
    found: list[str] = []
    for path in sorted((root / "codegen").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        place = path.relative_to(root).as_posix()
        for node in ast.walk(tree):
            found += [
                f"{place}:{getattr(node, 'lineno', 1)}: knows the operator '{name}'"
                for name in _words(node)
                if name in operators
                and not (isinstance(node, ast.Name) and hasattr(builtins, name))
            ]
    return found


def _words(node: ast.AST) -> list[str]:
    """The identifiers, or the string, that this node itself spells."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name):
            return [name]
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            return [name]
        case ast.ClassDef(name=name) | ast.MatchAs(name=str(name)) | ast.keyword(arg=str(name)):
            return [name]
        case ast.alias(name=name, asname=alias):
            return [*name.split("."), *([alias] if alias else [])]
        case ast.Constant(value=str(text)):
            return [text.strip()]
        case _:
            return []


# --- the package itself ---


def test_package_keeps_the_import_rule():
    """No file of the package breaks a rule."""
    root = REPOSITORY / PACKAGE
    assert list(root.rglob("*.py"))
    assert violations(root) == []


def test_codegen_names_no_operator():
    """Code generation works from nests and primitives; no registered operator occurs in it."""
    importlib.import_module("nncompiler.ir.ops")
    registry = importlib.import_module("nncompiler.ir.op").REGISTRY
    primitives = importlib.import_module("nncompiler.ir.scalar").PRIMITIVES
    operators = set(registry) - set(primitives) - {"contract"}
    assert operators
    assert operator_mentions(REPOSITORY / PACKAGE, operators) == []


def _python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_runtime_needs_numpy_only():
    """The runtime imports, and reads data, with the compiler's libraries blocked."""
    assert _python("""
import sys
for name in ("lark", "llvmlite", "networkx"):
    sys.modules[name] = None
import importlib, pkgutil
import nncompiler.runtime
for module in pkgutil.walk_packages(nncompiler.runtime.__path__, "nncompiler.runtime."):
    importlib.import_module(module.name)
compiler = ("ir", "lang", "passes", "codegen", "driver", "cli")
loaded = [room for room in compiler if f"nncompiler.{room}" in sys.modules]
assert not loaded, loaded
print(len(nncompiler.runtime.datasets.digits().test["digit"]))
""") == "355"


def test_importing_the_package_is_light():
    """`import nncompiler` loads none of the compiler's libraries."""
    assert _python("""
import sys
import nncompiler
print([name for name in ("lark", "llvmlite", "networkx") if name in sys.modules])
""") == "[]"


# --- the rules, by planted breaches ---


def _plant(root: Path, place: str, text: str) -> Path:
    path = root / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return root


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A small tree that keeps every rule."""
    root = tmp_path / PACKAGE
    for place, text in {
        "__init__.py": "def compile():\n    from nncompiler import driver\n",
        "errors.py": "import difflib\n",
        "ir/__init__.py": "",
        "ir/op.py": "from ..errors import CompilerBug\nimport numpy as np\n",
        "lang/parse.py": "import lark\nfrom nncompiler.ir.graph import Graph\n",
        "passes/fusion/fuse.py": "def legal():\n    import networkx\n    return networkx\n",
        "codegen/emit.py": "import llvmlite.ir\nfrom nncompiler.ir import scalar\n",
        "runtime/model.py": "import ctypes\nimport numpy\nfrom ..errors import UserError\n",
        "driver/a.py": "from nncompiler import lang, passes, codegen, __version__\n",
        "cli/__init__.py": "import nncompiler\nfrom nncompiler import driver, runtime\n",
    }.items():
        _plant(root, place, text)
    return root


def test_a_sound_tree_passes(house):
    """The tree the breaches are planted in has none of its own."""
    assert violations(house) == []
    assert operator_mentions(house, {"reshape"}) == []


def test_folders_of_a_room_import_one_way():
    """Within passes, and within codegen, no two folders need each other."""
    for room in ("passes", "codegen"):
        order = [*TopologicalSorter(folder_imports(REPOSITORY / PACKAGE, room)).static_order()]
        assert len(order) > 5


def test_a_circle_of_folders_is_found(house):
    """Planted, it stops the sort."""
    _plant(house, "passes/front/a.py", "from nncompiler.passes.back.b import go")
    _plant(house, "passes/back/b.py", "def go():\n    import nncompiler.passes.front.a")
    with pytest.raises(CycleError):
        TopologicalSorter(folder_imports(house, "passes")).prepare()


@pytest.mark.parametrize(
    ("place", "text", "expected"),
    [
        ("ir/a.py", "from nncompiler.passes import fuse", "'ir' imports 'passes'"),
        ("ir/a.py", "from ..lang.parse import go", "'ir' imports 'lang'"),
        ("ir/ops/a.py", "from ... import codegen", "'ir' imports 'codegen'"),
        ("lang/a.py", "def f():\n    import nncompiler.codegen.emit", "'lang' imports 'codegen'"),
        ("passes/a.py", "if TYPE_CHECKING:\n    from nncompiler import lang", "imports 'lang'"),
        ("codegen/a.py", "import nncompiler.driver", "'codegen' imports 'driver'"),
        ("codegen/a.py", "from nncompiler.ir.op import REGISTRY", "imports the operators"),
        ("codegen/a.py", "from nncompiler.ir import ops", "imports the operators"),
        ("runtime/a.py", "from nncompiler.ir import types", "'runtime' imports 'ir'"),
        ("runtime/a.py", "import nncompiler", "'runtime' imports '(package)'"),
        ("runtime/a.py", "import_module('nncompiler.driver')", "'runtime' imports 'driver'"),
        ("runtime/a.py", "importlib.import_module('..ir', __package__)", "'runtime' imports 'ir'"),
        ("runtime/a.py", "__import__('llvmlite')", "'runtime' imports llvmlite"),
        ("driver/a.py", "from nncompiler.cli import main", "'driver' imports 'cli'"),
        ("errors.py", "import numpy", "'errors' imports numpy"),
        ("__init__.py", "from nncompiler.runtime import Model", "must stay cheap"),
        ("passes/a.py", "import llvmlite.binding as llvm", "'passes' imports llvmlite"),
        ("ir/verify.py", "from lark import Lark", "'ir' imports lark"),
        ("passes/a.py", "import networkx as nx", "networkx outside a function"),
        ("passes/a.py", "class A:\n    import networkx", "networkx outside a function"),
        ("passes/a.py", "if TYPE_CHECKING:\n    pass\nelse:\n    import networkx", "outside"),
        ("runtime/a.py", "def f():\n    import networkx", "'runtime' imports networkx"),
        ("passes/a.py", "import scipy", "'passes' imports scipy"),
        ("driver/a.py", "from pickle import loads", "imports pickle"),
        ("runtime/a.py", "def f():\n    import marshal", "imports marshal"),
        ("cli/a.py", "import shelve", "imports shelve"),
        ("runtime/a.py", "numpy.load(p, allow_pickle=True)", "allow_pickle=True"),
        ("passes/a.py", "#\n" * (MAX_LINES + 1), f"more than {MAX_LINES}"),
        ("attic/a.py", "", "no room 'attic'"),
    ],
)
def test_planted_breach_is_found(house, place, text, expected):
    """Each breach gives exactly one line, with the file and the reason."""
    found = violations(_plant(house, place, text))
    assert len(found) == 1 and found[0].startswith(f"{place}:") and expected in found[0], found


@pytest.mark.parametrize(
    "text",
    [
        "TABLE = {'reshape': 1}",
        "if node.reshape: pass",
        "def reshape(): pass",
        "class reshape: pass",
        "def f(reshape): pass",
        "f(reshape=1)",
        "from x import reshape",
        "match node:\n    case 'reshape': pass",
    ],
)
def test_planted_operator_is_found(house, text):
    """An operator's name in code generation is found in every way it can be spelled."""
    found = operator_mentions(_plant(house, "codegen/a.py", text), {"reshape"})
    assert found and all("codegen/a.py:" in line and "'reshape'" in line for line in found)


def test_operator_names_elsewhere_are_fine(house):
    """Other rooms, longer strings and Python's own functions do not count."""
    _plant(house, "passes/a.py", "reshape = 'reshape'")
    _plant(house, "codegen/a.py", "total = sum(x)\nmessage = 'reshape the data first'")
    assert operator_mentions(house, {"reshape", "sum"}) == []
    assert operator_mentions(_plant(house, "codegen/a.py", "'sum'"), {"sum"}) != []
