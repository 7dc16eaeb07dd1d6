"""A Jetson's sensors through jetson-stats (module jtop, releases 4.3.2 to 7.2.2), whose service must run on the board."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from s2mlp_bench.energy.device import Kind, Reader, State, UnreadableError, reason
from s2mlp_deploy.system.dependencies import pip_install

COMPATIBLE = b"nvidia,tegra"
"""Part of the device tree of every Jetson, whoever built the board around it."""

INTERVAL_S = 0.5
"""How often the service reads its sensors, unless another client has set an interval before."""

TEMPERATURES = ("tj", "gpu", "cpu")
"""Temperature sensors; the first that is on counts. tj is the hottest junction, where a board has it."""


def boards(root: Path) -> tuple[list[Board], list[str]]:
    """The Jetson that this machine is, if it is one, to be closed; or the reason why it cannot be read.

    ``root`` is the directory that holds ``proc``.
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
        return [Board(client)], []
    except Exception as error:  # a service of another version raises JtopException, OSError, KeyError, …
        client.close()
        return [], [f"Jetson: {reason(error)}"]


class Board:
    """A Jetson as a whole; ``client`` is a started jtop."""

    kind: Kind = "board"

    def __init__(self, client: Any) -> None:
        self._client = client
        # Waits until jtop has read the versions of the board, which would otherwise run during a measurement.
        self.name = str(client.board["hardware"].get("Model") or "NVIDIA Jetson")
        self.lag_s = 2 * float(client.interval)

    def read(self) -> State:
        """The service's latest readings. jtop does not report throttling."""
        read = Reader((Exception,))  # as above: one figure of an unexpected form must not hide the others
        if not read("jtop", self._alive):
            return State(self.name, "unknown", unknown=tuple(read.unknown))
        total, gpu = read("power", self._total), read("clock", self._gpu)
        return State(
            self.name,
            "unknown" if total is None else _scope(total),
            power_w=None if total is None else total["power"] / 1e3,
            clock_mhz=None if gpu is None else gpu["freq"]["cur"] / 1e3,
            clock_max_mhz=None if gpu is None else read("highest clock", lambda: gpu["freq"]["max"] / 1e3),
            temperature_c=read("temperature", self._temperature_c),
            busy=None if gpu is None else read("load", lambda: bool(gpu["status"]["load"] > 0)),
            power_mode=read("power mode", lambda: str(self._client.nvpmodel.name)),
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
        """The GPU's frequencies in kHz and its load. With ``power_control`` nvml, jtop's unit is not known."""
        for gpu in self._client.gpu.values():
            if gpu["type"] == "integrated" and "cur" in gpu["freq"] and gpu.get("power_control") != "nvml":
                return dict(gpu)
        raise UnreadableError("jtop found none in kHz")

    def _temperature_c(self) -> float:
        sensors = {name.lower(): sensor for name, sensor in self._client.temperature.items()}
        for name in TEMPERATURES:
            if name in sensors and sensors[name]["online"]:
                return float(sensors[name]["temp"])
        raise UnreadableError(f"jtop found none of {', '.join(TEMPERATURES)}")


def _scope(total: Mapping[str, Any]) -> str:
    return f"the whole board ({total['name']})" if "name" in total else "all rails that have sensors"
