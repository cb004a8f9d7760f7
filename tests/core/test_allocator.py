"""Freed memory stays with the process once it is asked to keep it."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import sys, torch
from ssl_suite.core.allocator import keep_freed_memory
def resident():
    return int(open("/proc/self/statm").read().split()[1])
kept = keep_freed_memory() if sys.argv[1] == "keep" else False
before = resident()
pile = [torch.ones(2**22) for _ in range(8)]  # 16 MB each
full = resident()
del pile
print(int(kept), (resident() - before) / (full - before))
"""


def still_held(mode: str) -> tuple[bool, float]:
    done = subprocess.run([sys.executable, "-c", SCRIPT, mode], capture_output=True, text=True, check=True)
    kept, share = done.stdout.split()
    return bool(int(kept)), float(share)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_freed_memory_is_kept_for_the_next_step() -> None:
    kept, share = still_held("keep")
    if not kept:
        pytest.skip("this C library has no mallopt")
    assert share > 0.9
    assert still_held("give back")[1] < 0.5
