"""The machine of a measurement, the day, and the versions: the head of each page."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from s2mlp_bench import environment
from s2mlp_deploy.system import machine


@dataclass(frozen=True)
class Conditions:
    """``machine`` has the processor, its features, the system, and how busy it was before the measurement."""

    date: str
    machine: str
    versions: str

    @property
    def text(self) -> str:
        """Both lines."""
        return f"{self.machine}\n{self.versions}"


def describe(today: date) -> Conditions:
    """The conditions now."""
    e = environment.describe()
    features = " ".join(e["features"]) if isinstance(e["features"], list) else e["features"]
    return Conditions(
        today.isoformat(),
        f"{e['processor']}, {e['cores']} cores, {features}, {e['system']}, Python {e['python']}, load average {e['load_average']}",
        ", ".join(f"{name} {version}" for name, version in machine.installed().items()),
    )
