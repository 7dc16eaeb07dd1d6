"""NVIDIA GPUs through NVML, the library of the driver that nvidia-smi shows, by the package nvidia-ml-py (module pynvml)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from s2mlp_bench.energy.device import Kind, Reader, State, UnreadableError, reason
from s2mlp_deploy.system.dependencies import pip_install

REASONS = {
    "SwPowerCap": "its power cap",
    "HwSlowdown": "a hardware slowdown",
    "SyncBoost": "sync boost with other GPUs",
    "SwThermalSlowdown": "heat",
    "HwThermalSlowdown": "heat, by hardware",
    "HwPowerBrakeSlowdown": "the power brake of the supply",
    "DisplayClockSetting": "display clocks",
}
"""In words, the events (nvmlClocksEventReasonX) that are throttling."""

IDLE, SET = "GpuIdle", "ApplicationsClocksSetting"
"""The events that are not: nothing to do, and clocks that somebody has set."""

COUNTERS = {
    "NVML_FI_DEV_PERF_POLICY_POWER": "its power cap",
    "NVML_FI_DEV_PERF_POLICY_THERMAL": "heat",
    "NVML_FI_DEV_PERF_POLICY_BOARD_LIMIT": "the board's limit",
}
"""The fields that count nanoseconds of throttling.

Not those named NVML_FI_DEV_CLOCKS_EVENT_REASON_X_SLOWDOWN: their numbers changed between versions of the driver (251 in
nvidia-ml-py 13.580, 269 in 13.615), so that with another one something else is read.
"""


def gpus() -> tuple[list[Gpu], list[str]]:
    """The GPUs here, to be closed one by one; and in words, why there are none, or fewer."""
    try:
        import pynvml
    except ImportError:
        return [], [f"NVIDIA GPUs: nvidia-ml-py is not installed: {pip_install('bench')}"]
    found: list[Gpu] = []
    unknown: list[str] = []
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return [], [f"NVIDIA GPUs: {reason(error)} (NVML comes with the driver)"]
    try:
        for index in range(pynvml.nvmlDeviceGetCount()):
            try:
                found.append(Gpu(pynvml, index))
            except pynvml.NVMLError as error:
                unknown.append(f"NVIDIA GPU {index}: {reason(error)}")
    except pynvml.NVMLError as error:
        unknown.append(f"NVIDIA GPUs: {reason(error)}")
    finally:
        _shut_down(pynvml)
    return found, unknown


class Gpu:
    """The GPU that NVML numbers ``index``. Holds NVML open: it counts who does, and ends with the last one.

    Raises:
        NVMLError: where the GPU cannot be reached.
    """

    kind: Kind = "gpu"
    lag_s = 1.0  # since Ampere, power is the mean of the last second (nvmlDeviceGetPowerUsage)

    def __init__(self, nvml: Any, index: int) -> None:
        self._nvml = nvml
        nvml.nvmlInit()
        try:
            self._handle = nvml.nvmlDeviceGetHandleByIndex(index)
            self.name = f"{nvml.nvmlDeviceGetName(self._handle)} (GPU {index})"
        except nvml.NVMLError:
            _shut_down(nvml)
            raise

    def read(self) -> State:
        """The driver's readings. Energy moves in steps of about 0.1 s, and is known since Volta."""
        nvml, handle = self._nvml, self._handle
        read = Reader((nvml.NVMLError,))
        events = read("throttling", self._events)
        return State(
            self.name,
            "the GPU and its memory",
            power_w=read("power", self._power_w),
            energy_j=read("energy", lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3),
            clock_mhz=read("clock", lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)),
            clock_max_mhz=read("highest clock", lambda: nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM)),
            memory_clock_mhz=read("memory clock", lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM)),
            memory_clock_max_mhz=read(
                "highest memory clock", lambda: nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_MEM)
            ),
            temperature_c=read("temperature", self._temperature_c),
            throttling=None if events is None else self._throttling(events),
            throttle_counts=read("throttling until now", self._counts),
            busy=None if events is None else not events & self._bit(IDLE),
            power_mode=self._power_mode(read, events),
            unknown=tuple(read.unknown),
        )

    def close(self) -> None:
        _shut_down(self._nvml)

    def _power_w(self) -> float:
        milliwatts = self._nvml.nvmlDeviceGetPowerUsage(self._handle)
        if not milliwatts:
            raise UnreadableError("reads 0 W")
        return float(milliwatts / 1e3)

    def _temperature_c(self) -> float:
        sensor = self._nvml.NVML_TEMPERATURE_GPU
        return float(self._newest("nvmlDeviceGetTemperatureV", "nvmlDeviceGetTemperature", sensor))

    def _events(self) -> int:
        return int(self._newest("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"))

    def _newest(self, now: str, before: str, *arguments: int) -> Any:
        """The function called ``now``, or in drivers older than the package, what was there ``before`` it."""
        try:
            return getattr(self._nvml, now)(self._handle, *arguments)
        except self._nvml.NVMLError_FunctionNotFound:
            return getattr(self._nvml, before)(self._handle, *arguments)

    def _bit(self, event: str) -> int:
        return int(getattr(self._nvml, f"nvmlClocksEventReason{event}"))

    def _throttling(self, events: int) -> tuple[str, ...]:
        found = tuple(words for event, words in REASONS.items() if events & self._bit(event))
        nameless = events & ~sum(self._bit(event) for event in (*REASONS, IDLE, SET))
        return (*found, f"a reason that NVML numbers {nameless:#x}") if nameless else found

    def _counts(self) -> Mapping[str, int]:
        nvml = self._nvml
        values = nvml.nvmlDeviceGetFieldValues(self._handle, [getattr(nvml, name) for name in COUNTERS])
        found = {
            words: int(value.value.ullVal)
            for words, value in zip(COUNTERS.values(), values, strict=True)
            if value.nvmlReturn == nvml.NVML_SUCCESS
        }
        if not found:
            raise UnreadableError("no counter is supported")
        return found

    def _power_mode(self, read: Reader, events: int | None) -> str | None:
        nvml, handle = self._nvml, self._handle
        limit_mw = read("power limit", lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle))
        persistence = read("persistence mode", lambda: nvml.nvmlDeviceGetPersistenceMode(handle))
        parts = [] if limit_mw is None else [f"limit {limit_mw / 1e3:g} W"]
        if persistence is not None:
            parts.append(f"persistence {'on' if persistence == nvml.NVML_FEATURE_ENABLED else 'off'}")
        if events is not None and events & self._bit(SET):
            parts.append("clocks set")
        return ", ".join(parts) or None


def _shut_down(nvml: Any) -> None:
    with suppress(nvml.NVMLError):  # a GPU that fell off the bus is no reason to lose what was measured
        nvml.nvmlShutdown()
