"""The report on a GPU: its steps, its budget of time, its tables and goals; and steps of it on the processor."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, RenderableType

from helpers.support import ROOT, TEST_IMAGES, save_checkpoint, small_spec
from s2mlp_bench.interleaved_timing import Record
from s2mlp_deploy.errors import RuntimeMissingError, UsageError
from s2mlp_deploy.system.progress import Listener
from s2mlp_studies import gpu_report
from s2mlp_studies.gpu import candidates, marked_tests, measure, parity, part, peaks, race, step, table
from s2mlp_studies.gpu.candidates import CONTENDERS, FUSED, HALF_IO, NO_GRAPH, OURS, OURS_FP32, PRODUCTS, Network
from s2mlp_studies.gpu.device import DEVICES, gpu_name
from s2mlp_studies.gpu.goals import gpu_goals
from s2mlp_studies.gpu.measure import Budget, Plan, Report
from s2mlp_studies.gpu.parity import Subject
from s2mlp_studies.gpu.race import Race
from s2mlp_studies.gpu.sheet import Row, Sheet, complete

CPU, CUDA = DEVICES["cpu"], DEVICES["cuda"]


def shown(tables: RenderableType) -> str:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(tables)
    return capture.get()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("gpu") / "small.pt", small_spec(channels=8))


# Rows and steps


def test_rows_are_there_as_soon_as_they_are_written_and_a_torn_one_is_left_out(tmp_path: Path) -> None:
    sheet = Sheet(tmp_path / "rows")
    assert list(sheet.read()) == []
    sheet.measure(("a",), lambda: {"x": 1.5})
    sheet.measure(("b",), lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    sheet.add(Row(("c", "d"), not_run="for a reason"))
    with (tmp_path / "rows").open("a") as file:
        file.write('{"about": ["e"], "fig')
    a, b, c = sheet.read()
    assert a == Row(("a",), {"x": 1.5}) and c == Row(("c", "d"), {}, "for a reason")
    assert b.not_run == "ZeroDivisionError: division by zero"


def test_each_planned_row_is_there_in_order_with_a_reason_where_it_is_missing() -> None:
    rows = iter([Row(("b",), {"x": 1}), Row(("more",), {"x": 2})])
    assert complete([("a",), ("b",)], rows, "why") == [
        Row(("a",), {}, "why"),
        Row(("b",), {"x": 1}),
        Row(("more",), {"x": 2}),
    ]


def test_a_step_that_does_not_end_is_stopped_with_all_that_it_started(tmp_path: Path) -> None:
    child = "import pathlib, time; time.sleep(2); pathlib.Path('late').touch()"
    code = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(60)"
    start = time.monotonic()
    ended = step.run([sys.executable, "-c", code], 0.7, tmp_path)
    assert ended.status is None and ended.reason == "the time for this step was over"
    time.sleep(max(0, start + 2.5 - time.monotonic()))
    assert list(tmp_path.iterdir()) == []


def test_a_step_that_dies_leaves_its_rows_and_its_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sheet = Sheet(tmp_path / "rows")
    sheet.add(Row(("a",), {"x": 1}))
    died = step.Ended(-11, "CUDA error 700")
    monkeypatch.setattr(step, "run", lambda command, seconds: died)
    rows = step.measure("race", ("cuda",), [("a",), ("b",)], tmp_path / "rows", 5)
    assert [row.not_run for row in rows] == [None, "the step ended with status -11: CUDA error 700"]


# Tests


def marked(tmp_path: Path, body: str) -> Row:
    (tmp_path / "tests").mkdir()
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu\n")
    (tmp_path / "tests" / "test_other.py").write_text("raise SystemExit('not collected')\n")
    (tmp_path / "tests" / "test_it.py").write_text(f"import pytest\npytestmark = pytest.mark.gpu\n{body}")
    return marked_tests.run_marked(tmp_path, 60)


def test_the_tests_of_a_gpu_are_counted_and_failures_named(tmp_path: Path) -> None:
    row = marked(
        tmp_path,
        "def test_good(): pass\ndef test_bad(): assert False\n@pytest.mark.skip(reason='no TensorRT')\ndef test_left(): pass\n",
    )
    assert row.figures == {"passed": 1, "failed": ["test_bad"], "skipped": {"no TensorRT": 1}, "stopped": None}


def test_where_all_are_skipped_they_were_not_run() -> None:
    skipped = [Row(("test", name), {"outcome": "skipped", "reason": "no GPU"}) for name in "ab"]
    assert marked_tests._row(skipped, step.Ended(0, "")) == Row(("tests",), {}, "2 skipped, no GPU")
    assert (
        marked_tests._row([], step.Ended(2, "no such option")).not_run == "the step ended with status 2: no such option"
    )


def test_tests_whose_process_dies_leave_those_that_ran(tmp_path: Path) -> None:
    row = marked(tmp_path, "import os\ndef test_good(): pass\ndef test_deadly(): os._exit(3)\ndef test_late(): pass\n")
    stopped = row.figures.pop("stopped")  # type: ignore[attr-defined]
    assert stopped.startswith("the step ended with status 3") and row.figures == {
        "passed": 1,
        "failed": [],
        "skipped": {},
    }


def test_a_machine_without_tests_is_told_where_they_are(tmp_path: Path) -> None:
    row = marked_tests.run_marked(tmp_path, 60)
    assert row.not_run and "run it in a clone" in row.not_run


# Parity


def test_a_lowering_is_held_to_the_tolerance_of_its_bundle(checkpoint: Path, tmp_path: Path) -> None:
    subject = Subject(checkpoint, TEST_IMAGES)
    found = parity.distance(CPU, ("parity", "cpu", "fp16", "slice"), subject, tmp_path)
    assert found["kept"] and 0 < found["relative_l2"] <= found["limit"]
    assert [path.name for path in tmp_path.iterdir()] == ["slice-onnx-fp16"]
    with pytest.raises(UsageError, match="--precision bf16"):
        parity.distance(CPU, ("parity", "cpu", "bf16", "slice"), subject, tmp_path)


def test_every_lowering_precision_and_runtime_of_a_gpu_is_planned() -> None:
    rows = parity.planned(CUDA)
    assert len(set(rows)) == len(rows) == 3 * 4 * 4 and ("parity", "trt-rtx", "bf16", "conv") in rows


def test_a_runtime_that_is_missing_is_told_before_anything_is_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity, "missing", lambda provider: f"no {provider} here")
    monkeypatch.setattr(sys, "argv", ["parity", str(tmp_path / "rows"), "9", "cuda", "none.pt", "nowhere"])
    monkeypatch.setattr(parity, "runtimes", lambda device: (device.provider,))
    parity.main()
    rows = list(Sheet(tmp_path / "rows").read())
    assert len(rows) == 16 and {row.not_run for row in rows} == {"no cuda here"}


# Peaks


def test_the_peaks_are_those_of_each_float_type_and_of_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(peaks.DEVICES, "cpu", replace(CPU, large=(8, 8, 8), copied_bytes=1000))
    monkeypatch.setattr(sys, "argv", ["peaks", str(tmp_path / "rows"), "9", "cpu"])
    peaks.main()
    rows = list(Sheet(tmp_path / "rows").read())
    assert [row.about for row in rows] == peaks.planned() and not any(row.not_run for row in rows)
    assert all(row.figures["operations_per_s"] > 0 for row in rows[:-1]) and rows[-1].figures["bytes_per_s"] > 0


# Race

KEPT = (OURS, OURS_FP32, NO_GRAPH, FUSED, HALF_IO, PRODUCTS, "torch-cudagraph", "trt-fp16")


@pytest.fixture(scope="module")
def raced(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """A race of two batches on the processor."""
    place = tmp_path_factory.mktemp("race")
    network = Network(CPU, checkpoint, place / "made", (1, 3))
    (place / "made").mkdir()
    with pytest.MonkeyPatch.context() as monkeypatch:
        kept = {name: CONTENDERS[name] for name in KEPT}
        monkeypatch.setattr(race, "CONTENDERS", {**kept, "torch-eager-fp16": replace(CONTENDERS[OURS], largest=1)})
        monkeypatch.setattr(race, "TIMING_SECONDS", 0)
        Race("small", network, Sheet(place / "rows"), time.monotonic() + 600, 6).run()
    return list(Sheet(place / "rows").read())


def test_candidates_are_timed_and_held_to_the_reference(raced: list[Row]) -> None:
    found = {row.about[2:]: row for row in raced if row.about[0] == "race"}
    for batch in ("1", "3"):
        for name in (OURS, OURS_FP32, NO_GRAPH, FUSED, HALF_IO):
            figures = found[batch, name].figures
            assert figures["p50_ms"] > 0 and 0 < figures["distance"] < 0.01 and len(figures["samples_ms"]) >= 6
        assert (
            found[batch, PRODUCTS].figures["distance"] is None and found[batch, PRODUCTS].figures["compute_p50_ms"] > 0
        )
        assert len(found[batch, NO_GRAPH].figures["compute_ms"]) == len(found[batch, NO_GRAPH].figures["samples_ms"])
    assert found["3", OURS].figures["operations"] == 3 * found["1", OURS].figures["operations"]


def test_candidates_that_do_not_run_here_have_their_reason(raced: list[Row]) -> None:
    found = {row.about[2:]: row.not_run for row in raced if row.about[0] == "race"}
    assert found["1", "trt-fp16"] == "engines of format trt are for GPUs"
    assert "add --provider cuda" in str(found["1", "torch-cudagraph"])
    assert found["1", "torch-eager-fp16"] is None and "up to 1 alone" in str(found["3", "torch-eager-fp16"])
    assert sum(row.about[0] == "condition" for row in raced) == 2


def test_the_work_of_a_run_is_counted_by_operator_once_all_is_timed(raced: list[Row]) -> None:
    work = {row.about[-1]: row.figures for row in raced if row.about[:3] == ("work", "small", "1")}
    assert [row.about[0] for row in raced[-len(work) :]] == ["work"] * len(work)
    assert work[PRODUCTS] == {"kernels": None, "operators": None} and OURS_FP32 in work
    ours, fused = (Counter(work[name]["operators"]) for name in (OURS, FUSED))
    assert ours["Gelu"] == 4 and fused["BiasGelu"] == 4 and fused["SkipLayerNormalization"] == 3
    assert work[HALF_IO]["kernels"] is None  # none are here


def test_a_bundle_for_which_there_was_no_time_says_so(checkpoint: Path, tmp_path: Path) -> None:
    network = Network(CPU, checkpoint, tmp_path, (1,), until=time.monotonic() - 1)
    assert network.bundles == ()
    with pytest.raises(RuntimeMissingError, match="no time left to export"):
        network.bundle(OURS)


def test_what_has_no_time_left_is_dropped_with_the_reason(checkpoint: Path, tmp_path: Path) -> None:
    network = Network(CPU, checkpoint, tmp_path, (1, 3))
    Race("small", network, Sheet(tmp_path / "rows"), time.monotonic(), 6).run()
    rows = list(Sheet(tmp_path / "rows").read())
    assert len(rows) == 2 * len(CONTENDERS) and all(row.not_run for row in rows)
    assert any("dropped: it takes about 5 s to load, and 0 s were left" in str(row.not_run) for row in rows)


class Slow:
    """A runner that takes so many seconds by a clock of its own."""

    def __init__(self, now: list[float], seconds: float) -> None:
        self._now, self._seconds, self.parts = now, seconds, list[Any]([1])

    def time_ms(self, clock: object) -> float:
        self._now[0] += self._seconds
        return self._seconds * 1e3


def test_the_slowest_are_dropped_until_the_rounds_fit(tmp_path: Path, checkpoint: Path) -> None:
    now = [0.0]
    network = Network(CPU, checkpoint, tmp_path, (1,))
    held = Race("small", network, Sheet(tmp_path / "rows"), 100, 6, clock=lambda: now[0])
    runners: Any = {"broken": Broken(), "fast": Slow(now, 0.1), "slow": Slow(now, 4), "slower": Slow(now, 5)}
    kept = held._that_fit(1, runners, 100)
    assert list(kept) == ["fast"] and runners["fast"].parts == []
    broken, *dropped = Sheet(tmp_path / "rows").read()
    assert broken.not_run == "ValueError: CUDA error 700" and [row.about[-1] for row in dropped] == ["slower", "slow"]


class Broken:
    """A runner that fails after some ``good`` runs."""

    def __init__(self, good: int = 0) -> None:
        self._left = good

    def time_ms(self, clock: object) -> float:
        self._left -= 1
        if self._left < 0:
            raise ValueError("CUDA error 700")
        return 5.0


def test_a_candidate_that_fails_while_it_is_timed_leaves_the_others_to_it() -> None:
    runner: Any = Broken(1)
    timed = race._Timed(runner)
    assert [timed(time.perf_counter) for _ in range(3)] == [5.0, 5.0, 5.0]
    with pytest.raises(ValueError, match="CUDA error 700"):
        race._figures(timed, "broken", Record({}, 0, True))


def test_all_candidates_have_a_reason_on_a_machine_without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "no_gpu", lambda: "no GPU for PyTorch")
    monkeypatch.setattr(parity, "missing", lambda provider: "no GPU for ONNX Runtime")
    monkeypatch.setattr(candidates, "runtime_obstacle", lambda device, runtime: f"no {runtime}")
    reasons = {name: candidates.obstacle(CUDA, name) for name in CONTENDERS}
    assert reasons["torch-compile-fp16"] == reasons[PRODUCTS] == "no GPU for PyTorch"
    assert reasons["trt-fp16"] == "no trt" and reasons[OURS] == reasons["naive-onnx-fp16"] == "no cuda"
    plan = Plan(CUDA, ("wide",), unwanted, part.SUBJECT, ROOT, batches=(1,))
    rows = measure._race(plan, "wide", "1", Path("nowhere"), lambda: 60)
    assert [row.about for row in rows] == race.planned("wide", (1,)) and all(row.not_run for row in rows)


def unwanted(name: str) -> Path:
    raise AssertionError("no checkpoint is needed where nothing runs")


# The whole report


def test_steps_have_shares_of_the_time_and_the_races_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now, given = [0.0], list[tuple[str, float]]()

    def run_marked(root: Path, seconds: float) -> Row:
        given.append(("tests", seconds))
        now[0] += 10
        return Row(("tests",), not_run="no tests")

    def run_step(module: str, arguments: object, planned: list[Any], sheet: Path, seconds: float) -> list[Row]:
        given.append((module, seconds))
        now[0] += 30
        return [Row(about, not_run="no time") for about in planned]

    monkeypatch.setattr(marked_tests, "run_marked", run_marked)
    monkeypatch.setattr(step, "measure", run_step)
    plan = Plan(CPU, ("wide", "deep"), lambda name: Path(name), part.SUBJECT, ROOT, seconds=200, batches=(1,))
    *_, found = measure.measure(plan, Listener(), lambda: now[0])
    assert given == [("tests", 40), ("parity", 50), ("peaks", 16), ("race", 65), ("race", 100)]
    assert found.seconds == 130 and len(found.of("race", "deep")) == len(CONTENDERS) and not found.figured
    assert Budget(10, lambda: now[0]).share(0.5) == 5


def synthetic(gpu: str = "NVIDIA H200, driver 580") -> Report:
    """All candidates of one model at batches 1 and 128, but for those without which goals are left out; parity of one runtime."""
    times = {
        OURS: 0.5,
        "torch-compile-fp16": 0.8,
        "torch-cudagraph-fp16": 0.7,
        OURS_FP32: 1.0,
        "torch-cudagraph": 1.25,
        NO_GRAPH: 1.5,
    }

    def figures(ms: float, precision: str) -> dict[str, Any]:
        samples = [ms] * 6
        return {
            "precision": precision,
            "remark": "runs without a CUDA graph" if ms == times[NO_GRAPH] else "",
            "distance": 3e-4,
            "operations": 500 * 10**9,
            "p50_ms": 2 * ms,
            "compute_p50_ms": ms,
            "samples_ms": [2 * ms] * 6,
            "compute_ms": samples,
        }

    def rows() -> Iterator[Row]:
        yield Row(("tests",), {"passed": 40, "failed": ["test_bad"], "skipped": {"no TensorRT": 10}, "stopped": "late"})
        for about in parity.planned(replace(CUDA, engines=("trt",))):
            if about[1:3] == ("cuda", "fp16"):
                kept = about[3] != "conv"
                yield Row(
                    about, {"limit": 4e-3, "kept": kept, **({"relative_l2": 3e-4} if kept else {"remark": "off"})}
                )
            else:
                yield Row(about, not_run=f"no {about[1]}")
        yield Row(("peak", "fp16"), {"operations_per_s": 2e15, "shape": [8, 8, 8]})
        yield Row(("peak", "copy"), {"bytes_per_s": 4e12})
        for batch in (1, 128):
            for name in CONTENDERS:
                precision = "fp32" if name in (OURS_FP32, "torch-cudagraph") else "fp16"
                about = ("race", "wide", str(batch), name)
                yield (
                    Row(about, figures(times[name], precision))
                    if name in times
                    else Row(about, not_run="dropped: late")
                )
        yield Row(("work", "wide", "1", FUSED), {"kernels": 116, "operators": {"Gemm": 108, "Cast": 1}})
        for batch in (1, 128):
            yield Row(("condition", "wide", str(batch)), {"devices": [CONDITION], "unknown": []})

    return Report("cuda", gpu, list(rows()), 300, 360)


CONDITION = {
    "after": {"device": "NVIDIA H200 (GPU 0)", "power_w": 612.4, "clock_mhz": 1980},
    "throttled": ["its power cap"],
}


def test_what_was_run_and_what_was_not_is_shown_with_reasons() -> None:
    text = shown(table.checks(synthetic()))
    assert "NVIDIA H200, driver 580; --device cuda; 300 of at most 360 s" in text
    assert (
        "40 passed, 1 failed, 10 skipped" in text
        and "the others did not run: late" in text
        and "failed: test_bad" in text
        and "10 skipped: no TensorRT" in text
    )
    assert text.count("3.0e-04") == 3 and text.count("WRONG") == 1
    assert text.count("not run (1)") == 3 * 4 and text.count("not run (2)") == 4 * 4
    assert "(1) no cuda" in text and "(2) no trt" in text
    assert "peak, fp16: 2,000 Top/s, 8 × 8 × 8" in text and "peak, copy: 4,000 GB/s" in text


def test_a_race_shows_its_share_of_the_peak_and_what_held_the_gpu_back() -> None:
    text = shown(table.race(synthetic(), "wide"))
    ours = next(line for line in text.splitlines() if line.startswith("│ onnx-fp16 "))
    cells = [cell.strip() for cell in ours.strip("│").split("│")]
    assert cells == [OURS, "0.500", "1.00", "2,000", "50%", "3.0e-04"]
    work = next(line for line in text.splitlines() if "108 Gemm" in line)
    assert [cell.strip() for cell in work.strip("│").split("│")] == [FUSED, "116", "109", "108 Gemm, 1 Cast"]
    assert "NVIDIA H200 (GPU 0): 612 W, clock 1980 MHz, held back by its power cap" in text
    assert text.index("batch 1 ") < text.index("batch 128") and "(1) dropped: late" in text
    assert text.count("onnx-fp16, no CUDA graph: runs without a CUDA graph") == 2


def test_the_goals_are_those_of_the_candidates_that_were_timed() -> None:
    goals = {goal.what: goal for goal in gpu_goals(synthetic(), "wide")}
    assert {what: goal.measured.median for what, goal in goals.items()} == pytest.approx(
        {
            "batch 1, fp16: best session / best PyTorch": 0.5 / 0.7,
            "batch 1, fp16: ms of the best session, H200": 0.5,
            "batch 1, fp32: onnx-fp32 / torch-cudagraph": 0.8,
            "batch 1: without CUDA graph / with": 3,
            "batch 128, fp16: best session / torch-compile": 0.5 / 0.8,
            "batch 128, fp16: share of the measured peak": 0.5,
        }
    )
    assert all(goal.holds for goal in goals.values())
    assert len(gpu_goals(synthetic("NVIDIA L4, driver 580"), "wide")) == 5
    assert gpu_goals(synthetic(), "deep") == []


def test_the_page_of_a_gpu_is_not_replaced_by_one_without_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports = iter(
        [synthetic(), Report("cuda", "no NVIDIA GPU", [Row(("tests",), not_run="none")], 1, 360), synthetic()]
    )
    monkeypatch.setattr(measure, "measure", lambda plan, listener: iter([next(reports)]))
    monkeypatch.setattr(gpu_report, "Console", lambda **options: Console(quiet=True))
    page = tmp_path / "benchmarks" / "gpu.md"
    for _ in range(2):
        gpu_report.report(json_file=tmp_path / "out" / "gpu.json", write=tmp_path)
        assert (
            "MISSED" not in page.read_text()
            and "| wide | batch 1: without CUDA graph / with | ≥ 2 | 3.000" in page.read_text()
        )
    assert json.loads((tmp_path / "out" / "gpu.json").read_text())["gpu"] == "no NVIDIA GPU"
    assert "(benchmarks/gpu.md)" in (tmp_path / "benchmarks.md").read_text()


def test_the_gpu_is_named_without_a_driver_too() -> None:
    assert gpu_name()
