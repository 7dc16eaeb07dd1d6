"""The tests that need a GPU, run as pytest runs them."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from s2mlp_studies.gpu import recorded_tests, step
from s2mlp_studies.gpu.sheet import Row, Sheet

ABOUT = ("tests",)


def run_marked(root: Path, seconds: float) -> Row:
    """The outcome of ``pytest -m gpu`` in the clone at ``root``, in at most so many ``seconds``."""
    files = [str(path) for path in sorted((root / "tests").rglob("test_*.py")) if "mark.gpu" in path.read_text("utf-8")]
    if not files:
        return Row(ABOUT, not_run=f"there are no tests in {root / 'tests'}: run it in a clone of the repository")
    if find_spec("pytest") is None:
        return Row(ABOUT, not_run="pytest is not installed: pip install pytest")
    with TemporaryDirectory() as directory:
        sheet = Path(directory) / "tests"
        ended = step.run([*_PYTEST, *files], seconds, root, _environment(sheet))
        return _row(list(Sheet(sheet).read()), ended)


_PYTEST = (
    sys.executable,
    "-m",
    "pytest",
    "-m",
    "gpu",
    "-W",
    "default",
    "-p",
    "no:cacheprovider",
    "-p",
    recorded_tests.__name__,
)
"""Warnings are no errors: other releases of the runtimes than those that the tests are developed with have others."""


def _environment(sheet: Path) -> dict[str, str]:
    """That of this process, without the plugins that happen to be installed, and with this project's modules."""
    place = os.pathsep.join(path for path in sys.path if path)
    return {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": place, recorded_tests.SHEET: str(sheet)}


def _row(found: Sequence[Row], ended: step.Ended) -> Row:
    outcomes = {name: [r for r in found if r.figures["outcome"] == name] for name in ("passed", "failed", "skipped")}
    reasons = Counter(row.figures["reason"] for row in outcomes["skipped"])
    failed = list(dict.fromkeys(row.about[-1] for row in outcomes["failed"]))
    stopped = None if ended.status in (0, 1) else ended.reason  # 1: some failed
    if not outcomes["passed"] and not failed:
        skipped = "; ".join(f"{count} skipped, {reason}" for reason, count in reasons.items())
        return Row(ABOUT, not_run=skipped or stopped or "no test was found")
    return Row(
        ABOUT,
        {"passed": len(outcomes["passed"]), "failed": failed, "skipped": dict(reasons), "stopped": stopped},
    )
