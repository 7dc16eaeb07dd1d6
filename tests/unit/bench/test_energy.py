"""Devices under measurement: sensors on honest fakes of what they read, the energy of a candidate, and noise in words."""

from __future__ import annotations

import inspect
import io
import sys
import threading
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pynvml
import pytest
from rich.console import Console

from helpers.benchmarks import Entry, made_up
from s2mlp_bench.energy import device_table, jetson, nvml, processor
from s2mlp_bench.energy.device import Kind, State
from s2mlp_bench.energy.energy import Energy, Pace, measure_energy
from s2mlp_bench.energy.monitor import Condition, Monitor, condition
from s2mlp_bench.energy.nvml import COUNTERS, IDLE, REASONS, SET
from s2mlp_bench.energy.sensors import Sensors, open_sensors
from s2mlp_deploy.system.dependencies import pip_install

# NVIDIA: a fake of pynvml


class FakeNvml:
    """The functions of pynvml that are used, on GPUs that are dictionaries; everything else is the installed module's.

    A GPU is a dictionary of answers by function name; an answer that is an error is raised. As in NVML, nothing
    answers unless somebody holds it open.
    """

    def __init__(self, *gpus: dict[str, Any], init: Exception | None = None) -> None:
        self.gpus, self.init = gpus, init
        self.open = 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(pynvml, name)
        if inspect.isroutine(found):
            raise AttributeError(f"the fake of pynvml does not have {name}")
        return found

    def _answer(self, handle: int, name: str) -> Any:
        if not self.open:
            raise pynvml.NVMLError_Uninitialized
        answer = self.gpus[handle].get(name, pynvml.NVMLError_NotSupported())
        if isinstance(answer, Exception):
            raise answer
        return answer

    def nvmlInit(self) -> None:  # noqa: N802, here and below: the names are NVML's
        if self.init:
            raise self.init
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        if not self.open:
            raise pynvml.NVMLError_Uninitialized
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        if not self.open:
            raise pynvml.NVMLError_Uninitialized
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        if "lost" in self.gpus[index]:
            raise pynvml.NVMLError_GpuIsLost
        return index

    def nvmlDeviceGetName(self, handle: int) -> Any:  # noqa: N802
        return self._answer(handle, "nvmlDeviceGetName")

    def nvmlDeviceGetPowerUsage(self, handle: int) -> Any:  # noqa: N802
        return self._answer(handle, "nvmlDeviceGetPowerUsage")

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> Any:  # noqa: N802
        return self._answer(handle, "nvmlDeviceGetTotalEnergyConsumption")

    def nvmlDeviceGetClockInfo(self, handle: int, type: int) -> Any:  # noqa: N802
        return self._answer(handle, "nvmlDeviceGetClockInfo")[type]

    def nvmlDeviceGetMaxClockInfo(self, handle: int, type: int) -> Any:  # noqa: N802
        return self._answer(handle, "nvmlDeviceGetMaxClockInfo")[type]

    def nvmlDeviceGetTemperatureV(self, handle: int, sensor: int, version: int = 0) -> Any:  # noqa: N802
        return self._answer(handle, "nvmlDeviceGetTemperatureV")[sensor]

    def nvmlDeviceGetTemperature(self, handle: int, sensor: int) -> Any:  # noqa: N802
        return self._answer(handle, "nvmlDeviceGetTemperature")[sensor]

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: int) -> Any:  # noqa: N802
        return self._answer(handle, "nvmlDeviceGetCurrentClocksEventReasons")

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: int) -> Any:  # noqa: N802
        return self._answer(handle, "nvmlDeviceGetCurrentClocksThrottleReasons")

    def nvmlDeviceGetFieldValues(self, handle: int, fieldIds: Sequence[int]) -> Any:  # noqa: N802, N803
        answers = self._answer(handle, "nvmlDeviceGetFieldValues")
        values = (pynvml.c_nvmlFieldValue_t * len(fieldIds))()
        for value, number in zip(values, fieldIds, strict=True):
            value.fieldId = number
            if number in answers:
                value.value.ullVal = answers[number]
            else:
                value.nvmlReturn = pynvml.NVML_ERROR_NOT_SUPPORTED
        return values

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: int) -> Any:  # noqa: N802
        return self._answer(handle, "nvmlDeviceGetEnforcedPowerLimit")

    def nvmlDeviceGetPersistenceMode(self, handle: int) -> Any:  # noqa: N802
        return self._answer(handle, "nvmlDeviceGetPersistenceMode")


GPU: dict[str, Any] = {
    "nvmlDeviceGetName": "NVIDIA RTX 9000",
    "nvmlDeviceGetPowerUsage": 71_250,
    "nvmlDeviceGetTotalEnergyConsumption": 123_456_789,
    "nvmlDeviceGetClockInfo": {pynvml.NVML_CLOCK_SM: 1755, pynvml.NVML_CLOCK_MEM: 2619},
    "nvmlDeviceGetMaxClockInfo": {pynvml.NVML_CLOCK_SM: 1980, pynvml.NVML_CLOCK_MEM: 2620},
    "nvmlDeviceGetTemperatureV": {pynvml.NVML_TEMPERATURE_GPU: 43},
    "nvmlDeviceGetCurrentClocksEventReasons": 0,
    "nvmlDeviceGetFieldValues": {
        pynvml.NVML_FI_DEV_PERF_POLICY_POWER: 5_000,
        pynvml.NVML_FI_DEV_PERF_POLICY_THERMAL: 0,
    },
    "nvmlDeviceGetEnforcedPowerLimit": 300_500,
    "nvmlDeviceGetPersistenceMode": pynvml.NVML_FEATURE_DISABLED,
}


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeNvml]:
    """Makes a fake the module that ``import pynvml`` finds."""

    def install(*gpus: dict[str, Any], init: Exception | None = None) -> FakeNvml:
        fake = FakeNvml(*gpus, init=init)
        monkeypatch.setitem(sys.modules, "pynvml", fake)  # type: ignore[arg-type]
        return fake

    return install


