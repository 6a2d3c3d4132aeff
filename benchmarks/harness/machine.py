"""What is known of the machine and of the moment: processor, caches, load, commit."""

from __future__ import annotations

import datetime
import os
import re
import subprocess
from pathlib import Path

#: Of the last minute, for a machine that does nothing else.
LOAD = 0.3


def describe() -> dict[str, str]:
    """Facts by name; no name of the machine or of a folder."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit(),
        "processor": processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "caches": caches(),
        "load before": f"{os.getloadavg()[0]:.2f}",
    }


def busy(facts: dict[str, str]) -> str:
    """A warning if something else runs here, or nothing."""
    load = facts["load before"]
    if float(load) <= LOAD:
        return ""
    return f"the machine is busy (load {load}): take no figure from this run"


def commit() -> str:
    """The commit that is measured, with a mark if the tree differs from it."""
    found = []
    for command in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "-uno"]):
        try:
            run = subprocess.run(
                ["git", *command], cwd=Path(__file__).parent, capture_output=True, text=True
            )
        except OSError:
            return "unknown"
        if run.returncode:
            return "unknown"
        found.append(run.stdout.strip())
    return found[0] + (" with changes" if found[1] else "")


def processor() -> str:
    return f"{_said('model name') or 'unknown'} ({vectors()})"


def vectors() -> str:
    """The widest vectors that the processor has; figures of others are not comparable."""
    has = _said("flags").split()
    levels = {"avx512f": "avx512", "avx2": "avx2"}
    return next((level for flag, level in levels.items() if flag in has), "sse")


def _said(name: str) -> str:
    """What the system says of the first core."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""
    found = re.search(rf"^{name}\s*:\s*(.*)$", text, re.M)
    return found.group(1).strip() if found else ""


def caches() -> str:
    """Such as 'L1 32K, L2 512K, L3 32768K', of the first core."""
    found = []
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            level, kind, size = (
                (index / name).read_text().strip() for name in ("level", "type", "size")
            )
        except OSError:
            continue
        if kind != "Instruction":
            found.append(f"L{level} {size}")
    return ", ".join(found) or "unknown"
