"""Fixtures every test may use; `--update-golden` rewrites expected texts instead of comparing."""

from __future__ import annotations

import difflib
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

Golden = Callable[[Path, str], None]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--update-golden``."""
    parser.addoption("--update-golden", action="store_true",
                     help="rewrite the expected texts of golden tests")


def pytest_configure() -> None:
    """Ctrl-C means what it means on a terminal: a shell starts background jobs without it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    """``golden(path, text)``: `text` must equal the file's content, or becomes it on request."""
    update = request.config.getoption("--update-golden")

    def compare(path: Path, text: str) -> None:
        if update:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode())
            return
        expected = path.read_bytes().decode() if path.exists() else ""
        if text != expected:
            diff = difflib.unified_diff(expected.splitlines(), text.splitlines(),
                                        "expected", "actual", lineterm="")
            pytest.fail(f"{path.name} differs; if the new text is right, rewrite it with "
                        "`pytest --update-golden`\n" + "\n".join(diff), pytrace=False)

    return compare
