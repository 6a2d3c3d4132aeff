"""The documents do what they say: their commands and programs are run, their outputs compared.

Each is followed from top to bottom in a folder of its own that holds a copy of `models/`.

- ```` ```sh ````: run by `sh -e`. Of `make demo` its command is run, without the set-up; of other
  targets only that they exist. Activating the environment and installing into it are left out.
  Blocks that call `cc` need a C compiler.
- ```` ```python ````: run, in one namespace for each document.
- ``<!-- file: NAME -->`` before a block writes the block to that file instead of running it; a
  model must pass `nnc check`.
- ``<!-- not run -->`` before a block leaves it alone.
- ```` ```text ```` after such a block is what it prints. `...` stands for any characters, on a
  line of its own for any lines. What depends on the machine may be anything: times, rates, sizes
  of machine code, what follows `schedule`. So may counts of nodes, kernels and bytes of arena, and
  the numbers in names that the compiler makes up (`%12`, `v12`, `k12`). Numbers with a decimal
  point agree to 5 % or 0.05: training rounds differently on other processors.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = ["README.md", *(f"docs/{n}.md" for n in ("python", "c", "artifact", "ir", "report"))]
FENCE = re.compile(
    r"(?:<!-- (?P<mark>[^\n]*?) -->\n+)?^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.M | re.S
)
MAKEFILE = (ROOT / "Makefile").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")
LEFT_OUT = re.compile(r"(?:make|source|\.) .*|.*\bpip install .*|cd .*|git clone .*")


@dataclass(frozen=True)
class Block:
    """A fenced block; `mark` is the comment before it."""

    kind: str
    text: str
    mark: str
    line: int


def blocks_of(path: Path) -> list[Block]:
    text = path.read_text()
    return [
        Block(m["kind"], m["text"], m["mark"] or "", text.count("\n", 0, m.start("text")) + 1)
        for m in FENCE.finditer(text)
    ]


# --- comparing outputs ---------------------------------------------------------------------------

_TOKEN = re.compile(
    r"(?P<gap>^[ \t]*\.\.\.[ \t]*\n)|(?P<any>\.\.\.)|(?P<schedule>schedule [^\n]*)"
    r"|(?P<time>\d+(?:\.\d+)?[kMG]?(?= (?:s|ms|samples/s)\b)|\d+:\d\d(?= left)"
    r"|\d+(?= (?:nodes|groups|kernels|bytes of arena|bytes of shared object)\b| bytes;))"
    r"|(?P<name>(?:%|\b[kv])\d+\b)|(?P<number>-?\d+\.\d+(?:e[-+]\d+)?)"
    r"|(?P<space>[ \t]+)|(?P<other>.|\n)",
    re.M,
)
_PATTERNS = {
    "gap": r"(?:[^\n]*\n)*?", "any": r"[^\n]*?", "schedule": r"schedule [^\n]*",
    "time": r"[\d.:]+[kMG]?", "number": r"(-?\d+(?:\.\d+)?(?:e[-+]\d+)?)", "space": r"[ \t]+",
    "name": r"[%kv]\d+",
}  # fmt: skip


def disagreement(expected: str, found: str) -> str | None:
    """What is wrong with `found`, by the rules above; None if nothing is."""
    tokens = list(_TOKEN.finditer(expected))
    pattern = "".join(_PATTERNS.get(str(m.lastgroup)) or re.escape(m[0]) for m in tokens)
    match = re.fullmatch(pattern, "".join(f"{line.rstrip()}\n" for line in found.splitlines()))
    if not match:
        return "the text differs"
    numbers = [float(m[0]) for m in tokens if m.lastgroup == "number"]
    for wanted, got in zip(numbers, map(float, match.groups()), strict=True):
        if abs(wanted - got) > max(0.05, 0.05 * abs(wanted)):
            return f"expected about {wanted}, but found {got}"
    return None


@pytest.mark.parametrize(
    ("expected", "found", "agree"),
    [
        ("a 1.50\n", "a   1.51\n", True),
        ("a 1.50\n", "a 1.70\n", False),
        ("a 15\n", "a 16\n", False),
        ("took 1.5 s, 3k samples/s  0:07 left\n", "took 31 s, 2.5M samples/s  1:00 left\n", True),
        ("x\n...\nz\n", "x\ny\ny\nz\n", True),
        ("x\n...\nz\n", "x\ny\n", False),
        ("  kernel k0: %31\n", "  kernel k2: %3\n", True),
        ("x ... z\n", "x y z\n", True),
        ("schedule loops: vector i\n", "schedule contract: tile 4x16\n", True),
        ("m.so: 46872 bytes; m.h\n", "m.so: 1 bytes; m.h\n", True),
    ],
)  # fmt: skip
def test_comparison_of_outputs(expected: str, found: str, agree: bool) -> None:
    """The rules of the module docstring."""
    assert (disagreement(expected, found) is None) is agree


# --- following a document ------------------------------------------------------------------------


class Reader:
    """Follows one document in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.names = folder, {"__name__": "__main__"}
        self.skipped: list[str] = []
        commands = folder / "bin"
        commands.mkdir()
        for name, arguments in (("nnc", "-m nncompiler "), ("python", ""), ("python3", "")):
            (commands / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments}"$@"\n')
            (commands / name).chmod(0o755)
        self.environment = {
            **os.environ, "PYTHONPATH": str(ROOT),
            "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
        }  # fmt: skip

    def output(self, block: Block) -> str | None:
        """What the block prints, None where it is not for running."""
        if block.mark.startswith("file: "):
            path = self.folder / block.mark.removeprefix("file: ")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
            if block.kind == "nn":
                self._run(f"nnc check {path}", subprocess.STDOUT)
            return None
        if block.mark == "not run":
            return None
        match block.kind:
            case "sh":
                return self._shell(block.text)
            case "python":
                return self._python(block)
            case _:
                return None

    def _shell(self, text: str) -> str | None:
        lines = text.replace("\\\n", " ").splitlines()
        if lines == ["make demo"]:
            return self._run(_demo(), subprocess.STDOUT)
        kept = [line for line in lines if not LEFT_OUT.fullmatch(line)]
        for line in set(lines) - set(kept):
            if target := re.match(r"make (\w+)", line):
                assert re.search(rf"^{target[1]}:", MAKEFILE, re.M), line
        if not kept:
            return None
        if any(line.startswith("cc ") for line in kept) and shutil.which("cc") is None:
            self.skipped.append(text)
            return None
        return self._run("\n".join(kept), subprocess.PIPE)

    def _run(self, script: str, errors: int) -> str:
        run = subprocess.run(
            ["sh", "-e", "-c", script], cwd=self.folder, env=self.environment, text=True,
            stdout=subprocess.PIPE, stderr=errors, timeout=60,
        )  # fmt: skip
        assert run.returncode == 0, f"{script}\n{run.stdout}{run.stderr or ''}"
        return run.stdout

    def _python(self, block: Block) -> str:
        printed = io.StringIO()
        with redirect_stdout(printed):
            exec(compile(block.text, f"line {block.line}", "exec"), self.names)
        return printed.getvalue()


