"""What plans are made for: a processor as far as the model of its speed knows it."""

from __future__ import annotations

from nncompiler.record import dataclass


@dataclass(frozen=True, slots=True)
class Machine:
    """Vectors of so many bytes, and registers for them. In a cycle it begins so many
    `multiply_adds` of whole vectors, whose results are there after `latency` cycles, and as many
    `loads` of them; of single elements always two.
    """

    vector_bytes: int
    registers: int
    multiply_adds: int = 2
    loads: int = 2
    latency: int = 4
