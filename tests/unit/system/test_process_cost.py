"""What a process costs: its time and its memory, its parent's left out."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from s2mlp_deploy.system.process_cost import measure


def peak_rss_bytes(allocated_bytes: int) -> int:
    return measure([sys.executable, "-S", "-c", f"print(len(bytearray(b'1') * {allocated_bytes}))"]).peak_rss_bytes


def test_a_process_is_charged_with_the_memory_it_touched_and_not_with_its_parents() -> None:
    """This test process holds torch, hence more than the bare child."""
    held = np.ones(25_000_000)
    bare = peak_rss_bytes(1)
    assert bare < 60e6 < held.nbytes
    assert 0.9 < (peak_rss_bytes(300_000_000) - bare) / 300e6 < 1.2


def test_a_process_is_charged_with_its_time() -> None:
    idle = measure([sys.executable, "-S", "-c", "import time; time.sleep(0.3)"])
    assert idle.wall_s >= 0.3 > idle.cpu_s
    busy = measure([sys.executable, "-S", "-c", "import time\nwhile time.process_time() < 0.3: pass"])
    assert busy.cpu_s >= 0.3


def test_a_process_that_fails_is_no_measurement() -> None:
    with pytest.raises(RuntimeError, match="out of cheese"):
        measure([sys.executable, "-S", "-c", "raise SystemExit('out of cheese')"])
