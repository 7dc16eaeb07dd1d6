"""A tune that is killed at a given moment goes on where it was."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from helpers import processes, tunes
from helpers.support import save_checkpoint, small_spec
from s2mlp_deploy.bundle.read import read_bundle
from s2mlp_deploy.pipeline.tune import tune as tuning


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("tuned") / "small.pt", small_spec(channels=8, depth=1))


@pytest.mark.parametrize("moment", tunes.MOMENTS)
def test_a_tune_that_is_killed_at_any_moment_goes_on(
    moment: str, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for race in ("FIRST_RACE_S", "LAST_RACE_S"):
        monkeypatch.setattr(tuning, race, tunes.SECONDS)
    request = tunes.request_for(checkpoint, tmp_path)
    killed = processes.call(tunes.tuned_until, tmp_path / "log", moment, request)
    assert killed.wait(120) == -signal.SIGKILL, killed.text
    assert not request.destination.exists()
    before = {path: path.stat().st_mtime_ns for path in request.work.glob("*/manifest.json")}
    assert (len(before) == 0) == moment.startswith("before the first")
    found = tuning.tune(request)
    assert read_bundle(request.destination).manifest == found.bundle.manifest
    assert request.report.read_text() == found.report.to_json()
    assert not request.work.exists()  # all went on from there, and was published
    assert {path.name for path in tmp_path.iterdir()} == {"best", "best.json", "log"}
