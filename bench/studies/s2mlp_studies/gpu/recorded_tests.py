"""A plugin of pytest that writes the outcome of each test to a sheet as soon as it is known, for a run that may be stopped."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from s2mlp_studies.gpu.sheet import Row, Sheet

if TYPE_CHECKING:
    import pytest

SHEET = "S2MLP_GPU_TESTS"
"""The environment variable that names the sheet's file."""


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Write what came of the phase of a test that ``report`` is about, unless it only made ready or cleared up."""
    if report.when == "call" or not report.passed:
        skipped = isinstance(report.longrepr, tuple)  # (file, line, reason)
        reason = str(report.longrepr[2]).removeprefix("Skipped: ") if skipped else None  # type: ignore[index]
        name = report.nodeid.rpartition("::")[2]
        Sheet(Path(os.environ[SHEET])).add(Row(("test", name), {"outcome": report.outcome, "reason": reason}))
