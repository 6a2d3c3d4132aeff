"""What tests of code generation share."""

from __future__ import annotations

import numpy as np
import pytest

from nncompiler.codegen.elf.link import link
from tests.codegen.elf_cases import EXPORTS, KERNEL, emit


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture(scope="session")
def kernel() -> bytes:
    """The object of `KERNEL`."""
    return emit(KERNEL)


@pytest.fixture(scope="session")
def library(kernel: bytes) -> bytes:
    """The shared object of `KERNEL`, with two sections added."""
    extra = {".nnmanifest": b'{"abi": 1}', ".nntexts": bytes(range(256)) * 5}
    return link([kernel], EXPORTS, "libkernel.so", extra)
