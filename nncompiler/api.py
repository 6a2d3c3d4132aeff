"""From source to artifact and `Model` through the cache, for `nncompiler.compile` and the verbs.

What is in the cache is found without importing the compiler, NumPy or LLVM.
"""

from __future__ import annotations

import gc
import hashlib
import json
import operator
import os
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from nncompiler import __version__
from nncompiler.cache import environment, key_of, standard
from nncompiler.clock import Clock, Stage
from nncompiler.errors import UserError
from nncompiler.record import dataclass, field, replace

if TYPE_CHECKING:
    from nncompiler.cache import Cache
    from nncompiler.codegen.emit import Compile
    from nncompiler.codegen.target import Target
    from nncompiler.driver import Options
    from nncompiler.driver.tuning import Tuner
    from nncompiler.ir.types import Array
    from nncompiler.runtime.artifact import Artifact
    from nncompiler.runtime.model import Model

#: One binding of the free sizes, in the order given.
Sizes = tuple[tuple[str, int], ...]

#: Largest size that can be bound: the limit on the elements of a tensor.
MAX_SIZE = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Request:
    """Everything that decides the bytes of an artifact, but this compiler and this machine.

    `functions` None means all the model has; `weights` is a file to embed, with `freeze` as
    constants. With `tune` the clock of this machine decides as well.
    """

    name: str
    source: bytes = field(repr=False)
    bindings: tuple[Sizes, ...] = ((),)
    dtype: str = "f32"
    cpu: str = "host"
    direct: bool = False
    tune: bool = False
    functions: tuple[str, ...] | None = None
    weights: str | None = None
    freeze: bool = False


@dataclass(frozen=True, slots=True)
class Built:
    """A compiled artifact. `cached` ones keep the stages of the compilation that made them."""

    so: bytes = field(repr=False)
    header: str = field(repr=False)
    stages: tuple[Stage, ...]
    cached: bool
    seconds: float


def request(path: str | os.PathLike[str], **settings: Any) -> Request:
    """The request for a file; `UserError` NN0901 when it cannot be read."""
    name = os.fspath(path)  # `open` takes a number for a descriptor, and closes it
    try:
        with open(name, "rb") as stream:
            return Request(name, stream.read(), **settings)
    except OSError as error:
        raise unreadable(os.fsdecode(name), error) from None


def unreadable(name: str, error: OSError) -> UserError:
    """The error for a model's file that is not there, or not to be read."""
    near = f"{name}.nn"
    return UserError(
        "NN0901", f"cannot read '{name}': {error.strerror or error}",
        help=f"did you mean '{near}'?" if os.path.isfile(near) else None,
    )  # fmt: skip


def build(
    wanted: Request, cache: bool = True, customise: Callable[[Options], Options] | None = None
) -> Built:
    """The artifact, from the cache if it is there; `customise` (hooks and such) goes without."""
    start = time.perf_counter()
    store = standard() if cache and customise is None else None
    key = "" if store is None else key_of(_parts(wanted))
    if store is not None and (payload := store.get(key)) is not None:
        so, header, stages = _unpack(payload)
        return Built(so, header, stages, True, time.perf_counter() - start)
    so, header, stages = _compile(wanted, customise, standard() if cache else None)
    if store is not None:
        store.put(key, _pack(so, header, stages))
        store.prune()
    return Built(so, header, stages, False, time.perf_counter() - start)


def _parts(wanted: Request) -> list[bytes]:
    weights = b""
    if wanted.weights is not None:
        try:
            with open(wanted.weights, "rb") as stream:
                weights = hashlib.sha256(stream.read()).digest()
        except OSError:
            weights = b"unreadable"  # never stored: compiling raises the error that says so
    flags = [wanted.bindings, wanted.dtype, wanted.cpu, wanted.direct, wanted.functions]
    flags += [wanted.freeze, wanted.tune]
    fixed = [__version__.encode(), wanted.name.encode(), wanted.source, json.dumps(flags).encode()]
    decides = "host" if wanted.tune else wanted.cpu  # this processor, where its clock does
    return [*fixed, weights, *_imported(wanted), *environment(decides)]


def _imported(wanted: Request) -> list[bytes]:
    """What the files hold that the source imports."""
    if b"import" not in wanted.source:
        return []
    from nncompiler.lang.elaborate.imports import imported_texts

    return imported_texts(wanted.source, wanted.name)


def _compile(
    wanted: Request, customise: Callable[[Options], Options] | None, store: Cache | None
) -> tuple[bytes, str, tuple[Stage, ...]]:
    with _uncollected():
        from nncompiler import driver

        clock = Clock()
        options = options_of(wanted, store)
        artifact = driver.compile_artifact(
            driver.decode_source(wanted.source, wanted.name),
            [dict(b) for b in wanted.bindings],
            options if customise is None else customise(options),
            clock,
            None if wanted.weights is None or wanted.freeze else read_weights(wanted.weights),
            None if store is None else kept_objects(store),
        )
    return (
        artifact.so,
        artifact.header,
        tuple(clock.stages),
    )


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without searches for cycles of garbage: IR has none, and they took a tenth of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def read_weights(path: str) -> dict[str, Array]:
    """What a file of weights holds; `UserError` for one that cannot be read."""
    from nncompiler.runtime import weights

    return weights.read_weights(path)


