"""The pages about the house name files that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / "nncompiler"
ROWS = re.findall(
    r"^\| `([\w/.]+)`(?:, `[\w.]+`)* \| (.*) \|$",
    (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8"), re.MULTILINE,
)  # fmt: skip
#: Names in a row that are none of files: how a strategy, a type or a function is called.
OTHERS = {"dataclass", "compile", "UserError", "Limitation", "CompilerBug", "init"}


@pytest.mark.parametrize("room, text", ROWS, ids=[room for room, _ in ROWS])
def test_files_of_a_room_are_there(room: str, text: str) -> None:
    """What a row of the table names, `*` for any ending, lies in the room."""
    assert (PACKAGE / room).exists()
    for name in set(re.findall(r"`([^`]+)`", text)) - OTHERS:
        found = [*PACKAGE.glob(f"{room}{name}.py"), *PACKAGE.glob(f"{room}{name}")]
        assert found, f"{room} has no {name}"


def test_rooms_are_in_the_table() -> None:
    """Every folder of the package, but for those within one that has a row of its own."""
    rooms = {room.rstrip("/") for room, _ in ROWS}
    folders = {f.parent.relative_to(PACKAGE).as_posix() for f in PACKAGE.rglob("*.py")}
    assert {f for f in folders if f not in rooms} <= {".", "ir/text", "lang/elaborate"}
