"""Exports of a sweep in MLflow: with a stand-in for its client, and with a store of its own where MLflow is installed."""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from helpers import sweeps
from s2mlp_deploy.errors import OutputError, RuntimeMissingError
from s2mlp_deploy.pipeline.sweep.mlflow_log import MlflowLog, connect
from s2mlp_deploy.pipeline.sweep.outcome import Outcome


class Page(list[Any]):
    token = None


class Client:
    """The functions of ``mlflow.MlflowClient`` that are used; ``fails_at`` the so-many-th run that is to end."""

    def __init__(self, fails_at: int = 0) -> None:
        self.runs: dict[str, Any] = {}
        self._left = fails_at

    def get_experiment_by_name(self, name: str) -> Any:
        return None

    def create_experiment(self, name: str) -> str:
        return name

    def create_run(self, experiment: str, tags: dict[str, str], run_name: str) -> Any:
        found = SimpleNamespace(info=SimpleNamespace(run_id=str(len(self.runs)), status="RUNNING"))
        found.data = SimpleNamespace(tags=tags, params={}, metrics={}, artifacts=[])
        self.runs[found.info.run_id] = found
        return found

    def log_param(self, run: str, name: str, value: Any) -> None:
        self.runs[run].data.params[name] = value

    def log_metric(self, run: str, name: str, value: float) -> None:
        self.runs[run].data.metrics[name] = value

    def log_artifacts(self, run: str, directory: str, place: str) -> None:
        self.runs[run].data.artifacts.append((directory, place))

    def set_terminated(self, run: str) -> None:
        self._left -= 1
        if self._left == 0:
            raise ConnectionError("the server\nis gone")
        self.runs[run].info.status = "FINISHED"

    def search_runs(self, experiments: list[str], condition: str, *_: Any) -> Page:
        return Page(run for run in self.runs.values() if run.info.status == "FINISHED")


@pytest.fixture
def outcomes(tmp_path: Path) -> list[Outcome]:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "manifest.json").write_text("{}")
    made = (sweeps.outcome(item) for item in sweeps.items(3))
    found = [
        replace(one, bundle=str(tmp_path / "bundle"), size_bytes=27, relative_l2=2e-7, seconds=1.5) for one in made
    ]
    return [*found[:2], replace(found[2], bundle=None)]


def test_an_export_is_logged_once_and_a_failure_never(outcomes: list[Outcome]) -> None:
    client = Client()
    assert MlflowLog(client, "uri", "plan").add(outcomes) == 2
    assert MlflowLog(client, "uri", "plan").add(outcomes) == 0
    data = client.runs["0"].data
    assert data.tags == {"s2mlp.key": outcomes[0].key} and data.params["format"] == "onnx"
    assert data.metrics == {"size_bytes": 27, "relative_l2": 2e-7, "seconds": 1.5}
    assert data.artifacts == [(outcomes[0].bundle, "bundle")]


def test_a_store_that_fails_says_so_and_the_next_sweep_logs_the_rest(outcomes: list[Outcome]) -> None:
    client = Client(fails_at=2)
    with pytest.raises(OutputError, match=r"MLflow at uri failed: the server is gone\. Exports that were made stay"):
        MlflowLog(client, "uri", "plan").add(outcomes)
    assert MlflowLog(client, "uri", "plan").add(outcomes) == 1


def test_without_mlflow_the_command_to_install_it_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(RuntimeMissingError, match=r"--mlflow needs the package mlflow-skinny .*pip install"):
        connect("sqlite:///x.db", "plan")


@pytest.mark.skipif(
    find_spec("mlflow") is None or find_spec("sqlalchemy") is None,
    reason="no MLflow: pip install mlflow-skinny sqlalchemy alembic",
)
@pytest.mark.filterwarnings("default")  # of packages that MLflow takes
def test_a_real_store_holds_parameters_figures_and_the_bundle(
    outcomes: list[Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where MLflow puts the artifacts of a store that is a file
    uri = f"sqlite:///{tmp_path / 'runs.db'}"
    assert connect(uri, "plan").add(outcomes) == 2 and connect(uri, "plan").add(outcomes) == 0
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=uri)
    runs = client.search_runs([client.get_experiment_by_name("plan").experiment_id])
    assert {run.data.tags["s2mlp.key"] for run in runs} == {outcome.key for outcome in outcomes[:2]}
    assert runs[0].data.params["precision"] == "fp32" and runs[0].data.metrics["relative_l2"] == 2e-7
    assert [file.path for file in client.list_artifacts(runs[0].info.run_id, "bundle")] == ["bundle/manifest.json"]
