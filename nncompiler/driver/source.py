"""Source text of a model, from a file or as it is."""

from __future__ import annotations

from pathlib import Path

from nncompiler.errors import Source, UserError


def read_source(path_or_text: str | Path) -> Source:
    """A `.nn` file, or source text itself (anything with a newline or a brace); else NN0901."""
    if isinstance(path_or_text, str) and ("\n" in path_or_text or "{" in path_or_text):
        return Source("<text>", path_or_text)
    path = Path(path_or_text)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError("NN0901", f"cannot read '{path}': {error.strerror or error}") from None
    return decode_source(data, str(path))


def decode_source(data: bytes, name: str) -> Source:
    """The contents of a `.nn` file; `UserError` NN00xx where they are not text of some size."""
    from nncompiler.lang.lex import read

    return read(data, name)
