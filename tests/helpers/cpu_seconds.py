"""Processor seconds of each test with all processes that it started: what a test costs on a machine that is busy with others, too.

``pytest --cpu 10`` prints the sum, and the ten files and the ten tests that took most, after the tests have run. ``make test`` does, so
that growth is seen.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

_KEY = "cpu_s"
_TICK_S = 1 / os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 0.0
_PROC = Path("/proc")


def cpu_s() -> float:
    """Seconds of this process, of those that it started, and of theirs, whether they run or have ended; elsewhere than on Linux of those that have ended."""
    own = os.times()
    return sum(own[:4]) + _TICK_S * sum(map(_ticks, _running(os.getpid())))


def _running(process: int) -> Iterator[int]:
    """The processes that ``process`` and its children have started, as far as they run."""
    for children in (_PROC / str(process) / "task").glob("*/children"):
        try:
            found = [int(word) for word in children.read_text("ascii").split()]
        except OSError:  # the thread has just ended
            continue
        for child in found:
            yield child
            yield from _running(child)


def _ticks(process: int) -> int:
    """Clock ticks of a process and of the children that it has waited for; proc_pid_stat(5)."""
    try:
        fields = (_PROC / str(process) / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return 0
    return sum(map(int, fields[11:15]))


class CpuSeconds:
    """Measures each test where it runs, and adds up where the results come together; with xdist these are several processes."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._seconds: Counter[str] = Counter()
        self._before = 0.0

    def pytest_runtest_logstart(self) -> None:
        """A test begins."""
        self._before = cpu_s()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Give the report of a test's end what it took, fixtures that were made or ended with it among that."""
        report = yield
        if call.when == "teardown":
            report.user_properties = [*report.user_properties, (_KEY, cpu_s() - self._before)]
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add up."""
        self._seconds[report.nodeid] += sum(value for key, value in report.user_properties if key == _KEY)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the sums."""
        files: Counter[str] = Counter()
        for test, seconds in self._seconds.items():
            files[test.partition("::")[0]] += seconds
        terminalreporter.section(f"{files.total():,.0f} CPU seconds in tests, {cpu_s():,.0f} with collecting them")
        for sums in (files, self._seconds):
            for name, seconds in sums.most_common(self._most):
                terminalreporter.line(f"{seconds:7.1f} {name}")
