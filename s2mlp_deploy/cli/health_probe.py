"""``s2mlp-verify`` as a probe: an end within a time limit, and the result in a file for Prometheus, pass or fail."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from s2mlp_deploy.cli.terminal import report_error
from s2mlp_deploy.cli.time_limit import EXIT_CODE, time_limit
from s2mlp_deploy.errors import Error
from s2mlp_deploy.pipeline import health
from s2mlp_deploy.pipeline.health import Health
from s2mlp_deploy.pipeline.verify import Verification
from s2mlp_deploy.system import atomic_write


class Probe:
    """The check of ``bundle`` within ``max_seconds``, whose result goes to the file ``prometheus``; None: no limit, no file.

    Raises:
        OutputError: where the file cannot be written.
    """

    def __init__(self, bundle: Path, max_seconds: float | None, prometheus: Path | None) -> None:
        self._bundle, self._max_seconds, self._file = bundle, max_seconds, prometheus
        self._started = time.monotonic()
        if prometheus:
            atomic_write.check(prometheus, replace=True, option="--prometheus")

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Record an error inside ``with``, and end the process where the time is over."""
        with time_limit(self._max_seconds, self._expired):
            try:
                yield
            except Exception as error:
                self._write(self._failed(error.exit_code if isinstance(error, Error) else 1))
                raise

    def found(self, result: Verification) -> Health:
        """The health after the verification, which is recorded."""
        found = health.of_verification(self._bundle, result, self._seconds())
        self._write(found)
        return found

    def _failed(self, exit_code: int) -> Health:
        return Health(str(self._bundle), False, exit_code, self._seconds())

    def _expired(self) -> None:
        message = (
            f"checking {self._bundle} took longer than --max-seconds {self._max_seconds:g}, so nothing is known of it"
        )
        report_error("TimeLimit", message, EXIT_CODE)
        self._write(self._failed(EXIT_CODE))

    def _seconds(self) -> float:
        return round(time.monotonic() - self._started, 3)

    def _write(self, found: Health) -> None:
        if self._file:
            atomic_write.write(self._file, found.prometheus().encode(), option="--prometheus")
