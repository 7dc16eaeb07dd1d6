"""The tests that need a GPU, run as pytest runs them."""

from __future__ import annotations

import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree as ET

from s2mlp_studies.gpu import step
from s2mlp_studies.gpu.sheet import Row

ABOUT = ("tests",)


def run_marked(root: Path, seconds: float) -> Row:
    """The outcome of ``pytest -m gpu`` in the clone at ``root``, in at most so many ``seconds``."""
    files = [str(path) for path in sorted((root / "tests").rglob("test_*.py")) if "mark.gpu" in path.read_text("utf-8")]
    if not files:
        return Row(ABOUT, not_run=f"there are no tests in {root / 'tests'}: run it in a clone of the repository")
    if find_spec("pytest") is None:
        return Row(ABOUT, not_run="pytest is not installed: pip install pytest")
    with TemporaryDirectory() as directory:
        report = Path(directory) / "tests.xml"
        ended = step.run(
            [sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", f"--junitxml={report}", *files],
            seconds,
            root,
        )
        if not report.exists():
            return Row(ABOUT, not_run=ended.reason)
        return _row(ET.parse(report))


def _row(report: ET.ElementTree[ET.Element]) -> Row:
    failed, reasons, passed = [], Counter[str](), 0
    for case in report.iter("testcase"):
        skipped = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            failed.append(str(case.get("name")))
        elif skipped is not None:
            reasons[str(skipped.get("message"))] += 1
        else:
            passed += 1
    if not passed and not failed:
        return Row(
            ABOUT,
            not_run="; ".join(f"{count} skipped, {reason}" for reason, count in reasons.items()) or "no test was found",
        )
    return Row(ABOUT, {"passed": passed, "failed": failed, "skipped": dict(reasons)})
