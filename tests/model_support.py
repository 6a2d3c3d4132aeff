"""Compiled models for tests: where they lie, and a compile cache that the whole test run shares.

A test module imports `compile_cache`, which is used by each of its tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
MODELS = REPOSITORY / "models"

Array = npt.NDArray[np.generic]


def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this test run, the same in every process of it."""
    base = tmp_path_factory.getbasetemp()
    parallel = base.name.startswith("popen-")
    folder = (base.parent if parallel else base) / "compile-cache"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def cache_of_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the compile cache."""
    return shared_folder(tmp_path_factory)


@pytest.fixture(autouse=True)
def compile_cache(cache_of_run: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Compile through the cache of the test run, never through the user's."""
    monkeypatch.setenv("NNCOMPILER_CACHE", str(cache_of_run))
    yield cache_of_run


def close(found: object, expected: object, tolerance: float) -> None:
    """Fail unless every number is within `tolerance` of the printed one."""
    np.testing.assert_allclose(
        np.asarray(found, np.float64), np.asarray(expected, np.float64), rtol=0, atol=tolerance)
