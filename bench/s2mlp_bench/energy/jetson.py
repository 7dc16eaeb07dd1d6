"""A Jetson as a whole, through jetson-stats (module jtop); written against its releases 4.3.2 and 7.2.2.

jtop asks a service that must run on the board. What holds the clocks back it does not tell, but the kernel does: cooling
devices called alerts, and counts of over-current events.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from s2mlp_bench.energy.device import Kind, Reader, State, UnreadableError, reason
from s2mlp_deploy.system.dependencies import pip_install

COMPATIBLE = b"nvidia,tegra"
"""What the device tree of every Jetson says, whoever built the board around it."""

INTERVAL_S = 0.5
"""How often the service is asked to read its sensors; where somebody else is connected, it keeps their interval."""

SENSORS = ("tj", "gpu", "cpu")
"""Temperatures, the first that is there counts; tj is the hottest junction, where a board tells it."""

OFFLINE_C = -256
"""The temperature that jtop gives for a sensor without one (jtop.core.temperature.TEMPERATURE_OFFLINE)."""


def boards(root: Path) -> tuple[list[Board], list[str]]:
    """The Jetson that this machine is, if it is one, to be closed; or in words, why it cannot be asked.

    ``root`` is the directory that holds ``sys`` and ``proc``.
    """
    try:
        compatible = (root / "proc/device-tree/compatible").read_bytes()
    except OSError:
        return [], []
    if COMPATIBLE not in compatible:
        return [], []
    try:
        from jtop import jtop
    except ImportError:
        return [], [f"Jetson: jetson-stats is not installed: {pip_install('jetson')}"]
    client = jtop(interval=INTERVAL_S)
    try:
        client.start()
        return [Board(client, root / "sys")], []
    except Exception as error:  # whatever a service of another version answers: JtopException, OSError, KeyError, …
        client.close()
        return [], [f"Jetson: {reason(error)}"]


class Board:
    """The board that ``client``, a started jtop, tells about."""

    kind: Kind = "board"

    def __init__(self, client: Any, sysfs: Path) -> None:
        self._client, self._sysfs = client, sysfs
        # Waits until jtop has run the commands that tell it versions, so that they do not run during a measurement.
        self.name = str(client.board["hardware"].get("Model") or "NVIDIA Jetson")
        self.lag_s = 2 * float(client.interval)

    def read(self) -> State:
        """What the service last said, and what the kernel says now."""
        read = Reader((Exception,))  # as above: one figure that is not as expected must not hide the others
        throttling = read("throttling", self._throttling)
        counts = read("throttling until now", self._over_current)
        if not read("jtop", self._alive):
            return State(
                self.name, "unknown", throttling=throttling, throttle_counts=counts, unknown=tuple(read.unknown)
            )
        total = read("power", self._total)
        gpu = read("clock", self._gpu)
        memory = read("memory clock", self._memory)
        return State(
            self.name,
            "unknown" if total is None else _scope(total),
            power_w=None if total is None else total["power"] / 1e3,
            clock_mhz=None if gpu is None else gpu["freq"]["cur"] / 1e3,
            clock_max_mhz=None if gpu is None else read("highest clock", lambda: gpu["freq"]["max"] / 1e3),
            memory_clock_mhz=None if memory is None else memory["cur"] / 1e3,
            memory_clock_max_mhz=None if memory is None else read("highest memory clock", lambda: memory["max"] / 1e3),
            temperature_c=read("temperature", self._temperature_c),
            throttling=throttling,
            throttle_counts=counts,
            busy=None if gpu is None else read("load", lambda: bool(gpu["status"]["load"] > 0)),
            power_mode=read("power mode", self._power_mode),
            unknown=tuple(read.unknown),
        )

    def close(self) -> None:
        self._client.close()

    def _alive(self) -> bool:
        if not self._client.ok(spin=True):
            raise UnreadableError("it has stopped")
        return True

    def _total(self) -> Mapping[str, Any]:
        """Power of the supply (``name`` is its rail) or of all rails together, in milliwatts."""
        total = (self._client.power or {}).get("tot") or {}
        if not total.get("power"):  # jtop sums up to 0 where it could read no rail
            raise UnreadableError("jtop found no sensor that works")
        return dict(total)

    def _gpu(self) -> Mapping[str, Any]:
        """The GPU's frequencies in kHz and its load."""
        for gpu in self._client.gpu.values():
            if gpu.get("power_control") == "nvml":
                raise UnreadableError("jtop gives it in MHz or in kHz, and does not tell which")
            if gpu["type"] == "integrated" and "cur" in gpu["freq"]:
                return dict(gpu)
        raise UnreadableError("jtop found none")

    def _memory(self) -> Mapping[str, Any]:
        """The memory controller's frequencies in kHz."""
        found = self._client.memory.get("EMC")
        if not found or "cur" not in found:
            raise UnreadableError("jtop found none")
        return dict(found)

    def _temperature_c(self) -> float:
        sensors = {name.lower(): sensor for name, sensor in self._client.temperature.items()}
        for name in SENSORS:
            if name in sensors and sensors[name]["temp"] != OFFLINE_C:
                return float(sensors[name]["temp"])
        raise UnreadableError(f"jtop found none of {', '.join(SENSORS)}")

    def _power_mode(self) -> str:
        mode, clocks = self._client.nvpmodel, self._client.jetson_clocks
        parts = [] if mode is None else [str(mode.name)]
        if clocks is not None:
            parts.append(f"jetson_clocks {'on' if clocks.get_enable() else 'off'}")
        if not parts:
            raise UnreadableError("the board has no nvpmodel")
        return ", ".join(parts)

    def _throttling(self) -> tuple[str, ...]:
        alerts = dict(self._alerts())
        if not alerts:
            raise UnreadableError("the kernel shows no alerts")
        return tuple(sorted(name for name, level in alerts.items() if level > 0))

    def _alerts(self) -> Iterator[tuple[str, int]]:
        """Name and level of the cooling devices that slow something down; fans and clocks are others."""
        for kind in self._sysfs.glob("class/thermal/cooling_device*/type"):
            name = kind.read_text().strip()
            if name.endswith("-alert"):
                yield name, int((kind.parent / "cur_state").read_text())

    def _over_current(self) -> Mapping[str, int]:
        counts = [int(path.read_text()) for path in self._sysfs.glob("class/hwmon/hwmon*/oc*_event_cnt")]
        if not counts:
            raise UnreadableError("the kernel counts no over-current events")
        return {"over-current": sum(counts)}


def _scope(total: Mapping[str, Any]) -> str:
    return f"the whole board ({total['name']})" if "name" in total else "all rails that have sensors"