def _demo() -> str:
    """The command of `make demo`."""
    found = re.search(r"^DEMO = ((?:.*\\\n)*.*)", MAKEFILE, re.M)
    assert found
    return "mkdir out; " + found[1].replace("$(BIN)/", "").replace("$(MODEL)", "digits_mlp")


def _pairs(blocks: list[Block]) -> Iterator[tuple[Block, str | None]]:
    """Every block with the output that the document shows for it."""
    for block, after in zip(blocks, [*blocks[1:], None], strict=True):
        yield block, after.text if after and after.kind == "text" else None


@pytest.mark.parametrize("name", DOCUMENTS)
def test_document(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command and program of the document runs and prints what the document says."""
    monkeypatch.setenv("NNCOMPILER_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "models", tmp_path / "models")
    reader = Reader(tmp_path)
    for block, expected in _pairs(blocks_of(ROOT / name)):
        found = reader.output(block)
        if found is None or expected is None:
            continue
        wrong = disagreement(expected, found)
        assert wrong is None, (
            f"{name}:{block.line}: {wrong}\n--- expected\n{expected}--- found\n{found}"
        )
    if reader.skipped:
        pytest.skip(f"no C compiler: {len(reader.skipped)} blocks of {name} were not run")


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(path: Path) -> None:
    """Relative links name files that exist, and headings that are there."""
    for link in LINK.findall(path.read_text()):
        if re.match(r"https?:", link):
            continue
        target, _, heading = link.partition("#")
        found = (path.parent / target) if target else path
        assert found.exists(), f"{path.name} links to {link}"
        if heading:
            titles = re.findall(r"^#+ (.*)$", found.read_text(), re.M)
            slugs = {re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles}
            assert heading in slugs, f"{path.name} links to {link}"


def test_operator_table_is_up_to_date() -> None:
    """The table in docs/ir.md is the one that the registry gives."""
    run = subprocess.run(
        [sys.executable, "docs/operator_table.py"], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
