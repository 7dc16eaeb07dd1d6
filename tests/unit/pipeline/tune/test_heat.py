"""Races of whole tunes by clocks and counters that the candidates move on: groups that fit into memory, energy, and two tunes that agree."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from helpers.support import save_checkpoint, small_spec
from s2mlp_deploy import OutputOptions, Source
from s2mlp_deploy.errors import RuntimeMissingError
from s2mlp_deploy.pipeline.tune import energy, heat
from s2mlp_deploy.pipeline.tune import tune as tuning
from s2mlp_deploy.pipeline.tune.candidates import Build, Candidate
from s2mlp_deploy.pipeline.tune.heat import COPIES, SESSION_BYTES, Heat, Rules, groups, run_in_groups
from s2mlp_deploy.pipeline.tune.race import Race
from s2mlp_deploy.pipeline.tune.request import Space, TuneRequest
from s2mlp_deploy.quantization.settings import Float32
from s2mlp_deploy.system.progress import Listener


class Machine:
    """A clock and a counter of joules, both moved on by candidates alone."""

    def __init__(
        self, milliseconds: Mapping[str, float], watts: Mapping[str, float] | None = None, seed: int = 0
    ) -> None:
        self.now = self.joules = 0.0
        self._ms, self._watts, self._rng = milliseconds, watts or {}, random.Random(seed)
        self.together: list[int] = []

    def clock(self) -> float:
        return self.now

    def call(self, name: str) -> Callable[[], None]:
        def run() -> None:
            seconds = self._ms[name] / 1e3 * (1 + 0.05 * self._rng.uniform(-1, 1))
            self.now += seconds
            self.joules += self._watts.get(name, 0.0) * seconds

        return run

    def heat(self, entered: Mapping[Candidate, Any], rules: Rules, listener: Listener) -> Heat:
        """A race in place of :func:`heat.run`."""
        self.together.append(len(entered))
        calls = {candidate.name: self.call(candidate.name) for candidate in entered}
        return Heat(Race(calls, rules.seconds, self.clock, sampling=rules.sampling).run(), {}, "nothing")


def entered(count: int, size_bytes: int) -> dict[Candidate, Any]:
    """Candidates of one size."""
    made = SimpleNamespace(bundle=SimpleNamespace(size_bytes=size_bytes))
    return {Candidate(Build(f"f{i}", Float32())): made for i in range(count)}


def test_groups_fit_into_memory_and_none_has_one_alone() -> None:
    size = 100 << 20
    needed = SESSION_BYTES + COPIES * size
    assert [len(part) for part in groups(entered(7, size), None)] == [7]
    assert [len(part) for part in groups(entered(7, size), 3 * needed)] == [3, 2, 2]  # and not 3, 3, 1
    assert [len(part) for part in groups(entered(6, size), 3 * needed)] == [3, 3]
    parts = groups(entered(7, size), 3 * needed)
    assert {one for part in parts for one in part} == set(entered(7, size))


def test_the_fastest_of_all_groups_wins_and_few_are_loaded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    every = entered(20, 0)
    machine = Machine({one.name: 10 + (i * 7) % 20 for i, one in enumerate(every)})
    monkeypatch.setattr(heat, "run", machine.heat)
    rules = Rules(1, 60.0, machine.clock)
    heats = run_in_groups(every, rules, Listener(), 6 * SESSION_BYTES)
    assert heats[-1].standing.fastest == "f0 fp32" and max(machine.together) <= 6
    assert len(heats) == len(machine.together) > 4
    whole = run_in_groups(every, rules, Listener(), None)
    assert len(whole) == 1 and whole[0].standing.fastest == heats[-1].standing.fastest


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("tuned") / "small.pt", small_spec(channels=16, depth=1))


NAMES = ("onnx fp32", "onnx fp32, 1 thread", "ort fp32", "ort fp32, 1 thread")


def request(checkpoint: Path, place: Path, **given: Any) -> TuneRequest:
    space = Space(("onnx", "ort"), ("fp32",), ("auto",))
    output = OutputOptions(place / "best", force=True)
    return TuneRequest(Source(checkpoint), space=space, output=output, keep=True, **given)


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)


def test_two_tunes_in_a_row_agree(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, two_cores: None
) -> None:
    """With noise that differs from tune to tune: among those less than 2% apart, the simplest; and the fastest beyond."""
    cases = (((10, 10.05, 10.1, 10.05), "onnx fp32"), ((10, 9.0, 10.1, 9.05), "onnx fp32, 1 thread"))
    for milliseconds, expected in cases:
        for seed in range(4):
            machine = Machine(dict(zip(NAMES, milliseconds, strict=True)), seed=seed)
            monkeypatch.setattr(heat, "run", machine.heat)
            found = tuning.tune(request(checkpoint, tmp_path), clock=machine.clock)
            assert found.report.taken == expected, seed


def test_the_least_energy_is_taken_though_it_takes_longer(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, two_cores: None
) -> None:
    machine = Machine(dict(zip(NAMES, (10, 15, 10, 15), strict=True)), dict(zip(NAMES, (40, 20, 41, 25), strict=True)))
    monkeypatch.setattr(heat, "run", machine.heat)
    wanted = request(checkpoint, tmp_path, objective="energy", budget_s=1e6)
    report = tuning.tune(wanted, clock=machine.clock, find_counter=lambda: lambda: machine.joules).report
    rows = {row.name: row for row in report.rows}
    assert report.taken == "onnx fp32, 1 thread" and "takes the least energy" in report.decision
    measured = {name: row.millijoules.median for name, row in rows.items() if row.millijoules}
    assert measured == pytest.approx(dict(zip(NAMES, (400, 300, 410, 375), strict=True)), rel=0.05)
    assert rows["onnx fp32"].outcome == "more energy" and "times the energy of" in rows["onnx fp32"].reason
    assert rows["onnx fp32"].milliseconds and rows["onnx fp32"].milliseconds.median == pytest.approx(10, rel=0.05)


def test_the_counter_is_the_sum_of_all_packages(tmp_path: Path) -> None:
    def zone(number: int, name: str, microjoules: int) -> Path:
        folder = tmp_path / "class" / "powercap" / f"intel-rapl:{number}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "name").write_text(f"{name}\n")
        (folder / "max_energy_range_uj").write_text("9000000\n")
        (folder / "energy_uj").write_text(f"{microjoules}\n")
        return folder

    with pytest.raises(RuntimeMissingError, match="--objective energy: the kernel shows no energy counter"):
        energy.counter(tmp_path)
    zone(0, "package-0", 8_000_000)
    zone(1, "psys", 5_000_000)
    zone(2, "package-1", 1_000_000)
    joules = energy.counter(tmp_path)
    assert joules() == 9.0
    zone(0, "package-0", 1_000_000)  # it was full, and began again
    assert joules() == 11.0
    (tmp_path / "class" / "powercap" / "intel-rapl:2" / "energy_uj").unlink()
    with pytest.raises(RuntimeMissingError, match=r"cannot be read \(No such file"):
        energy.counter(tmp_path)
