"""Exports are logged to MLflow once

`--mlflow` of `s2mlp-export` and `s2mlp-sweep` logs each export to a store of MLflow's, here one in SQLite: parameters, distances, sizes, latencies,
and the bundle, which verifies when it is taken out of the store again.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from helpers.reliability.record import Trials
from helpers.support import run, save_checkpoint, small_spec

pytestmark = pytest.mark.filterwarnings("default")  # of packages that MLflow takes

PLAN = '[[export]]\ncheckpoints = ["*.pt"]\nlatency = true\n[export.source]\nshift_semantics = "paper"\n'


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """The URI of a store in a directory that is the current one: MLflow puts the artifacts of such a store there."""
    if not request.config.getoption("--thorough"):
        pytest.skip("only with --thorough: a store takes seconds to start")
    if find_spec("mlflow") is None or find_spec("sqlalchemy") is None:
        pytest.skip("no MLflow: pip install mlflow-skinny sqlalchemy alembic")
    monkeypatch.chdir(tmp_path)
    return f"sqlite:///{tmp_path / 'runs.db'}"


def runs_in(store: str, experiment: str) -> tuple[Any, list[Any]]:
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=store)
    return client, client.search_runs([client.get_experiment_by_name(experiment).experiment_id])


def test_exports(store: str, tmp_path: Path, trials: Trials) -> None:
    """Two exports at once, with their latencies; the bundle from the store verifies. The same again is not logged twice."""
    save_checkpoint(tmp_path / "small.pt", small_spec())
    options = ("small.pt", "--precision", "fp32", "--precision", "fp16", "--latency", "--mlflow", store)
    for force in ((), ("--force",)):
        ran = run("export", *options, *force)
        assert ran.code == 0, ran.err
    client, found = runs_in(store, "small")
    assert {one.data.params["precision"] for one in found} == {"fp32", "fp16"} and len(found) == 2
    for one in found:
        assert one.data.metrics["relative_l2"] < one.data.metrics["limit"] and one.data.metrics["latency_ms"] > 0
        assert run("verify", client.download_artifacts(one.info.run_id, "bundle")).code == 0
    trials.tried("exports", 2)


def test_a_sweep(store: str, tmp_path: Path, trials: Trials) -> None:
    """A plan of two checkpoints, swept twice: each export is logged once, with its latency."""
    for seed in range(2):
        save_checkpoint(tmp_path / f"{seed}.pt", small_spec(), seed=seed)
    (tmp_path / "plan.toml").write_text(PLAN)
    for made in (2, 0):
        ran = run("sweep", "plan.toml", "--workers", 1, "--mlflow", store, "--json")
        assert ran.code == 0 and ran.json["counts"].get("made", 0) == made, ran.err
    client, found = runs_in(store, "plan")
    assert len(found) == 2 and all(one.data.metrics["latency_ms"] > 0 for one in found)
    assert {one.data.params["checkpoint"] for one in found} == {str(tmp_path / f"{i}.pt") for i in range(2)}
    assert run("verify", client.download_artifacts(found[0].info.run_id, "bundle")).code == 0
    trials.tried("exports", 2)
