"""Exports in MLflow: with a stand-in for its client, and with a store of its own where MLflow is installed."""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from helpers import sweeps
from helpers.support import run, save_checkpoint, small_spec
from s2mlp_deploy.errors import OutputError, RuntimeMissingError
from s2mlp_deploy.pipeline.mlflow_log import MlflowLog, Run, connect
from s2mlp_deploy.pipeline.sweep.logged import runs_of
from s2mlp_deploy.pipeline.sweep.outcome import Evaluated, Latency
from s2mlp_deploy.system.hashing import sha256


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
def runs(tmp_path: Path) -> list[Run]:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "manifest.json").write_text("{}")
    made = (sweeps.outcome(item) for item in sweeps.items(3))
    found = [
        replace(one, bundle=str(tmp_path / "bundle"), size_bytes=27, relative_l2=2e-7, seconds=1.5) for one in made
    ]
    measured = replace(found[1], evaluation=Evaluated(4, 3), latency=Latency(1.5, 1.4, 1.6, 10, 1, "x86"))
    return list(runs_of([found[0], measured, replace(found[2], bundle=None)]))


def test_an_export_is_logged_once_and_a_failure_never(runs: list[Run]) -> None:
    client = Client()
    assert MlflowLog(client, "uri", "plan").add(runs) == 2
    assert MlflowLog(client, "uri", "plan").add(runs) == 0
    data = client.runs["0"].data
    assert data.tags == {"s2mlp.key": runs[0].key} and data.params["format"] == "onnx"
    assert data.metrics == {"size_bytes": 27, "relative_l2": 2e-7, "seconds": 1.5}
    assert data.artifacts == [(runs[0].bundle, "bundle")]
    measured = client.runs["1"].data.metrics
    assert (measured["accuracy"], measured["latency_ms"]) == (0.75, 1.5)


def test_a_store_that_fails_says_so_and_the_next_sweep_logs_the_rest(runs: list[Run]) -> None:
    client = Client(fails_at=2)
    with pytest.raises(OutputError, match=r"MLflow at uri failed: the server is gone\. Exports that were made stay"):
        MlflowLog(client, "uri", "plan").add(runs)
    assert MlflowLog(client, "uri", "plan").add(runs) == 1


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
    runs: list[Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where MLflow puts the artifacts of a store that is a file
    uri = f"sqlite:///{tmp_path / 'runs.db'}"
    assert connect(uri, "plan").add(runs) == 2 and connect(uri, "plan").add(runs) == 0
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=uri)
    found = client.search_runs([client.get_experiment_by_name("plan").experiment_id])
    assert {one.data.tags["s2mlp.key"] for one in found} == {one.key for one in runs}
    assert found[0].data.params["precision"] == "fp32" and found[0].data.metrics["relative_l2"] == 2e-7
    assert [file.path for file in client.list_artifacts(found[0].info.run_id, "bundle")] == ["bundle/manifest.json"]


def test_an_export_is_logged_with_its_distances_and_its_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client, module = Client(), ModuleType("mlflow")
    module.MlflowClient = lambda tracking_uri: client  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlflow", module)
    checkpoint = save_checkpoint(tmp_path / "small.pt", small_spec(depth=1))
    ran = run("export", checkpoint, "--mlflow", "http://there", "-o", tmp_path / "out", "--json")
    assert ran.code == 0, ran.err
    (made,) = client.runs.values()
    assert made.info.status == "FINISHED" and made.data.artifacts == [(str(tmp_path / "out"), "bundle")]
    assert made.data.tags == {"s2mlp.key": sha256(tmp_path / "out" / "manifest.json")}
    report = ran.json["exports"][0]["report"]
    distances = {case: found["relative_l2"] for case, found in report["distances"].items()}
    figures = made.data.metrics
    assert {name: figures[f"relative_l2/{name}"] for name in distances} == distances
    assert figures["relative_l2"] == max(distances.values()) < figures["limit"]
    assert figures["size_bytes"] == report["size_bytes"] and "accuracy" not in figures
    assert made.data.params["checkpoint"] == str(checkpoint) and made.data.params["precision"] == "fp32"
