"""The processes of a sweep: they live from item to item, and one that dies takes no item with it."""

from __future__ import annotations

import resource
import time
from functools import partial
from pathlib import Path

from helpers import sweeps
from s2mlp_deploy.pipeline.sweep.local_workers import LocalWorkers
from s2mlp_deploy.pipeline.sweep.sweep import run
from s2mlp_deploy.system.progress import Listener


def test_ten_thousand_items_cost_the_driver_little_time_and_no_memory(tmp_path: Path) -> None:
    """Under 50 ms of processor time an item with everything that it does beside the work, and what the results' lines take."""
    items = sweeps.items(10_000)
    run(items[:100], tmp_path, LocalWorkers(sweeps.outcome, 2), Listener())
    memory, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    result = run(items, tmp_path, LocalWorkers(sweeps.outcome, 2), Listener())
    assert time.process_time() - started < 10_000 * 0.05
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 20 << 10  # KiB
    found = list(result.outcomes())
    assert result.counts == {"made": 10_000} and [outcome.key for outcome in found] == [item.key for item in items]
    assert len({outcome.seconds for outcome in found}) == 2  # processes


def test_an_item_whose_worker_is_killed_is_tried_again_and_then_counted_as_failed(tmp_path: Path) -> None:
    workers = LocalWorkers(partial(sweeps.kill_itself, marks=tmp_path), 1)
    found = sorted(workers.run(sweeps.items(4)), key=lambda outcome: outcome.key)
    assert [(o.status, o.attempts) for o in found] == [("made", 1), ("made", 2), ("failed", 2), ("made", 1)]
    error = found[2].error
    assert error and (error.kind, error.exit_code) == ("WorkerDied", 137)
    assert "its worker process was ended by SIGKILL in 2 attempts" in error.message


def test_no_items_start_no_process() -> None:
    assert list(LocalWorkers(sweeps.outcome, 4).run([])) == []
