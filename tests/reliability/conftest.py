"""What tests of reliability share: how often to try, and a record of what came of it.

``make test`` tries each promise a few times. With ``--thorough`` it is tried as often as docs/reliability.md says, and
``--write FILE`` writes that page.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from record import Record, Trials


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("reliability")
    group.addoption("--thorough", action="store_true", help="try each promise as often as docs/reliability.md says")
    group.addoption("--write", metavar="FILE", type=Path, help="write what was tried, and what came of it, as Markdown")


def pytest_configure(config: pytest.Config) -> None:
    path = config.getoption("--write", default=None)
    if path and not hasattr(config, "workerinput"):  # not in a process that runs tests for another
        config.pluginmanager.register(Record(path))


@pytest.fixture
def trials(request: pytest.FixtureRequest) -> Trials:
    """How often to try what the test's docstring says, and what to tell of it."""
    counted = Trials(thorough=request.config.getoption("--thorough", default=False))
    request.node.user_properties.append(counted.entry(request.module.__doc__, request.function.__doc__))
    return counted