def gpu_state(fake: FakeNvml) -> State:
    ((gpu,), missing) = nvml.gpus()
    assert not missing
    state = gpu.read()
    gpu.close()
    assert fake.open == 0
    return state


FUNCTIONS = [name for name in vars(FakeNvml) if name.startswith("nvml")]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_fake_has_only_functions_of_the_installed_pynvml_with_its_parameters(name: str) -> None:
    real = list(inspect.signature(getattr(pynvml, name)).parameters)
    assert list(inspect.signature(getattr(FakeNvml, name)).parameters) == ["self", *real]


@pytest.mark.parametrize("name", [*(f"nvmlClocksEventReason{e}" for e in (*REASONS, IDLE, SET)), *COUNTERS])
def test_every_constant_is_one_of_the_installed_pynvml(name: str) -> None:
    assert getattr(pynvml, name) > 0


def test_every_event_that_pynvml_names_is_known() -> None:
    bits = [getattr(pynvml, f"nvmlClocksEventReason{event}") for event in (*REASONS, IDLE, SET)]
    assert sum(bits) == pynvml.nvmlClocksEventReasonAll and len(set(bits)) == len(bits)


def test_a_gpu_tells_everything_in_watts_joules_megahertz_and_degrees(install: Callable[..., FakeNvml]) -> None:
    assert gpu_state(install(GPU)) == State(
        "NVIDIA RTX 9000 (GPU 0)",
        "the GPU and its memory",
        power_w=71.25,
        energy_j=123_456.789,
        clock_mhz=1755,
        clock_max_mhz=1980,
        memory_clock_mhz=2619,
        memory_clock_max_mhz=2620,
        temperature_c=43,
        throttling=(),
        throttle_counts={"its power cap": 5_000, "heat": 0},
        busy=True,
        power_mode="limit 300.5 W, persistence off",
    )


@pytest.mark.parametrize(
    ("function", "figures"),
    [
        ("nvmlDeviceGetPowerUsage", ["power_w"]),
        ("nvmlDeviceGetTotalEnergyConsumption", ["energy_j"]),
        ("nvmlDeviceGetClockInfo", ["clock_mhz", "memory_clock_mhz"]),
        ("nvmlDeviceGetMaxClockInfo", ["clock_max_mhz", "memory_clock_max_mhz"]),
        ("nvmlDeviceGetTemperatureV", ["temperature_c"]),
        ("nvmlDeviceGetCurrentClocksEventReasons", ["throttling", "busy"]),
        ("nvmlDeviceGetFieldValues", ["throttle_counts"]),
    ],
)
@pytest.mark.parametrize("error", [pynvml.NVMLError_NotSupported, pynvml.NVMLError_NoPermission])
def test_what_a_gpu_does_not_tell_is_none_with_the_reason_and_the_rest_stays(
    install: Callable[..., FakeNvml], function: str, figures: list[str], error: type[Exception]
) -> None:
    complete, found = gpu_state(install(GPU)), gpu_state(install({**GPU, function: error()}))
    assert {name for name, value in vars(found).items() if value is None} == set(figures)
    assert all(str(error()) in words for words in found.unknown) and 1 <= len(found.unknown) <= 2
    assert replace(found, unknown=(), **{name: getattr(complete, name) for name in figures}) == complete


def test_a_gpu_that_is_lost_in_between_tells_nothing_and_raises_nothing(install: Callable[..., FakeNvml]) -> None:
    fake = install(dict(GPU))
    ((gpu,), _) = nvml.gpus()
    fake.gpus[0].update({name: pynvml.NVMLError_GpuIsLost() for name in GPU})
    state = gpu.read()
    gpu.close()
    assert state.silent and state.device == "NVIDIA RTX 9000 (GPU 0)" and "power: GPU is lost" in state.unknown


def test_no_watts_at_all_are_no_reading(install: Callable[..., FakeNvml]) -> None:
    state = gpu_state(install({**GPU, "nvmlDeviceGetPowerUsage": 0}))
    assert state.power_w is None and state.unknown == ("power: reads 0 W",)


def test_a_driver_older_than_the_package_is_asked_as_it_was_then(install: Callable[..., FakeNvml]) -> None:
    state = gpu_state(
        install(
            {
                **GPU,
                "nvmlDeviceGetTemperatureV": pynvml.NVMLError_FunctionNotFound(),
                "nvmlDeviceGetTemperature": {pynvml.NVML_TEMPERATURE_GPU: 51},
                "nvmlDeviceGetCurrentClocksEventReasons": pynvml.NVMLError_FunctionNotFound(),
                "nvmlDeviceGetCurrentClocksThrottleReasons": pynvml.nvmlClocksThrottleReasonSwPowerCap,
            }
        )
    )
    assert (state.temperature_c, state.throttling, state.unknown) == (51, ("its power cap",), ())


@pytest.mark.parametrize("event", REASONS)
def test_each_event_that_holds_clocks_back_is_named(install: Callable[..., FakeNvml], event: str) -> None:
    bit = getattr(pynvml, f"nvmlClocksEventReason{event}")
    state = gpu_state(install({**GPU, "nvmlDeviceGetCurrentClocksEventReasons": bit}))
    assert state.throttling == (REASONS[event],) and state.busy is True


