"""Runs the experiments of the tutorial and compares what they print with what their pages say.

    python docs/tutorial/check.py [--update] [NAME ...]

Words must be the same, and figures within 5 %: training amplifies the rounding in which processors
and versions of the compiler differ. `--update` writes pages and pictures anew.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
IMAGES = HERE.parent / "images"
#: What has a page of its own name.
EXPERIMENTS = ("variance", "dying_relu", "learning_rate", "early_stopping", "dropout", "momentum",
               "filters")  # fmt: skip
TOLERANCE = 0.05


def run(name: str, images: Path) -> str:
    """What an experiment prints, its pictures in `images`."""
    command = [sys.executable, str(HERE / f"{name}.py"), "--out", str(images)]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr}")
    return "".join(f"{line.rstrip()}\n" for line in done.stdout.splitlines())


def block(name: str) -> tuple[str, str, str]:
    """A page as what is before its output, the output, and what is behind it."""
    text = (HERE / f"{name}.md").read_text(encoding="utf-8")
    head = f"```text\n$ python docs/tutorial/{name}.py\n"
    before, rest = text.split(head)
    output, after = rest.split("```", 1)
    return before + head, output, "```" + after


def differences(page: str, output: str) -> list[str]:
    """The lines in which a page is not what the experiment prints."""
    told, found = page.splitlines(), output.splitlines()
    if len(told) != len(found):
        return [f"{len(told)} lines in the page, {len(found)} found"]
    pairs = zip(told, found, strict=True)
    return [f"  page:  {a}\n  found: {b}" for a, b in pairs if not _alike(a, b)]


def _alike(a: str, b: str) -> bool:
    number = r"-?\d+(?:\.\d+)?(?:e[+-]\d+)?"
    if re.sub(number, "#", a).split() != re.sub(number, "#", b).split():
        return False
    pairs = zip(re.findall(number, a), re.findall(number, b), strict=True)
    return all(math.isclose(float(x), float(y), rel_tol=TOLERANCE) for x, y in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", default=EXPERIMENTS, metavar="NAME")
    parser.add_argument("--update", action="store_true", help="write pages and pictures anew")
    options = parser.parse_args()
    failed = False
    for name in options.names:
        before, told, after = block(name)
        if options.update:
            output = run(name, IMAGES)
            (HERE / f"{name}.md").write_text(before + output + after, encoding="utf-8")
            continue
        with tempfile.TemporaryDirectory() as folder:
            wrong = differences(told, run(name, Path(folder)))
        print(f"{name}: {'differs' if wrong else 'as in the page'}", *wrong, sep="\n")
        failed = failed or bool(wrong)
    sys.exit(4 if failed else 0)


if __name__ == "__main__":
    main()
