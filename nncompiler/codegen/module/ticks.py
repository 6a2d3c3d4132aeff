"""Timing built into the code, for profiles only: a table of clock ticks, an entry for each kernel.

`NAME_ticks` sets entry 0 to the clock and gives the table's address; `nn.tick(n)`, called behind
kernel n - 1 of an entry point, adds what passed since the last stamp to entry n; `nn.met()`, where
workers have met, to that of the kernel before: its time is over when all of them are done. So the
entries add up to the whole, and reading the clock (some 10 ns) is all that timing costs.
"""

from __future__ import annotations

DECLARATIONS = """\
declare hidden void @nn.stamp()
declare hidden void @nn.tick(i64)
declare hidden void @nn.met()
"""

_TEXT = """
@nn.ticks = internal global [SIZE x i64] zeroinitializer, align 64
@nn.ticked = internal global i64 0, align 8

define hidden void @nn.stamp() ATTRIBUTES {
  %now = call i64 @llvm.readcyclecounter()
  store i64 %now, ptr @nn.ticks, align 8
  store i64 0, ptr @nn.ticked, align 8
  ret void
}

define hidden void @nn.tick(i64 %n) ATTRIBUTES {
  %now = call i64 @llvm.readcyclecounter()
  %last = load i64, ptr @nn.ticks, align 8
  %passed = sub i64 %now, %last
  %entry = getelementptr i64, ptr @nn.ticks, i64 %n
  %before = load i64, ptr %entry, align 8
  %after = add i64 %before, %passed
  store i64 %after, ptr %entry, align 8
  store i64 %now, ptr @nn.ticks, align 8
  store i64 %n, ptr @nn.ticked, align 8
  ret void
}

define hidden void @nn.met() ATTRIBUTES {
  %n = load i64, ptr @nn.ticked, align 8
  call void @nn.tick(i64 %n)
  ret void
}

define ptr @SYMBOL() ATTRIBUTES {
  call void @nn.stamp()
  ret ptr @nn.ticks
}
"""


def table_text(symbol: str, kernels: int, attributes: str) -> str:
    """The table for entry points of at most so many kernels, and its functions."""
    text = _TEXT.replace("SIZE", str(1 + kernels)).replace("SYMBOL", symbol)
    return text.replace("ATTRIBUTES", attributes)
