"""The processor, as Linux shows it in /sys: energy of its packages (powercap, RAPL), clocks, heat, and throttling."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from s2mlp_bench.energy.device import Kind, Reader, State, UnreadableError, reason
from s2mlp_deploy.system import machine, rapl

SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal")
"""The drivers of sensors in processors; the first sensor of each is that of the package."""


def processors(root: Path) -> tuple[list[Processor], list[str]]:
    """The processor; there always is one. ``root`` is the directory that holds ``sys``."""
    return [Processor(root / "sys")], []


class Processor:
    """All packages and cores together; ``sysfs`` is /sys."""

    kind: Kind = "cpu"
    lag_s = 0.0

    def __init__(self, sysfs: Path) -> None:
        self.name = str(machine.describe()["processor"])
        self._sysfs = sysfs
        self._packages: list[rapl.Package] | None = None
        self._no_packages = ""
        try:
            self._packages = rapl.packages(sysfs)
        except (OSError, ValueError) as error:
            self._no_packages = reason(error)

    def read(self) -> State:
        """The readings now. The clock is the fastest core's, which is the one that reads or one as fast."""
        read = Reader((OSError, ValueError))
        return State(
            self.name,
            "the processor's packages",
            energy_j=read("energy", self._energy_j),
            clock_mhz=read("clock", lambda: self._fastest_mhz("scaling_cur_freq")),
            clock_max_mhz=read("highest clock", lambda: self._fastest_mhz("cpuinfo_max_freq")),
            temperature_c=read("temperature", self._temperature_c),
            throttle_counts=read("throttling", self._counts),
            busy=True,
            power_mode=read("governor", self._governors),
            unknown=tuple(read.unknown),
        )

    def close(self) -> None:
        """Nothing is open between two readings."""

    def _energy_j(self) -> float:
        """Of all packages or of none: part of them would pass for all."""
        if not self._packages:
            raise UnreadableError(self._no_packages or "the kernel shows no package with a counter (intel-rapl)")
        return sum(package.read_j() for package in self._packages)

    def _cores(self, name: str) -> Iterator[Path]:
        return self._sysfs.glob(f"devices/system/cpu/cpu[0-9]*/{name}")

    def _fastest_mhz(self, name: str) -> float:
        found = [int(path.read_text()) for path in self._cores(f"cpufreq/{name}")]
        if not found:
            raise UnreadableError("the kernel shows none (cpufreq)")
        return max(found) / 1e3

    def _temperature_c(self) -> float:
        found = [
            int((path.parent / "temp1_input").read_text()) / 1e3
            for path in self._sysfs.glob("class/hwmon/hwmon*/name")
            if path.read_text().strip() in SENSORS
        ]
        if not found:
            raise UnreadableError("the kernel shows no sensor (hwmon)")
        return max(found)

    def _counts(self) -> Mapping[str, int]:
        found = [int(path.read_text()) for path in self._cores("thermal_throttle/*_throttle_count")]
        if not found:
            raise UnreadableError("the kernel does not count it (thermal_throttle)")
        return {"heat": sum(found)}

    def _governors(self) -> str:
        found = {path.read_text().strip() for path in self._cores("cpufreq/scaling_governor")}
        if not found:
            raise UnreadableError("the kernel shows none (cpufreq)")
        return "governor " + ", ".join(sorted(found))
