"""The energy counters of a processor's packages, as Linux shows them in /sys/class/powercap (RAPL)."""

from __future__ import annotations

from pathlib import Path


class Package:
    """The energy counter of one package, which starts again from zero when it is full.

    That is noticed if it is read more often than it can fill up, at full power some minutes.

    Raises:
        OSError, ValueError: where ``folder`` is not that of a counter.
    """

    def __init__(self, folder: Path) -> None:
        self._counter = folder / "energy_uj"
        self._range_uj = int((folder / "max_energy_range_uj").read_text())
        self._last_uj = 0
        self._full_uj = 0

    def read_j(self) -> float:
        """Joules since any fixed moment.

        Raises:
            OSError: where it may not be read; since 2020 mostly only root may.
        """
        now_uj = int(self._counter.read_text())
        if now_uj < self._last_uj:
            self._full_uj += self._range_uj
        self._last_uj = now_uj
        return (self._full_uj + now_uj) / 1e6


def packages(sysfs: Path) -> list[Package]:
    """The counters of whole packages below ``sysfs``, which is /sys: not those of their parts (core, dram) nor of the platform that
    holds them (psys).

    The same packages seen another way (intel-rapl-mmio:0) are left out, too.

    Raises:
        OSError, ValueError: where one cannot be read.
    """
    zones = sorted(sysfs.glob("class/powercap/intel-rapl:*"))
    return [Package(zone) for zone in zones if (zone / "name").read_text().startswith("package-")]
