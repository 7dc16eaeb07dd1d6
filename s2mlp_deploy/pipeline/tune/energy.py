"""The energy of a candidate, by the counters of this machine's processor.

A counter cannot separate candidates that take turns, so each of its samples is a stretch in which one candidate runs alone, and
stretches take turns. It is all that the processor took meanwhile, whoever it was for.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from s2mlp_deploy.errors import RuntimeMissingError
from s2mlp_deploy.system import rapl
from s2mlp_deploy.system.timing import Clock

SYSFS = Path("/sys")

STRETCH_S = 0.25
"""A counter moves in steps of a millisecond, and some of them in steps of 0.1 s."""

Joules = Callable[[], float]
"""Joules that the processor has taken since any fixed moment."""


def counter(sysfs: Path | None = None) -> Joules:
    """The energy of all packages of the processor.

    Raises:
        RuntimeMissingError: where there is no counter, or it may not be read.
    """
    try:
        packages = rapl.packages(sysfs or SYSFS)
        for package in packages:
            package.read_j()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise RuntimeMissingError(
            _no_sensor(f"the counter of the processor's packages cannot be read ({reason})")
        ) from error
    if not packages:
        raise RuntimeMissingError(
            _no_sensor("the kernel shows no energy counter of the processor's packages (intel-rapl)")
        )
    return lambda: sum(package.read_j() for package in packages)


def millijoules(call: Callable[[], object], joules: Joules, clock: Clock) -> Callable[[], float]:
    """A candidate that repeats ``call`` for a stretch and returns how many millijoules one took."""

    def candidate() -> float:
        start, before, count = clock(), joules(), 0
        while not count or clock() - start < STRETCH_S:
            call()
            count += 1
        return max(joules() - before, 1e-9) * 1e3 / count

    return candidate


def _no_sensor(reason: str) -> str:
    return f"--objective energy: {reason}. Compare the candidates of a tune (--keep) with s2mlp-bench, which reads boards and GPUs, too"