def test_idling_and_set_clocks_are_no_throttling(install: Callable[..., FakeNvml]) -> None:
    idle, set_ = (getattr(pynvml, f"nvmlClocksEventReason{event}") for event in (IDLE, SET))
    state = gpu_state(install({**GPU, "nvmlDeviceGetCurrentClocksEventReasons": idle}))
    assert (state.throttling, state.busy, state.power_mode) == ((), False, "limit 300.5 W, persistence off")
    state = gpu_state(install({**GPU, "nvmlDeviceGetCurrentClocksEventReasons": set_}))
    assert (state.throttling, state.busy, state.power_mode) == ((), True, "limit 300.5 W, persistence off, clocks set")


def test_an_event_without_a_name_is_not_dropped(install: Callable[..., FakeNvml]) -> None:
    heat = pynvml.nvmlClocksEventReasonHwThermalSlowdown
    state = gpu_state(install({**GPU, "nvmlDeviceGetCurrentClocksEventReasons": heat | 0x4200}))
    assert state.throttling == ("heat, by hardware", "a reason that NVML numbers 0x4200")


def test_counters_that_no_field_supports_are_unknown_not_zero(install: Callable[..., FakeNvml]) -> None:
    state = gpu_state(install({**GPU, "nvmlDeviceGetFieldValues": {}}))
    assert state.throttle_counts is None and state.unknown == ("throttling until now: no counter is supported",)


# Sensors of a machine


@pytest.fixture
def nowhere(tmp_path: Path) -> Path:
    """A machine whose kernel shows nothing."""
    return tmp_path / "nowhere"


@pytest.mark.parametrize(
    ("init", "words"),
    [
        (pynvml.NVMLError_LibraryNotFound(), "NVML Shared Library Not Found"),
        (pynvml.NVMLError_DriverNotLoaded(), "Driver Not Loaded"),
        (pynvml.NVMLError_LibRmVersionMismatch(), "RM has detected an NVML/RM version mismatch."),
    ],
)
def test_without_a_driver_there_is_no_gpu_and_the_reason(
    install: Callable[..., FakeNvml], nowhere: Path, init: Exception, words: str
) -> None:
    fake = install(init=init)
    with open_sensors(nowhere) as here:
        assert here.found == () and here.unknown[0] == f"NVIDIA GPUs: {words} (NVML comes with the driver)"
    assert fake.open == 0


