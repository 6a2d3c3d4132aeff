"""`dataclass` for a package that has hundreds of them, and makes a million objects to compile.

The same as that of the standard library for what is used here: `frozen`, `slots` and `eq`. That
one compiles six functions for each class, and its frozen objects set their fields by name; here
only `__init__` is compiled, once for all classes of one form, and it sets slots directly. Both
took a tenth of a compilation.
`dataclasses.fields` and what builds on it know these classes too.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from dataclasses import field as field
from functools import cache
from operator import attrgetter
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
    from dataclasses import replace as replace
else:

    def dataclass(cls=None, /, *, frozen=False, slots=True, eq=True):
        """Give a class its slots, `__init__`, `__repr__`, and with `eq` comparison by fields."""

        def made(cls):
            return _made(cls, frozen, eq)

        assert slots, "records have slots"
        return made if cls is None else made(cls)

    def replace(record, /, **changes):
        """A copy of a record with some fields changed."""
        for name in record._given:
            if name not in changes:
                changes[name] = getattr(record, name)
        return record.__class__(**changes)


#: How `dataclasses.fields` tells fields from class variables.
_PLAIN = dataclasses._FIELD  # type: ignore[attr-defined]


def _made(cls: type, frozen: bool, eq: bool) -> type:
    own = cls.__dict__
    hashed = "__hash__" in own
    known = _fields(cls)
    fields = tuple(known.values())
    made = _slotted(cls, known)
    made.__init__ = _initialiser(made, fields)
    made._given = tuple([f.name for f in fields if f.init])
    if "__repr__" not in own:
        made._shown = tuple([f.name for f in fields if f.repr])
        made.__repr__ = _repr
    if eq:
        if "__eq__" not in own:
            made.__eq__ = _equality(_values([f.name for f in fields if f.compare]))
        if not hashed:
            keys = [f.name for f in fields if (f.compare if f.hash is None else f.hash)]
            made.__hash__ = _hash(_values(keys)) if frozen else None
    if frozen:
        made.__setattr__, made.__delattr__ = _refused, _refused
    return made  # type: ignore[no-any-return]


def _fields(cls: type) -> dict[str, Any]:
    """The fields by name: those of the bases, then what the class annotates, but for class
    variables."""
    found: dict[str, Any] = {}
    for base in cls.__mro__[:0:-1]:
        found |= getattr(base, "__dataclass_fields__", {})
    for name, type in inspect.get_annotations(cls).items():
        if str(type).startswith(("ClassVar", "typing.ClassVar")):
            continue
        given = cls.__dict__.get(name, dataclasses.MISSING)
        f: Any = given if isinstance(given, dataclasses.Field) else field(default=given)
        if f.default.__class__.__hash__ is None:
            raise TypeError(f"expected a default_factory for {name}, but found {f.default!r}")
        f.name, f.type, f._field_type = name, type, _PLAIN
        f.kw_only = f.kw_only is True
        found[name] = f
    return found


def _slotted(cls: type, fields: dict[str, Any]) -> Any:
    """The class once more with a slot for each field that no base has."""
    inherited = {n for base in cls.__mro__[1:] for n in getattr(base, "__dataclass_fields__", ())}
    held = {n: v for n, v in cls.__dict__.items()
            if n not in fields and n not in ("__dict__", "__weakref__")}
    held["__slots__"] = tuple([n for n in fields if n not in inherited])
    given = [n for n, f in fields.items() if f.init and not f.kw_only]
    held["__match_args__"] = tuple(given)
    made: Any = type(cls)(cls.__name__, cls.__bases__, held)
    made.__qualname__ = cls.__qualname__
    made.__dataclass_fields__ = fields
    return made


def _initialiser(cls: Any, fields: tuple[dataclasses.Field[Any], ...]) -> Callable[..., None]:
    """A function that takes the fields in order and sets each slot."""
    known: dict[str, Any] = {"_none": dataclasses.MISSING}
    names, keywords = ["_self"], list[str]()
    defaults, keyword_defaults = [], {}
    forms = []
    for k, f in enumerate(fields):
        known[f"_set{k}"] = getattr(cls, f.name).__set__
        made = f.default_factory is not dataclasses.MISSING
        known[f"_get{k}"] = f.default_factory if made else f.default
        optional = made or f.default is not dataclasses.MISSING
        forms.append((f.init, f.kw_only, made, f.init or optional))
        if f.init:
            (keywords if f.kw_only else names).append(f.name)
            if optional and f.kw_only:
                keyword_defaults[f.name] = f.default
            elif optional:
                defaults.append(f.default)
            elif defaults and not f.kw_only:
                raise TypeError(f"expected a default for {f.name}, but found none")
    code = _code(tuple(forms), hasattr(cls, "__post_init__"))
    code = code.replace(co_varnames=(*names, *keywords))
    function = FunctionType(code, known, "__init__", tuple(defaults))
    function.__kwdefaults__ = keyword_defaults
    function.__qualname__ = f"{cls.__qualname__}.__init__"
    return function


@cache
def _code(forms: tuple[tuple[bool, bool, bool, bool], ...], post: bool) -> CodeType:
    """What `_initialiser` runs for fields of these forms, with numbers for their names: whether
    they are given, only by keyword, made by a factory, optional."""
    parameters, keywords, lines = ["_self"], ["*"], []
    for k, (init, keyword, made, here) in enumerate(forms):
        if not here:
            continue  # `__post_init__` sets it
        default = f"_get{k}()" if made else f"_get{k}"
        if init:
            (keywords if keyword else parameters).append(f"_{k}")
            default = f"{default} if _{k} is _none else _{k}" if made else f"_{k}"
        lines.append(f"    _set{k}(_self, {default})\n")
    lines += ["    _self.__post_init__()\n"] if post else []
    parameters += keywords if len(keywords) > 1 else []
    text = f"def __init__({', '.join(parameters)}):\n{''.join(lines) or '    pass'}"
    module = compile(text, "<record>", "exec")
    return next(c for c in module.co_consts if isinstance(c, CodeType))


def _values(names: list[str]) -> Callable[[Any], tuple[Any, ...]]:
    """What takes the values of fields as a tuple."""
    if len(names) > 1:
        return attrgetter(*names)
    return lambda record: tuple([getattr(record, n) for n in names])


def _equality(values: Callable[[Any], tuple[Any, ...]]) -> Callable[[Any, object], Any]:
    def __eq__(self: Any, other: object) -> Any:
        if other is self:
            return True
        if other.__class__ is not self.__class__:
            return NotImplemented
        return values(self) == values(other)

    return __eq__


def _hash(values: Callable[[Any], tuple[Any, ...]]) -> Callable[[Any], int]:
    return lambda self: hash(values(self))


def _repr(self: Any) -> str:
    shown = []
    for name in self._shown:  # one frame for each level of a tree, which may be deep
        shown.append(f"{name}={getattr(self, name)!r}")
    return f"{self.__class__.__qualname__}({', '.join(shown)})"


def _refused(self: Any, name: str, value: object = None) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot change field {name!r} of a frozen record")
