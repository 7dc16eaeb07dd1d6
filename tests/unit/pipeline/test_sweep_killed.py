"""A sweep whose driver is killed at a given moment goes on where it was: nothing is lost, made twice or left behind."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from helpers import processes, sweeps
from helpers.sweeps import MOMENTS
from s2mlp_deploy.bundle.read import read_bundle
from s2mlp_deploy.pipeline.sweep.local_workers import LocalWorkers
from s2mlp_deploy.pipeline.sweep.sweep import RESULTS


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_driver_that_is_killed_at_any_moment_loses_nothing(moment: str, pristine: Path, tmp_path: Path) -> None:
    copies = sweeps.Copies(pristine, tmp_path / "made")
    (tmp_path / "made").mkdir()
    output = tmp_path / "out"
    output.mkdir()
    killed = processes.call(sweeps.swept_until, tmp_path / "log", moment, copies, output)
    assert killed.wait(60) == -signal.SIGKILL, killed.text
    done = {path.name for path in output.iterdir() if not path.name.startswith(".")}
    assert RESULTS not in done and len(done) <= 3
    assert (len(done) > 0) == (not moment.startswith("before the first"))
    result = sweeps.swept(copies, output, LocalWorkers(copies.at(output), 1))
    assert result.counts["failed"] == 0 and result.counts["there"] >= len(done) and sum(result.counts.values()) == 3
    keys = {item.key for item in sweeps.items(3)}
    assert {path.name for path in output.iterdir()} == {RESULTS, *keys}
    for key in keys:
        read_bundle(output / key)  # whole
    assert [outcome.key for outcome in result.outcomes()] == sorted(keys)
    made = [path.name for path in (tmp_path / "made").iterdir()]
    assert len(made) <= 4 and {name.partition("-")[0] for name in made} == keys  # at most the one in work is made again