def test_without_the_package_the_reason_is_the_remedy(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with open_sensors(nowhere) as here:
        assert pip_install("bench") in here.unknown[0]


def test_a_driver_without_a_gpu_is_nothing_to_tell(install: Callable[..., FakeNvml], nowhere: Path) -> None:
    fake = install()
    with open_sensors(nowhere) as here:
        assert here.found == () and not any("NVIDIA" in words for words in here.unknown)
    assert fake.open == 0


def test_nvml_is_open_in_the_block_and_closed_behind_it(install: Callable[..., FakeNvml], nowhere: Path) -> None:
    fake = install(GPU, GPU)
    with open_sensors(nowhere) as here:
        assert fake.open == 2 and [sensor.name for sensor in here.found] == [
            f"NVIDIA RTX 9000 (GPU {i})" for i in (0, 1)
        ]
    assert fake.open == 0
    with pytest.raises(KeyboardInterrupt), open_sensors(nowhere):
        raise KeyboardInterrupt
    assert fake.open == 0


def test_a_gpu_that_cannot_be_opened_does_not_hide_the_other(install: Callable[..., FakeNvml], nowhere: Path) -> None:
    fake = install({**GPU, "lost": True}, GPU)
    with open_sensors(nowhere) as here:
        assert [sensor.name for sensor in here.found] == ["NVIDIA RTX 9000 (GPU 1)"]
        assert here.unknown[0] == "NVIDIA GPU 0: GPU is lost"
    assert fake.open == 0


def test_a_gpu_that_tells_nothing_is_no_gauge_but_a_reason(install: Callable[..., FakeNvml], nowhere: Path) -> None:
    fake = install({"nvmlDeviceGetName": "Orin"})
    with open_sensors(nowhere) as here:
        assert here.found == () and here.unknown[0].startswith("Orin (GPU 0): throttling: Not Supported; power: Not")
    assert fake.open == 0


def test_this_machine_can_be_asked_and_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    with open_sensors() as here:
        states = [sensor.read() for sensor in here.found]
        assert all(not state.silent for state in states)
        assert here.found or here.unknown
    assert capfd.readouterr() == ("", "")


@dataclass
class FakeGauge:
    """A sensor that reads out a list of states, the last one again and again."""

    states: list[State] = field(default_factory=lambda: [State("fake", "all")])
    kind: Kind = "gpu"
    name: str = "fake"
    lag_s: float = 0.0
    read_count: int = 0

    def read(self) -> State:
        self.read_count += 1
        return self.states[min(self.read_count, len(self.states)) - 1]

    def close(self) -> None:
        raise AssertionError("not its job")


def test_the_gauge_of_a_candidate_is_the_board_or_the_only_one_of_its_kind() -> None:
    cpu, gpu, board = (FakeGauge(kind=kind) for kind in ("cpu", "gpu", "board"))
    assert Sensors((cpu, gpu), ()).of("gpu") is gpu and Sensors((cpu, gpu), ()).of("cpu") is cpu
    assert Sensors((gpu, board, cpu), ()).of("gpu") is board and Sensors((gpu, board, cpu), ()).of("cpu") is board
    assert Sensors((gpu, FakeGauge(kind="gpu")), ()).of("gpu") is None and Sensors((gpu,), ()).of("cpu") is None


# The processor: a fake of /sys


def write(root: Path, **files: object) -> None:
    """Files below ``root``; ``__`` in a name stands for a slash, as names are keywords."""
    for name, content in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")


def zone(sysfs: Path, number: str, name: str, energy_uj: int, range_uj: int = 262_143_328_850) -> Path:
    folder = sysfs / "class/powercap" / number
    write(folder, name=name, energy_uj=energy_uj, max_energy_range_uj=range_uj)
    return folder


def test_the_energy_of_a_processor_is_that_of_its_packages_and_nothing_twice(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 5_000_000)
    zone(tmp_path, "intel-rapl:1", "package-1", 250_000)
    zone(tmp_path, "intel-rapl:0:0", "core", 3_000_000)
    zone(tmp_path, "intel-rapl:0:1", "dram", 1_000_000)
    zone(tmp_path, "intel-rapl:2", "psys", 9_000_000)
    zone(tmp_path, "intel-rapl-mmio:0", "package-0", 5_000_000)
    state = processor.Processor(tmp_path).read()
    assert state.energy_j == 5.25 and state.power_w is None
    assert not any(words.startswith("energy") for words in state.unknown)


def test_a_counter_that_starts_again_goes_on_for_each_package_alone(tmp_path: Path) -> None:
    first = zone(tmp_path, "intel-rapl:0", "package-0", 900_000, range_uj=1_000_000)
    second = zone(tmp_path, "intel-rapl:1", "package-1", 100_000, range_uj=3_000_000)
    sensor = processor.Processor(tmp_path)
    energies = [sensor.read().energy_j]
    for in_first, in_second in ((200_000, 150_000), (100_000, 100_000)):
        write(first, energy_uj=in_first)
        write(second, energy_uj=in_second)
        energies.append(sensor.read().energy_j)
    assert energies == pytest.approx([1.0, 1.35, 1.0 + 0.35 + 0.9 + 2.95])


def test_one_package_that_may_not_be_read_leaves_the_energy_unknown(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 5_000_000)
    counter = zone(tmp_path, "intel-rapl:1", "package-1", 5_000_000) / "energy_uj"
    counter.unlink()
    counter.mkdir()  # no right is missing for root, but nobody can read a directory
    state = processor.Processor(tmp_path).read()
    assert state.energy_j is None and state.unknown[0] == "energy: Is a directory"


@pytest.mark.parametrize("content", ["", "many"])
def test_a_counter_that_is_no_number_leaves_the_energy_unknown(tmp_path: Path, content: str) -> None:
    folder = zone(tmp_path, "intel-rapl:0", "package-0", 5_000_000)
    (folder / "energy_uj").write_text(content)
    assert processor.Processor(tmp_path).read().energy_j is None
    (folder / "energy_uj").write_text("5")
    (folder / "max_energy_range_uj").write_text(content)
    assert processor.Processor(tmp_path).read().energy_j is None


def test_clocks_heat_throttling_and_governors_of_a_processor(tmp_path: Path) -> None:
    cpu = tmp_path / "devices/system/cpu"
    write(cpu, cpu0__cpufreq__scaling_cur_freq=2_100_000, cpu11__cpufreq__scaling_cur_freq=3_400_123)
    write(cpu, cpu0__cpufreq__cpuinfo_max_freq=3_500_000, cpu11__cpufreq__cpuinfo_max_freq=3_600_000)
    write(cpu, cpu0__cpufreq__scaling_governor="powersave", cpu11__cpufreq__scaling_governor="performance")
    write(cpu, cpu0__thermal_throttle__core_throttle_count=2, cpu0__thermal_throttle__package_throttle_count=5)
    write(cpu, cpu0__thermal_throttle__core_throttle_max_time_ms=99, cpu11__thermal_throttle__core_throttle_count=1)
    write(cpu, cpufreq__policy0__scaling_cur_freq=9_900_000)
    hwmon = tmp_path / "class/hwmon"
    write(hwmon, hwmon0__name="nvme", hwmon0__temp1_input=88_000, hwmon1__name="coretemp", hwmon1__temp1_input=61_500)
    state = processor.Processor(tmp_path).read()
    assert (state.clock_mhz, state.clock_max_mhz, state.temperature_c) == (3400.123, 3600, 61.5)
    assert state.throttle_counts == {"heat": 8} and state.throttling is None
    assert state.power_mode == "governor performance, powersave" and state.busy
    assert state.unknown == ("energy: the kernel shows no package with a counter (intel-rapl)",)


def test_a_processor_that_shows_nothing_is_no_gauge_but_a_reason(
    install: Callable[..., FakeNvml], nowhere: Path
) -> None:
    install()
    with open_sensors(nowhere) as here:
        assert here.found == () and len(here.unknown) == 1 and "intel-rapl" in here.unknown[0]


# Jetson: a fake of jtop, with attributes as in jetson-stats 7.2.2 (jtop/jtop.py and the services in jtop/core)


class JtopException(Exception):  # noqa: N818, the name is jtop's
    pass


class FakeJtop:
    """``jtop.jtop`` on an Orin NX; ``stats`` are what its properties return."""

    stats: dict[str, Any]
    refuses: Exception | None
    made: list[FakeJtop]

    def __init__(self, interval: float = 1.0) -> None:
        self.running, self.closed, self.interval = False, False, interval
        self.made.append(self)

    def __getattr__(self, name: str) -> Any:
        if not self.running or name not in (
            "board",
            "gpu",
            "nvpmodel",
            "power",
            "temperature",
        ):
            raise AttributeError(name)
        return self.stats[name]

    def start(self) -> None:
        if self.refuses:
            raise self.refuses
        self.running = True

    def ok(self, spin: bool = False) -> bool:
        assert spin, "would wait for the next reading"
        return self.running

    def close(self) -> None:
        self.running, self.closed = False, True


ORIN: dict[str, Any] = {
    "board": {"hardware": {"Model": "NVIDIA Jetson Orin NX Engineering Reference Developer Kit"}, "libraries": {}},
    "gpu": {
        "gpu": {
            "type": "integrated",
            "status": {"railgate": False, "3d_scaling": True, "load": 97.3},
            "freq": {"governor": "nvhost_podgov", "cur": 612_000, "max": 918_000, "min": 306_000},
            "power_control": "auto",
        }
    },
    "power": {
        "rail": {"VDD_CPU_GPU_CV": {"volt": 5000, "curr": 900, "power": 4500, "avg": 4400, "online": True}},
        "tot": {"volt": 5000, "curr": 1950, "power": 9750, "avg": 9600, "online": True, "name": "VDD_IN"},
    },
    "temperature": {
        "cpu": {"temp": 51.25, "online": True},
        "cv0": {"temp": -256, "online": False},
        "gpu": {"temp": 50.1, "online": True},
        "tj": {"temp": 52.5, "online": True},
    },
    "nvpmodel": types.SimpleNamespace(name="MAXN", id=0),
}


@dataclass
class FakeBoard:
    """A machine with the device tree of a Jetson, and the fake jtop that it runs."""

    root: Path
    jtop: type[FakeJtop]

    def __post_init__(self) -> None:
        tree = self.root / "proc/device-tree"
        tree.mkdir(parents=True)
        (tree / "compatible").write_bytes(b"nvidia,p3509-0000+p3767-0000\0nvidia,p3767-0000\0nvidia,tegra234\0")

    def read(self) -> State:
        ((board,), missing) = jetson.boards(self.root)
        assert not missing
        state = board.read()
        board.close()
        assert [client.closed for client in self.jtop.made] == [True] * len(self.jtop.made)
        return state


@pytest.fixture
def orin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeBoard:
    """A Jetson where jtop runs; a test may change what it says."""
    jtop = type("jtop", (FakeJtop,), {"stats": dict(ORIN), "refuses": None, "made": []})
    module = types.ModuleType("jtop")
    module.__dict__.update(jtop=jtop, JtopException=JtopException)
    monkeypatch.setitem(sys.modules, "jtop", module)
    return FakeBoard(tmp_path, jtop)


def test_a_jetson_reports_the_power_of_the_board_its_mode_and_clocks_in_megahertz(orin: FakeBoard) -> None:
    assert orin.read() == State(
        "NVIDIA Jetson Orin NX Engineering Reference Developer Kit",
        "the whole board (VDD_IN)",
        power_w=9.75,
        clock_mhz=612,
        clock_max_mhz=918,
        temperature_c=52.5,
        busy=True,
        power_mode="MAXN",
    )


def test_rails_without_an_input_are_called_what_they_are(orin: FakeBoard) -> None:
    orin.jtop.stats["power"] = {
        "rail": {"CPU": {"power": 900}, "GPU": {"power": 350}},
        "tot": {"power": 1250, "avg": 1},
    }
    state = orin.read()
    assert (state.power_w, state.scope) == (1.25, "all rails that have sensors")


@pytest.mark.parametrize(
    "power", [{}, {"rail": {}, "tot": {"power": 0, "avg": 0}}], ids=["no sensors", "none that works"]
)
def test_power_that_jtop_could_not_read_is_unknown_not_zero(orin: FakeBoard, power: dict[str, Any]) -> None:
    orin.jtop.stats["power"] = power
    state = orin.read()
    assert state.power_w is None and "power: jtop found no sensor that works" in state.unknown
    assert state.clock_mhz == 612 and state.scope == "unknown"


def test_clocks_in_an_unknown_unit_are_unknown(orin: FakeBoard) -> None:
    orin.jtop.stats["gpu"] = {
        "Thor": {
            "type": "integrated",
            "status": {"load": 0.0},
            "freq": {"cur": 1575, "max": 1575},
            "power_control": "nvml",
        }
    }
    state = orin.read()
    assert state.clock_mhz is None and state.clock_max_mhz is None and state.busy is None and state.power_w == 9.75


def test_a_gpu_whose_clock_is_hidden_does_not_hide_the_rest(orin: FakeBoard) -> None:
    orin.jtop.stats["gpu"] = {"gpu": {"type": "integrated", "status": {"3d_scaling": False}, "freq": {"cur": 306_000}}}
    state = orin.read()
    assert (state.clock_mhz, state.clock_max_mhz, state.busy) == (306, None, None)
    assert {"highest clock: no entry 'max'", "load: no entry 'load'"} == set(state.unknown)


@pytest.mark.parametrize(
    ("sensors", "expected"),
    [
        ({"GPU": {"temp": 48.0, "online": True}, "CPU": {"temp": 49.5, "online": True}}, 48.0),
        ({"gpu": {"temp": -256, "online": False}, "cpu": {"temp": 49.5, "online": True}}, 49.5),
        ({"nvme Composite": {"temp": 70.85, "online": True}, "tj": {"temp": -256, "online": False}}, None),
    ],
)
def test_the_temperature_is_that_of_a_sensor_that_is_on(
    orin: FakeBoard, sensors: dict[str, Any], expected: float | None
) -> None:
    orin.jtop.stats["temperature"] = sensors
    assert orin.read().temperature_c == expected


def test_a_board_without_modes_says_so(orin: FakeBoard) -> None:
    orin.jtop.stats["nvpmodel"] = None
    state = orin.read()
    assert state.power_mode is None and state.power_w == 9.75 and state.unknown[0].startswith("power mode: ")


def test_a_service_that_has_stopped_leaves_everything_unknown(orin: FakeBoard) -> None:
    ((board,), _) = jetson.boards(orin.root)
    orin.jtop.made[0].running = False
    state = board.read()
    assert state.power_w is None and state.clock_mhz is None and "jtop: it has stopped" in state.unknown


@pytest.mark.parametrize(
    "error",
    [
        JtopException("The jtop.service is not active. Please run:\nsudo jtop --install-service"),
        PermissionError(13, "Permission denied"),
    ],
    ids=["inactive", "denied"],
)
def test_a_service_that_refuses_is_a_reason_on_one_line(orin: FakeBoard, error: Exception) -> None:
    orin.jtop.refuses = error
    found, (words,) = jetson.boards(orin.root)
    assert found == [] and words in (
        "Jetson: The jtop.service is not active. Please run: sudo jtop --install-service",
        "Jetson: Permission denied",
    )
    assert orin.jtop.made[0].closed


def test_a_jetson_without_jetson_stats_is_told_how_to_get_it(orin: FakeBoard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jtop", None)
    assert jetson.boards(orin.root) == (
        [],
        [f"Jetson: jetson-stats is not installed: {pip_install('jetson')}"],
    )


@pytest.mark.parametrize("compatible", [None, b"raspberrypi,5-model-b\0brcm,bcm2712\0"])
def test_no_other_machine_is_asked_for_a_jetson(orin: FakeBoard, compatible: bytes | None) -> None:
    path = orin.root / "proc/device-tree/compatible"
    path.unlink()
    if compatible:
        path.write_bytes(compatible)
    assert jetson.boards(orin.root) == ([], []) and orin.jtop.made == []


def test_gauges_close_the_board(orin: FakeBoard, install: Callable[..., FakeNvml]) -> None:
    install()
    with open_sensors(orin.root) as here:
        assert here.of("gpu") is here.of("cpu") is here.found[0] and here.found[0].lag_s == 2 * jetson.INTERVAL_S
        assert not orin.jtop.made[0].closed
    assert orin.jtop.made[0].closed


# Energy


@dataclass
class Plant:
    """A device on a clock of its own: every second takes ``idle_w``, or ``busy_w`` in a call of ``call_s``."""

    idle_w: float = 20.0
    busy_w: float = 65.0
    call_s: float = 0.25
    now: float = 100.0
    energy_j: float = 7e6
    calls: int = 0
    rests: list[float] = field(default_factory=list)

    @property
    def pace(self) -> Pace:
        return Pace(self.clock, self.sleep)

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.rests.append(seconds)
        self.now += seconds
        self.energy_j += seconds * self.idle_w

    def call(self) -> None:
        self.calls += 1
        self.now += self.call_s
        self.energy_j += self.call_s * self.busy_w


@dataclass
class Counter:
    """A sensor with a counter, which may stand still."""

    plant: Plant
    moving: bool = True
    kind: Kind = "gpu"
    name: str = "counting"
    lag_s: float = 1.0

    def read(self) -> State:
        return State(self.name, "all of it", energy_j=self.plant.energy_j if self.moving else 7e6)

    def close(self) -> None:
        pass


def test_energy_is_the_difference_of_the_counter_alone_and_at_rest() -> None:
    plant = Plant()
    energy = measure_energy(plant.call, images=3, sensor=Counter(plant), seconds=2.1, pace=plant.pace)
    per_image = 65 * 0.25 / 3
    assert energy is not None and plant.calls == 4 + 9  # a second to warm up, and 2.1 seconds
    assert plant.rests == [1.0, 2.1]  # a second until power readings have forgotten what was before, and 2.1 seconds
    assert (energy.device, energy.scope, energy.source, energy.samples) == ("counting", "all of it", "counter", None)
    assert (energy.images, energy.seconds) == (27, 2.25)
    figures = energy.joules_per_image, energy.joules_per_image_above_idle, energy.mean_w, energy.idle_w
    assert figures == pytest.approx((per_image, per_image * 45 / 65, 65, 20))


def test_a_counter_that_moves_only_under_load_leaves_the_idle_power_unknown() -> None:
    plant = Plant(idle_w=0.0)
    energy = measure_energy(plant.call, images=1, sensor=Counter(plant), seconds=1, pace=plant.pace)
    assert energy is not None and energy.mean_w == 65
    assert energy.idle_w is None and energy.joules_per_image_above_idle is None


def test_a_counter_that_stands_still_tells_nothing() -> None:
    plant = Plant()
    sensor = Counter(plant, moving=False)
    assert measure_energy(plant.call, images=1, sensor=sensor, seconds=1, pace=plant.pace) is None


def test_where_nothing_tells_energy_the_candidate_does_not_even_run() -> None:
    plant = Plant()
    assert measure_energy(plant.call, images=1, sensor=FakeGauge(), seconds=9, pace=plant.pace) is None
    assert plant.calls == 0 and plant.now == 100


def test_one_call_longer_than_the_time_is_measured_whole() -> None:
    plant = Plant(call_s=30.0)
    energy = measure_energy(plant.call, images=8, sensor=Counter(plant), seconds=2, pace=plant.pace)
    assert energy is not None and (energy.images, energy.seconds) == (8, 30)


def test_a_package_whose_counter_starts_again_meanwhile_is_measured_right(tmp_path: Path) -> None:
    plant = Plant(energy_j=0.9)
    folder = zone(tmp_path, "intel-rapl:0", "package-0", 900_000, range_uj=50_000_000)
    sensor = processor.Processor(tmp_path)

    def call() -> None:
        plant.call()
        write(folder, energy_uj=round(plant.energy_j * 1e6) % 50_000_000)

    energy = measure_energy(call, images=1, sensor=sensor, seconds=0.5, pace=plant.pace)
    assert energy is not None and energy.mean_w == pytest.approx(65) and energy.scope == "the processor's packages"
    assert round(plant.energy_j * 1e6) > 50_000_000


class Meter:
    """A sensor of power, with a counter that stands still or none, and on request with gaps."""

    kind: Kind = "board"
    name = "metering"

    def __init__(self, *, counter: bool = False, gaps: bool = False) -> None:
        self.lag_s = 0.0
        self.watts = 20.0
        self.readings = 0
        self._counter, self._gaps = counter, gaps
        self._changed = threading.Condition()

    def read(self) -> State:
        with self._changed:
            self.readings += 1
            self._changed.notify_all()
            missing = self._gaps and self.readings % 2 and self.readings > 1
            return State(
                self.name, "all of it", power_w=None if missing else self.watts, energy_j=7.0 if self._counter else None
            )

    def close(self) -> None:
        pass

    def wait_for(self, readings: int) -> None:
        """Until the other thread has read so often."""
        with self._changed:
            start = self.readings
            assert self._changed.wait_for(lambda: self.readings >= start + readings, timeout=600)


def sampling() -> bool:
    return "power samples" in {thread.name for thread in threading.enumerate()}


def metered(meter: Meter, plant: Plant) -> Energy | None:
    """The energy of a candidate; every call and every rest lasts until four samples were taken, where any are."""

    def call() -> None:
        meter.watts = 65.0
        if sampling():
            meter.wait_for(4)
        plant.call()

    def sleep(seconds: float) -> None:
        meter.watts = 20.0
        if sampling():
            meter.wait_for(4)
        plant.sleep(seconds)

    return measure_energy(call, images=2, sensor=meter, seconds=0.5, pace=Pace(plant.clock, sleep, 0.001))


def test_without_a_counter_power_is_sampled_beside_the_candidate() -> None:
    meter, plant = Meter(), Plant()
    energy = metered(meter, plant)
    assert energy is not None and (energy.source, energy.images, energy.seconds) == ("samples", 4, 0.5)
    assert energy.samples is not None and energy.samples >= 8
    assert (energy.mean_w, energy.idle_w) == (65, 20) and energy.joules_per_image == pytest.approx(65 * 0.125)
    assert not sampling()


def test_a_counter_that_stands_still_leaves_it_to_the_samples() -> None:
    energy = metered(Meter(counter=True), Plant())
    assert energy is not None and energy.source == "samples" and energy.mean_w == 65


def test_samples_that_fail_do_not_count_as_zero() -> None:
    energy = metered(Meter(gaps=True), Plant())
    assert energy is not None and (energy.mean_w, energy.idle_w) == (65, 20)


def test_an_interrupted_candidate_leaves_no_thread_behind() -> None:
    def call() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_energy(call, images=1, sensor=Meter(), seconds=0.01, pace=Pace(sample_s=0.001))
    assert not sampling()


# Watching


STILL = State(
    "fake",
    "all",
    power_w=80.0,
    clock_mhz=1800,
    clock_max_mhz=2000,
    temperature_c=40.0,
    throttling=(),
    throttle_counts={"heat": 3},
    busy=True,
    power_mode="15W",
)


def noise(*states: State) -> tuple[str, ...]:
    return condition(states).noise


def clocks(*mhz: float, busy: bool | None = True) -> list[State]:
    return [replace(STILL, clock_mhz=value, busy=busy) for value in mhz]


def test_a_device_that_holds_still_makes_no_noise() -> None:
    hot = replace(STILL, temperature_c=71.0, power_w=210.0)
    assert condition([STILL, hot]) == Condition(STILL, hot, 2, (), ())


def test_what_held_clocks_back_in_between_is_told_once() -> None:
    held = replace(STILL, throttling=("heat", "its power cap"))
    found = condition([STILL, held, held, replace(STILL, throttle_counts={"heat": 4})])
    assert found.throttled == ("heat", "its power cap")
    assert found.noise == ("fake: held back by heat", "fake: held back by its power cap")


def test_counters_tell_what_nobody_saw_and_old_counts_nothing() -> None:
    assert noise(STILL, replace(STILL, throttle_counts={"heat": 4})) == ("fake: held back by heat",)
    assert noise(STILL, replace(STILL, throttle_counts={"heat": 3, "over-current": 9})) == ()


def test_throttling_is_unknown_only_where_nothing_tells_of_it() -> None:
    unknown = replace(STILL, throttling=None, throttle_counts=None)
    assert condition([unknown, unknown]).throttled is None
    assert condition([replace(unknown, throttling=()), unknown]).throttled == ()
    assert condition([replace(unknown, throttle_counts={"heat": 1}), unknown]).throttled == ()


def test_the_deepest_fall_of_the_clock_is_told() -> None:
    assert noise(*clocks(1500, 1950, 1300, 1700, 1900)) == ("fake: its clock fell from 1950 to 1300 MHz",)


@pytest.mark.parametrize("mhz", [(1800, 1650), (600, 1800, 1790), (1800, 1800)], ids=["a little", "a rise", "not"])
def test_a_clock_that_rises_or_moves_a_little_has_not_fallen(mhz: tuple[float, ...]) -> None:
    assert noise(*clocks(*mhz)) == ()


@pytest.mark.parametrize("busy", [False, None])
def test_the_clock_of_a_device_at_rest_says_nothing(busy: bool | None) -> None:
    assert noise(*clocks(1800), *clocks(210, busy=busy)) == ()


def test_a_clock_that_could_not_be_read_is_no_fall() -> None:
    assert noise(STILL, replace(STILL, clock_mhz=None), STILL) == ()


def test_a_mode_that_changed_is_noise_and_one_that_could_not_be_read_is_not() -> None:
    assert noise(STILL, replace(STILL, power_mode="MAXN"), STILL) == ("fake: its power mode changed from 15W to MAXN",)
    assert noise(STILL, replace(STILL, power_mode=None), STILL) == ()


def ticking(step_s: float) -> Iterator[float]:
    now = 0.0
    while True:
        yield now
        now += step_s


def test_looks_are_as_far_apart_as_asked() -> None:
    sensor, plant = FakeGauge([STILL]), Plant()
    monitor = Monitor([sensor], clock=plant.clock, every_s=1.0)
    for _ in range(10):
        plant.now += 0.4
        monitor.look()
    assert sensor.read_count == 1 + 3  # at 1.2, 2.4 and 3.6 seconds
    (found,) = monitor.end()
    assert found.looks == sensor.read_count == 5


def test_a_watch_keeps_devices_apart() -> None:
    hot = FakeGauge([STILL, replace(STILL, throttling=("heat",)), STILL])
    cold = FakeGauge([replace(STILL, device="other")])
    clock = ticking(2.0)
    monitor = Monitor([hot, cold], clock=lambda: next(clock))
    monitor.look()
    first, second = monitor.end()
    assert first.noise == ("fake: held back by heat",) and second.noise == ()
    assert (first.before, first.after) == (STILL, STILL) and second.before.device == "other"


def test_without_gauges_there_is_nothing_to_watch() -> None:
    monitor = Monitor([])
    monitor.look()
    assert monitor.end() == ()


# For people and machines


def shown(conditions: Sequence[Condition], energies: dict[str, Energy | None], unknown: Sequence[str] = ()) -> str:
    out = io.StringIO()
    found = made_up([Entry(name, 5.0) for name in energies or ("fp32",)])[1].summary
    Console(file=out, width=100).print(device_table.render(conditions, energies, found, unknown=unknown))
    return out.getvalue()


ENERGY = Energy("fake", "all of it", "counter", None, 3.0, 3000, 0.0652, 0.0452, 65.2, 20.0)


def test_the_table_shows_before_and_after() -> None:
    after = replace(
        STILL, power_w=212.4, clock_mhz=1500, throttling=("heat",), temperature_c=None, memory_clock_mhz=999
    )
    text = shown([condition([STILL, after])], {})
    row = next(line for line in text.splitlines() if "│ fake" in line)
    assert [cell.strip() for cell in row.strip("│").split("│")] == [
        "fake",
        "80 → 212",
        "1800 → 1500",
        "2000",
        "40 → unknown",
        "heat",
    ]
    assert "fake: mode 15W, memory clock unknown → 999 MHz" in text and "energy" not in text


def test_what_stayed_the_same_is_shown_once() -> None:
    text = shown([condition([STILL, replace(STILL, power_mode="MAXN")])], {})
    assert "│ 80 " in " ".join(text.split()) and "80 → 80" not in text
    assert "fake: mode 15W → MAXN, memory clock unknown" in text


def test_nothing_and_unknown_are_told_apart() -> None:
    silent = replace(STILL, throttling=None, throttle_counts=None, unknown=("power: Not Supported",))
    assert "nothing" in shown([condition([STILL, STILL])], {})
    text = shown([condition([silent, silent])], {}, ["NVIDIA GPUs: Driver Not Loaded"])
    assert "nothing" not in text and "unknown: fake: power: Not Supported" in text
    assert "unknown: NVIDIA GPUs: Driver Not Loaded" in text


def test_energies_are_shown_with_their_source_and_unknown_ones_as_unknown() -> None:
    text = shown([], {"int8": ENERGY, "fp32": None, "fp16": replace(ENERGY, samples=31, idle_w=None)})
    lines = {name: next(line for line in text.splitlines() if name in line) for name in ("int8", "fp32", "fp16")}
    assert "65.2" in lines["int8"] and "45.2" in lines["int8"] and "its counter" in lines["int8"]
    assert lines["fp32"].count("unknown") == 4 and " 0 " not in lines["fp32"]
    assert "31 samples of" in lines["fp16"] and lines["fp16"].count("unknown") == 1
    assert "1 sample of power" in " ".join(shown([], {"fp32": replace(ENERGY, samples=1)}).split())


def test_energy_that_nothing_told_is_unknown_and_no_table() -> None:
    text = shown([], {"fp32": None, "int8": None})
    assert "mJ" not in text and "unknown: energy, since no sensor here reads joules or watts" in text


def test_the_tables_fit_100_columns_and_only_words_fold(orin: FakeBoard) -> None:
    state = replace(orin.read(), throttling=("gpu-throttle-alert", "over-current"), temperature_c=100.5)
    long = "a-name-that-somebody-thought-was-a-good-idea-at-the-time, 2 threads, batch 8"
    text = shown([condition([state, state])], {long: replace(ENERGY, scope=state.scope, samples=120)}, ["x" * 150])
    assert max(map(len, text.splitlines())) <= 100 and "…" not in text


def test_everything_becomes_plain_data() -> None:
    content = asdict(condition([STILL, STILL]))
    assert content["after"]["throttle_counts"] == {"heat": 3} and content["noise"] == ()
    assert asdict(ENERGY)["joules_per_image_above_idle"] == 0.0452
