"""Runs what the pages of the tutorial run and compares what it prints with what the pages say.

    python docs/tutorial/check.py [--update] [PAGE ...]

Words must be the same, and figures within 5 % or a unit of their last digit: training amplifies
the rounding in which processors and versions of the compiler differ. What stands between two rules
of dashes was drawn at random by a network and is not compared. `--update` writes pages and
pictures anew.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
IMAGES = HERE.parent / "images"
#: A command and its output on a page.
RUN = re.compile(r"(?<=^```text\n)\$ python (.*)\n((?s:.*?))(?=^```)", re.M)
#: Pages that run something.
PAGES = tuple(
    p.stem for p in sorted(HERE.glob("*.md")) if RUN.search(p.read_text(encoding="utf-8"))
)
TOLERANCE = 0.05
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]\d+)?")


def run(command: str, folder: Path) -> str:
    """What a script prints that runs in `folder`; its pictures are in `folder`/out."""
    script, *words = shlex.split(command)
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / script), *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{command}: {done.stderr}")
    return "".join(f"{line.rstrip()}\n" for line in done.stdout.splitlines())


def differences(page: str, output: str) -> list[str]:
    """The lines in which a page is not what its script prints."""
    told, found = _compared(page), _compared(output)
    if len(told) != len(found):
        return [f"{len(told)} lines in the page, {len(found)} found"]
    pairs = zip(told, found, strict=True)
    return [f"  page:  {a}\n  found: {b}" for a, b in pairs if not _alike(a, b)]


def _compared(text: str) -> list[str]:
    """The lines without those between two rules."""
    kept: list[str] = []
    drawn = False
    for line in text.splitlines():
        rule = len(line) > 3 and set(line) == {"-"}
        if rule or not drawn:
            kept.append(line)
        drawn ^= rule
    return kept


def _alike(a: str, b: str) -> bool:
    if NUMBER.sub("#", a).split() != NUMBER.sub("#", b).split():
        return False
    return all(map(_near, NUMBER.findall(a), NUMBER.findall(b)))


def _near(a: str, b: str) -> bool:
    """Whether two figures differ by 5 % at most, or by one unit of the last digit."""
    mantissa, _, exponent = a.partition("e")
    unit = 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
    return math.isclose(float(a), float(b), rel_tol=TOLERANCE, abs_tol=1.001 * unit)


def update(page: Path, images: Path) -> None:
    """Write a page's outputs and pictures anew."""
    with tempfile.TemporaryDirectory() as folder:

        def anew(found: re.Match[str]) -> str:
            return f"$ python {found[1]}\n{run(found[1], Path(folder))}"

        text = RUN.sub(anew, page.read_text(encoding="utf-8"))
        for picture in sorted(Path(folder, "out").glob("*")):
            shutil.copy(picture, images)
    page.write_text(text, encoding="utf-8")


def check(page: Path) -> list[str]:
    """What differs in a page."""
    text = page.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        runs = [(m[2], run(m[1], Path(folder))) for m in RUN.finditer(text)]
    return [line for told, output in runs for line in differences(told, output)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("pages", nargs="*", metavar="PAGE", help=f"of {', '.join(PAGES)}")
    parser.add_argument("--update", action="store_true", help="write pages and pictures anew")
    options = parser.parse_args()
    if unknown := [name for name in options.pages if name not in PAGES]:
        parser.error(f"expected pages of {', '.join(PAGES)}, but found {', '.join(unknown)}")
    failed = False
    for name in options.pages or PAGES:
        page = HERE / f"{name}.md"
        if options.update:
            update(page, IMAGES)
            continue
        wrong = check(page)
        print(f"{name}: {'differs' if wrong else 'as in the page'}", *wrong, sep="\n")
        failed = failed or bool(wrong)
    sys.exit(4 if failed else 0)


if __name__ == "__main__":
    main()
