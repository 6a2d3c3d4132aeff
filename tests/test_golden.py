"""The `golden` fixture itself."""

from __future__ import annotations

import pytest


def test_golden_compares_and_updates(golden, request, tmp_path):
    """A difference fails and names the flag; with the flag, the file is rewritten."""
    path = tmp_path / "text.expected"
    path.write_text("old\n")
    if request.config.getoption("--update-golden"):
        golden(path, "new\n")
        assert path.read_text() == "new\n"
    else:
        golden(path, "old\n")
        with pytest.raises(pytest.fail.Exception, match=r"(?s)--update-golden.*-old.*\+new"):
            golden(path, "new\n")
