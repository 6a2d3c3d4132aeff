"""`import "other.nn"`: the fns and layers of another file in the folder of the model, or below it.

A path is relative to the file that has it, without `..`, and no link may lead out of the model's
folder. What a file imports is known in that file only; its model and train block, if it has any,
do not count.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from nncompiler.errors import NNError, Note, Span, UserError
from nncompiler.lang import syntax as s
from nncompiler.lang.elaborate.scope import check_definition
from nncompiler.lang.elaborate.values import Definition, Module
from nncompiler.lang.lex import MAX_BYTES
from nncompiler.lang.parse import parse
from nncompiler.record import dataclass, field

MAX_DEPTH = 8


@dataclass(slots=True)
class Loader:
    """The files read for one model, by resolved path."""

    root: Path
    modules: dict[Path, Module] = field(default_factory=dict)
    texts: list[bytes] = field(default_factory=list)
    #: The files whose imports are being read, each with what imported it.
    open: dict[Path, Span] = field(default_factory=dict)

    def module(self, file: s.File, folder: Path) -> Module:
        """The definitions of `file` and what it imports; `folder` is where it is."""
        own: dict[str, s.Fn | s.Layer] = {}
        for item in file.items:
            if isinstance(item, (s.Fn, s.Layer)):
                check_definition(item, own)
                own[item.name.text] = item
        imported: dict[str, Definition] = {}
        for item in file.items:
            if isinstance(item, s.Import):
                self._add(item, self._load(item, folder), own, imported)
        return Module(own, stdlib=False, imported=imported)

    def _add(self, item: s.Import, module: Module, own: Mapping[str, s.Fn | s.Layer],
             imported: dict[str, Definition]) -> None:
        for name, definition in module.definitions.items():
            first = own.get(name)
            if name in imported and imported[name].item is not definition:
                first = imported[name].item
            if first is not None:
                raise UserError("NN0102", f"`{name}` is defined twice", item.span,
                                notes=[Note("it is defined here", first.name.span),
                                       Note("and imported from here", definition.name.span)],
                                help="rename one of them")
            imported[name] = Definition(definition, module)

    def _load(self, item: s.Import, folder: Path) -> Module:
        path = self._resolve(item, folder)
        if path in self.open:
            notes = [Note("in this import", span) for span in list(self.open.values())[1:]]
            raise UserError("NN0224", f"`{item.path.value}` imports itself", item.span,
                            notes=notes[:3], help="move what both files need into a third")
        if path in self.modules:
            return self.modules[path]
        if len(self.open) > MAX_DEPTH:
            raise UserError("NN0225", f"imports nest more than {MAX_DEPTH} deep", item.span)
        data = self._read(item, path)
        self.open[path] = item.span
        try:
            name = (PurePosixPath(item.span.file).parent / item.path.value).as_posix()
            self.modules[path] = self.module(parse(data, name), path.parent)
        finally:
            del self.open[path]
        return self.modules[path]

    def _resolve(self, item: s.Import, folder: Path) -> Path:
        text = item.path.value
        parts = text.split("/")
        if "" in parts or ".." in parts or set(text) & set('\\:\0') or not text.endswith(".nn"):
            raise UserError("NN0222", f"expected the path of a .nn file in this folder or below, "
                            f"but found \"{text[:80]}\"", item.path.span,
                            help='write it relative to this file: `import "parts/blocks.nn"`')
        try:
            path = (folder / text).resolve(strict=True)
        except (OSError, RuntimeError):
            raise _unreadable(item, "there is no such file") from None
        if not path.is_relative_to(self.root):
            raise UserError("NN0222", f"\"{text}\" leads out of the folder of the model",
                            item.path.span, help="copy the file into the folder")
        return path

    def _read(self, item: s.Import, path: Path) -> bytes:
        """The text of a file, read to just beyond what a file may hold."""
        if not path.is_file():
            raise _unreadable(item, "it is not a file")
        try:
            with path.open("rb") as stream:
                self.texts.append(stream.read(MAX_BYTES + 1))
        except OSError as error:
            raise _unreadable(item, error.strerror or str(error)) from None
        return self.texts[-1]


def _unreadable(item: s.Import, why: str) -> UserError:
    return UserError("NN0223", f"cannot import \"{item.path.value}\": {why}", item.path.span,
                     help="the path is relative to the file with the import")


def module_of(file: s.File) -> Module:
    """The definitions of the user's file, and what it imports."""
    return _load(file)[0]


def imported_texts(data: bytes, name: str) -> list[bytes]:
    """What the file `name` imports, directly or not; nothing where that is an error."""
    try:
        return _load(parse(data, name))[1].texts
    except NNError:
        return []


def _load(file: s.File) -> tuple[Module, Loader]:
    place = Path(file.span.file)
    try:
        path = place.resolve()
        on_disk = path.is_file()
    except (OSError, RuntimeError, ValueError):
        on_disk = False
    first = next((i for i in file.items if isinstance(i, s.Import)), None)
    if first is not None and not on_disk:
        raise _unreadable(first, "this text is not in a file, so there is no folder to look in")
    loader = Loader(path.parent if on_disk else Path())
    loader.open[path if on_disk else place] = file.span
    return loader.module(file, loader.root), loader
