"""Tunes in processes that are killed at a given moment."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from s2mlp_deploy.pipeline.request import OutputOptions, Source
from s2mlp_deploy.pipeline.tune import heat, make, tune
from s2mlp_deploy.pipeline.tune.request import Space, TuneRequest

SECONDS = 0.1
"""Of each race."""


def request_for(checkpoint: Path, place: Path) -> TuneRequest:
    """A tune of two artifacts into ``place``."""
    return TuneRequest(
        Source(checkpoint),
        space=Space(("onnx", "ort"), ("fp32",), ("auto",), (1,)),
        output=OutputOptions(place / "best"),
    )


def _killed(*_: Any, **__: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def _before_the_first() -> None:
    make.deploy_each = _killed


def _before_the_second_is_kept() -> None:
    kept, count = make._kept, [0]

    def counted(*arguments: Any) -> Any:
        count[0] += 1
        return _killed() if count[0] == 2 else kept(*arguments)

    make._kept = counted


def _before_the_race() -> None:
    heat.run = _killed


def _before_the_report() -> None:
    tune.atomic_write.write = _killed


def _after_the_report() -> None:
    write = tune.atomic_write.write

    def then_killed(*arguments: Any, **named: Any) -> None:
        write(*arguments, **named)
        _killed()

    tune.atomic_write.write = then_killed


MOMENTS = {
    "before the first candidate is made": _before_the_first,
    "after the second candidate was published, before it is kept": _before_the_second_is_kept,
    "before the race": _before_the_race,
    "before the report is written": _before_the_report,
    "after the report was written, before the bundle is published": _after_the_report,
}
"""Moments at which a tune may be killed, and what kills this process then."""


def tuned_until(moment: str, request: TuneRequest) -> None:
    """Tune in this process, which is killed at ``moment``."""
    MOMENTS[moment]()
    tune.FIRST_RACE_S = tune.LAST_RACE_S = SECONDS
    tune.tune(request)