def kept_objects(store: Cache) -> Compile:
    """Compiles modules to objects, but for those that are in the cache: models share bundles of
    kernels.
    """
    from nncompiler.codegen.objects.processes import compile_modules

    def objects(texts: Iterable[str], target: Target) -> Sequence[bytes]:
        fixed = [b"object", repr(target).encode(), *environment(target.cpu)]
        keys: list[str] = []  # of what is missing
        found: list[bytes | None] = []

        def missing() -> Iterator[str]:
            for text in texts:
                key = key_of([*fixed, text.encode()])
                found.append(store.get(key))
                if found[-1] is None:
                    keys.append(key)
                    yield text

        made = iter(compile_modules(missing(), target, lambda k, new: store.put(keys[k], new)))
        return [next(made) if data is None else data for data in found]

    return objects


def options_of(wanted: Request, store: Cache | None) -> Options:
    """Of each compilation; `UserError` for functions that no model has, weights that cannot be
    read, and tiles that cannot be timed here. What was timed is kept in `store`."""
    from nncompiler import driver

    functions = None if wanted.functions is None else driver.check_functions(wanted.functions)
    frozen = read_weights(wanted.weights) if wanted.freeze and wanted.weights else None
    return driver.Options(
        dtype=wanted.dtype, cpu=wanted.cpu, direct=wanted.direct, functions=functions,
        frozen=frozen, tuner=_tuner(wanted, store) if wanted.tune else None,
    )  # fmt: skip


def _tuner(wanted: Request, store: Cache | None) -> Tuner:
    from nncompiler.driver.tuning import tuner_for

    fixed = [b"tiles", wanted.cpu.encode(), *environment("host")]
    return tuner_for(wanted.cpu, store, lambda text: key_of([*fixed, text.encode()]))


def _pack(so: bytes, header: str, stages: Sequence[Stage]) -> bytes:
    text = json.dumps(
        {"header": header, "stages": [[s.name, s.seconds, s.detail] for s in stages]}
    ).encode()
    return struct.pack("<Q", len(text)) + text + so


def _unpack(payload: bytes) -> tuple[bytes, str, tuple[Stage, ...]]:
    (length,) = struct.unpack_from("<Q", payload)
    text = json.loads(payload[8 : 8 + length])
    return payload[8 + length :], text["header"], tuple(Stage(*s) for s in text["stages"])


def bindings_of(
    batch: int | Sequence[int] | None, sizes: Mapping[str, int] | None
) -> tuple[Sizes, ...]:
    """The bindings that `batch` and `sizes` ask for; `UserError` NN0904 for what is no size."""
    several = isinstance(batch, Iterable) and not isinstance(batch, str)
    given = () if batch is None else tuple(batch) if several else (batch,)  # type: ignore[arg-type]
    batches = dict.fromkeys(_size("batch", n) for n in given)
    common = tuple(sorted((name, _size(name, n)) for name, n in (sizes or {}).items()))
    return tuple((("batch", n), *common) for n in batches) or (common,)


def _size(name: str, value: object) -> int:
    """`value` as a Python int; integers of NumPy are as good."""
    try:
        size = 0 if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        size = 0
    if not 1 <= size <= MAX_SIZE:
        raise UserError(
            "NN0904", f"expected {name} to be from 1 to {MAX_SIZE}, but found {value!r}"
        )
    return size


def compile_model(
    path_or_text: str | os.PathLike[str], *, batch: int | Sequence[int] | None,
    sizes: Mapping[str, int] | None, dtype: str, cpu: str, threads: int, direct: bool,
    tune: bool, functions: Sequence[str] | None, freeze: str | os.PathLike[str] | None,
    cache: bool,
) -> Model:  # fmt: skip
    """See `nncompiler.compile`."""
    if dtype not in ("f32", "f64"):
        raise UserError("NN0903", f"expected dtype 'f32' or 'f64', but found {dtype!r}")
    if isinstance(functions, str):
        functions = (functions,)
    chosen = None if functions is None else tuple(functions)
    settings = {
        "bindings": bindings_of(batch, sizes),
        "dtype": dtype,
        "cpu": cpu,
        "direct": direct,
        "tune": tune,
        "functions": chosen,
        "weights": None if freeze is None else os.fspath(freeze),
        "freeze": freeze is not None,
    }
    if isinstance(path_or_text, str) and ("\n" in path_or_text or "{" in path_or_text):
        wanted = Request("<text>", path_or_text.encode(), **settings)  # type: ignore[arg-type]
    else:
        wanted = request(path_or_text, **settings)
    return model_of(wanted, cache, threads)[0]


def model_of(wanted: Request, cache: bool = True, threads: int = 1) -> tuple[Model, Built]:
    """The compiled model, `init` among its functions; further batch sizes are compiled when they
    are needed, but for a frozen one: each has constants of its own."""
    from nncompiler.runtime.artifact import open_artifact
    from nncompiler.runtime.model import Model

    if wanted.functions:
        wanted = replace(wanted, functions=("init", *wanted.functions))
    built = build(wanted, cache)
    artifact = open_artifact(built.so, f"'{wanted.name}'")
    if wanted.freeze:
        return Model(artifact, None, threads), built
    functions = ("init", *dict.fromkeys(e.function for e in artifact.manifest.entries if e.rows))
    same = replace(wanted, functions=functions, weights=None)

    def further(rows: int) -> Artifact:
        sizes = (("batch", rows), *((n, v) for n, v in wanted.bindings[0] if n != "batch"))
        more = build(replace(same, bindings=(sizes,)), cache)
        return open_artifact(more.so, f"'{wanted.name}' for {rows} rows")

    return Model(artifact, further, threads), built
