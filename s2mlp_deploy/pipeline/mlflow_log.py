"""Log the exports of a sweep to MLflow: a run for each, with parameters, figures and the bundle.

A run is tagged with its item's key, so an export is logged once, whichever run of the sweep made it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from importlib import import_module
from typing import Any

from s2mlp_deploy.errors import OutputError, RuntimeMissingError
from s2mlp_deploy.pipeline.sweep.outcome import Outcome
from s2mlp_deploy.system.dependencies import pip_install

KEY = "s2mlp.key"
"""The tag of a run that has its item's key."""

PARAMETERS = ("checkpoint", "sha256", "format", "precision", "target", "lowering")
FIGURES = ("size_bytes", "relative_l2", "limit", "same_class", "accuracy", "seconds")

PAGE = 1000


class MlflowLog:
    """The experiment ``name`` of the tracking store that ``client``, a ``mlflow.MlflowClient``, speaks to at ``uri``.

    Raises:
        OutputError: where the store cannot be reached or written.
    """

    def __init__(self, client: Any, uri: str, name: str) -> None:
        self._client, self._uri = client, uri
        found = self._call(client.get_experiment_by_name, name)
        self._experiment = found.experiment_id if found else self._call(client.create_experiment, name)

    def add(self, outcomes: Iterable[Outcome]) -> int:
        """Log the exports among ``outcomes`` that are not logged yet, and return their number.

        Raises:
            OutputError: where the store fails. What was logged stays, and the next sweep logs the rest.
        """
        known, count = self._known(), 0
        for outcome in outcomes:
            if outcome.bundle and outcome.key not in known:
                self._call(self._log, outcome)
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

    def _log(self, outcome: Outcome) -> None:
        name = " ".join(part for part in (outcome.format, outcome.precision, outcome.target) if part)
        run = self._client.create_run(self._experiment, tags={KEY: outcome.key}, run_name=name).info.run_id
        values = outcome.as_dict()
        for parameter in PARAMETERS:
            self._client.log_param(run, parameter, values[parameter])
        for figure in FIGURES:
            if values[figure] is not None:
                self._client.log_metric(run, figure, values[figure])
        self._client.log_artifacts(run, outcome.bundle, "bundle")
        self._client.set_terminated(run)

    def _call(self, function: Any, *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except Exception as error:  # of MLflow, of its database, or of its network: they share no class
            reason = " ".join(str(error).split())
            raise OutputError(
                f"MLflow at {self._uri} failed: {reason}. Exports that were made stay; run the sweep again to log them"
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
