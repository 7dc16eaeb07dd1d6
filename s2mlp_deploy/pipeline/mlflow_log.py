"""Log exports to MLflow: a run for each, with parameters, figures and the bundle.

A run is tagged with its export's key, so an export is logged once, however often it is made.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from s2mlp_deploy.errors import OutputError, RuntimeMissingError
from s2mlp_deploy.system.dependencies import pip_install

KEY = "s2mlp.key"
"""The tag of a run that has its export's key."""

PAGE = 1000


@dataclass(frozen=True)
class Run:
    """An export to log: what tells it from others, a name, what it was made with, its figures (None: not measured), and its bundle."""

    key: str
    name: str
    parameters: Mapping[str, str | None]
    figures: Mapping[str, float | None]
    bundle: str


class MlflowLog:
    """The experiment ``name`` of the tracking store that ``client``, a ``mlflow.MlflowClient``, speaks to at ``uri``.

    Raises:
        OutputError: where the store cannot be reached or written.
    """

    def __init__(self, client: Any, uri: str, name: str) -> None:
        self._client, self._uri = client, uri
        found = self._call(client.get_experiment_by_name, name)
        self._experiment = found.experiment_id if found else self._call(client.create_experiment, name)

    def add(self, runs: Iterable[Run]) -> int:
        """Log those of ``runs`` that are not logged yet, and return their number.

        Raises:
            OutputError: where the store fails. What was logged stays, and the next time the rest is.
        """
        known, count = self._known(), 0
        for run in runs:
            if run.key not in known:
                self._call(self._log, run)
                count += 1
        return count

    def _known(self) -> set[str]:
        """The keys of the runs that are complete."""
        found: set[str] = set()
        token = None
        while True:
            page = self._call(
                self._client.search_runs, [self._experiment], "attributes.status = 'FINISHED'", 1, PAGE, None, token
            )
            found |= {run.data.tags.get(KEY, "") for run in page}
            token = page.token
            if not token:
                return found

    def _log(self, run: Run) -> None:
        number = self._client.create_run(self._experiment, tags={KEY: run.key}, run_name=run.name).info.run_id
        for name, value in run.parameters.items():
            self._client.log_param(number, name, value)
        for name, figure in run.figures.items():
            if figure is not None:
                self._client.log_metric(number, name, figure)
        self._client.log_artifacts(number, run.bundle, "bundle")
        self._client.set_terminated(number)

    def _call(self, function: Any, *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except Exception as error:  # of MLflow, of its database, or of its network: they share no class
            reason = " ".join(str(error).split())
            raise OutputError(
                f"MLflow at {self._uri} failed: {reason}. Exports that were made stay; run the command again to log them"
            ) from error


def connect(uri: str, name: str) -> MlflowLog:
    """The experiment ``name`` at ``uri``: http(s)://HOST:PORT, or sqlite:///FILE.

    Raises:
        RuntimeMissingError: where MLflow is not installed.
        OutputError: as :class:`MlflowLog`.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # else MLflow reports its use to its maker
    try:
        mlflow = import_module("mlflow")
    except ImportError as error:
        raise RuntimeMissingError(
            f"--mlflow needs the package mlflow-skinny ({error}): {pip_install('mlflow')}"
        ) from error
    for logger in ("mlflow", "alembic"):  # which tell each table that they make
        logging.getLogger(logger).setLevel(logging.WARNING)
    try:
        client = mlflow.MlflowClient(tracking_uri=uri)
    except Exception as error:  # MlflowException, which has no class before the import
        raise OutputError(f"--mlflow {uri}: {' '.join(str(error).split())}") from error
    return MlflowLog(client, uri, name)
