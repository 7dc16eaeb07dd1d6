"""Bundles against each other: fair rounds on a clock that is told the time, statistics whose truth is known, real bundles."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.support import Ran, command, run, save_checkpoint, small_spec
from s2mlp_bench import backends
from s2mlp_bench.backends import BundleBackend
from s2mlp_bench.baselines import registry
from s2mlp_bench.candidate import Candidate, Point
from s2mlp_bench.inputs import of_bundle
from s2mlp_bench.interleaved_timing import LONGEST_WARMUP, NOTHING, WINDOW, InterleavedTiming, Record, Schedule
from s2mlp_bench.roofline.lower_bound import block_macs
from s2mlp_bench.runner import Runner
from s2mlp_bench.summary import summarize
from s2mlp_deploy.bundle.read import read_bundle
from s2mlp_deploy.errors import ParityError, UsageError
from s2mlp_deploy.runtime.providers import PROVIDERS
from s2mlp_deploy.system.timing import Clock
from s2mlp_exporters.tensorrt.trt_rtx import TensorRtRtxEngine


class FakeClock:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``fp32``, ``fp16`` and ``ort`` of one checkpoint, and ``other`` of one with other classes."""
    directory = tmp_path_factory.mktemp("benchmark")
    checkpoint = save_checkpoint(directory / "small.pt", small_spec())
    for name, options in {"fp32": (), "fp16": ("--precision", "fp16"), "ort": ("--format", "ort")}.items():
        assert run("export", checkpoint, *options, "-o", directory / name).code == 0
    other = save_checkpoint(directory / "other.pt", small_spec(classes=5))
    assert run("export", other, "-o", directory / "other").code == 0
    return directory


def bench(*arguments: object) -> Ran:
    return command("s2mlp-bench", "s2mlp_bench.cli", "main", *arguments)


QUICK = ("--min-seconds", 0, "--min-rounds", 8, "--no-cold", "--no-bound")


# Rounds


def taking(clock: FakeClock, seconds: Callable[[], float], calls: list[str], name: str) -> Callable[[Clock], float]:
    def runner(_: Clock) -> float:
        calls.append(name)
        cost = seconds()
        clock.now += cost
        return cost * 1e3

    return runner


def timed_rounds(times: dict[str, Callable[[], float]], schedule: Schedule) -> tuple[Record, list[str], FakeClock]:
    clock, calls = FakeClock(), list[str]()
    runners = {name: taking(clock, seconds, calls, name) for name, seconds in times.items()}
    return InterleavedTiming(runners, schedule, clock).run(), calls, clock


def test_every_round_runs_each_entry_once_in_an_order_that_changes() -> None:
    times = {name: (lambda: 0.01) for name in "abcd"}
    record, calls, _ = timed_rounds(times, Schedule(seconds=0, rounds=20))
    rounds = [calls[i : i + 4] for i in range(0, len(calls), 4)]
    assert len(rounds) == record.warmup_rounds + 20
    assert all(sorted(order) == list("abcd") for order in rounds) and len({tuple(order) for order in rounds}) > 3
    assert (
        calls
        == timed_rounds(times, Schedule(seconds=0, rounds=20))[1]
        != timed_rounds(times, Schedule(seconds=0, rounds=20, seed=1))[1]
    )


@pytest.mark.parametrize(("seconds", "rounds", "expected"), [(0, 12, 12), (5, 12, 40), (0.3, 12, 12)])
def test_measuring_goes_on_until_both_time_and_rounds_are_reached(seconds: float, rounds: int, expected: int) -> None:
    record, _, _ = timed_rounds({"a": lambda: 0.0625, "b": lambda: 0.0625}, Schedule(seconds, rounds))
    assert len(record.samples_ms["a"]) == len(record.samples_ms["b"]) == expected and record.complete


def test_the_warm_up_ends_when_times_have_settled() -> None:
    cold = iter([1.0] * 7)
    record, _, _ = timed_rounds({"a": lambda: next(cold, 0.1)}, Schedule(0, 6))
    assert record.warmup_rounds == 7 + 2 * WINDOW - 2  # a window's median ignores two cold rounds of five
    assert set(record.samples_ms["a"]) == {100.0}


def test_times_that_never_settle_are_measured_all_the_same() -> None:
    growing = iter(1.3**i for i in range(1000))
    record, _, _ = timed_rounds({"a": lambda: next(growing)}, Schedule(0, 6))
    assert record.warmup_rounds == LONGEST_WARMUP and len(record.samples_ms["a"]) == 6


def test_an_interruption_keeps_whole_rounds_and_is_told() -> None:
    count = iter(range(1000))

    def interrupted() -> float:
        if next(count) == 2 * WINDOW + 4:
            raise KeyboardInterrupt
        return 0.1

    record, _, _ = timed_rounds({"a": lambda: 0.1, "b": interrupted, "c": lambda: 0.1}, Schedule(0, 20))
    assert not record.complete
    assert {len(samples) for samples in record.samples_ms.values()} == {4}


# Statistics


class Nowhere:
    """A way that leads nowhere."""

    modules: tuple[str, ...] = ()
    size_bytes = 1

    def open(self, point: Point) -> Any:
        raise AssertionError("nothing is run here")


class Timed:
    """Stands in for a loaded candidate whose samples are known."""

    def __init__(self, candidate: Candidate) -> None:
        self.candidate = candidate
        self.distance = 0.0
        self.parts: list[Any] = []


def candidate(name: str, *, batch: int = 1, **fields: Any) -> Candidate:
    return Candidate(name, fields.pop("kind", "bundle"), Nowhere(), Point(batch), "fp32", 1000, 1e-6, **fields)


def figures(samples: dict[str, Sequence[float]]) -> Any:
    record = Record({**{k: tuple(v) for k, v in samples.items()}, NOTHING: (0.001,)}, 10, True)
    return summarize([Timed(candidate(name)) for name in samples], record, {})  # type: ignore[misc]


def test_equal_entries_show_no_difference_in_19_runs_of_20() -> None:
    rng = np.random.default_rng(0)
    shown = 0
    for _ in range(300):
        samples = {name: list(10 * np.exp(0.05 * rng.standard_normal(30))) for name in "ab"}
        shown += figures(samples).figures[1].differs
    assert 3 <= shown <= 27


def test_an_entry_that_is_5_percent_slower_is_found() -> None:
    rng = np.random.default_rng(1)
    machine = 10 * np.exp(0.1 * rng.standard_normal(40))  # what neighbours do to everyone in a round
    samples = {n: list(cost * machine * np.exp(0.02 * rng.standard_normal(40))) for n, cost in (("a", 1), ("b", 1.05))}
    slower = figures(samples).figures[1]
    assert slower.differs and slower.speed.median == pytest.approx(1 / 1.05, rel=0.01)


def test_a_machine_that_slows_down_leaves_ratios_right_and_is_called_noisy() -> None:
    drift = np.linspace(1, 3, 40)
    found = figures({"a": list(10 * drift), "b": list(13 * drift)})
    assert found.figures[1].speed.median == pytest.approx(10 / 13)
    assert not found.stable and any("first half" in reason for reason in found.noise)


def test_a_fat_tail_is_in_the_99th_percentile_and_not_in_the_median() -> None:
    found = figures({"a": [10.0] * 980 + [100.0] * 20})
    (a,) = found.figures
    assert (a.p50_ms, a.p90_ms, a.p99_ms, a.minimum_ms) == (10.0, 10.0, 100.0, 10.0)
    assert a.mean_ms == pytest.approx(11.8) and a.images_per_s == pytest.approx(100) and found.stable


# Real bundles


def loaded(directory: Path, point: Point) -> Runner:
    bundle = read_bundle(directory)
    assert bundle.manifest.tolerance is not None
    limit = bundle.manifest.tolerance.relative_l2
    return Runner(
        Candidate(directory.name, "bundle", BundleBackend(bundle), point, "fp32", 1, limit), of_bundle(bundle)
    )


def test_every_answer_is_checked_while_the_clock_stands(place: Path) -> None:
    runner = loaded(place / "fp32", Point(batch=3))
    clock = FakeClock()
    assert [runner.time_ms(clock) for _ in range(20)] == [0.0] * 20
    assert runner.distance is not None and 0 < runner.distance < 1e-5
    answer = runner.session.run
    runner.session.run = lambda images: answer(images)[::-1]  # type: ignore[method-assign]
    with pytest.raises(ParityError, match="gave wrong logits while it was timed"):
        [runner.time_ms(clock) for _ in range(20)]


def test_golden_images_take_turns(place: Path) -> None:
    runner = loaded(place / "fp32", Point(batch=2))
    seen: list[bytes] = []
    answer = runner.session.run

    def watched(images: np.ndarray) -> np.ndarray:
        assert images.shape == (2, 3, 20, 28)
        seen.append(images.tobytes())
        return answer(images)

    runner.session.run = watched  # type: ignore[method-assign]
    for _ in range(26):
        runner.time_ms(FakeClock())
    assert len(set(seen)) == 13 and seen[:13] == seen[13:]


def test_the_tables_the_json_and_the_csv_tell_the_same(place: Path, tmp_path: Path) -> None:
    files = ("--json-file", tmp_path / "r.json", "--csv", tmp_path / "r.csv")
    ran = bench(place / "fp32", place / "ort", "--min-seconds", 0, "--min-rounds", 8, "--threads", "1,2", *files)
    assert ran.code == 0, ran.err
    document = json.loads((tmp_path / "r.json").read_text())
    names = [f"{bundle}, {n} thread{'s' if n > 1 else ''}" for bundle in ("fp32", "ort") for n in (1, 2)]
    found = document["summary"]
    assert [f["name"] for f in found["figures"]] == names and found["complete"] and found["rounds"] == 8
    bounds = {name.replace(",", ", products alone,", 1) for name in names}
    assert set(document["samples_ms"]) == {*names, *bounds, NOTHING}
    assert all(len(samples) == 8 for samples in document["samples_ms"].values())
    for f in found["figures"]:
        samples = document["samples_ms"][f["name"]]
        assert f["minimum_ms"] == min(samples) <= f["p50_ms"] <= f["p99_ms"]
        assert f["p50_ms"] == pytest.approx(np.median(samples))
        assert f["cold"]["load_ms"] > 0 and f["cold"]["first_ms"] > 0 and f["cold"]["peak_rss_bytes"] > 20e6
        threads = f["point"]["threads"]
        assert re.search(rf"│ {f['source']} +│ +{threads} │", ran.out)
        own, alone = samples, document["samples_ms"][f["name"].replace(",", ", products alone,", 1)]
        assert f["of_bound"]["median"] == pytest.approx(np.median(np.divide(alone, own)))
    assert document["environment"]["versions"]["onnxruntime"] and document["plan"]["threads"] == [1, 2]
    with (tmp_path / "r.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == names
    assert [row["threads"] for row in rows] == ["1", "2"] * 2
    assert [float(row["p50_ms"]) for row in rows] == [f["p50_ms"] for f in found["figures"]]


def test_no_bundle_is_above_the_peak_that_its_own_products_reached_in_the_same_run(place: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    assert run("export", place / "fp32", "--format", "openvino", "-o", tmp_path / "ov").code == 0
    quick = ("--min-seconds", 0, "--min-rounds", 8, "--no-cold", "--no-energy")
    ran = bench(place / "fp32", tmp_path / "ov", *quick, "--threads", 1, "--json-file", tmp_path / "r.json")
    assert ran.code == 0, ran.err
    document = json.loads((tmp_path / "r.json").read_text())
    (roof,) = document["roofline"]["roofs"]
    alone = document["samples_ms"]["fp32, products alone, 1 thread"]
    spec = read_bundle(place / "fp32").manifest.spec
    assert roof["operations_per_s"] >= 2 * block_macs(spec, Point()) / (min(alone) / 1e3) * (1 - 1e-9)
    assert roof["runtime"] in ("ONNX Runtime", "OpenVINO", "PyTorch") and roof["products"]
    dots = [dot for dot in document["roofline"]["dots"] if dot["kind"] == "candidate"]
    assert [dot["name"] for dot in dots] == ["fp32, 1 thread", "ov, 1 thread"]
    assert all(dot["operations_per_s"] < roof["operations_per_s"] for dot in dots)
    assert f"{roof['runtime']}" in ran.out and "More than 100%" not in ran.out


def test_an_engine_has_the_accuracy_of_the_bundle_that_it_was_built_from(place: Path, tmp_path: Path) -> None:
    source = tmp_path / "labelled"
    shutil.copytree(place / "fp32", source)
    report = json.loads((source / "report.json").read_text())
    (source / "report.json").write_text(json.dumps({**report, "images": {"accuracy": 0.875}}))
    assert run("export", source, "--format", "ort", "-o", tmp_path / "engine").code == 0
    built_from = json.loads((tmp_path / "engine" / "report.json").read_text())["built_from"]
    digest = json.loads((source / "manifest.json").read_text())["files"]["model.onnx"]
    assert built_from == {"sha256": digest, "images": {"accuracy": 0.875}}
    shutil.rmtree(source)
    ran = bench(tmp_path / "engine", place / "ort", *QUICK, "--csv", tmp_path / "r.csv")
    assert ran.code == 0, ran.err
    with (tmp_path / "r.csv").open() as file:
        assert [row["accuracy"] for row in csv.DictReader(file)] == ["0.875", ""]
    assert "Accuracy of engine: that of the ONNX bundle that it was built from." in ran.out and "87.5%" in ran.out


def test_strict_exits_as_the_verdict_says(place: Path, tmp_path: Path) -> None:
    ran = bench(place / "fp32", *QUICK, "--strict", "--json-file", tmp_path / "r.json")
    noise = json.loads((tmp_path / "r.json").read_text())["summary"]["noise"]
    assert ran.code == (1 if noise else 0)
    assert ("NOISY" in ran.out) == bool(noise)


def test_json_is_the_document_that_a_file_gets_and_nothing_else(place: Path, tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    ran = bench(place / "fp32", *QUICK, "--json", "--json-file", file)
    assert ran.code == 0, ran.err
    assert ran.json == {**json.loads(file.read_text()), "comparison": None}
    again = bench(place / "fp32", *QUICK, "--json", "--compare", file)
    assert again.json["comparison"]["changes"][0]["name"] == "fp32"
    assert again.code == (1 if again.json["comparison"]["slower"] else 0)
    refused = bench(tmp_path / "nowhere", "--json")
    assert refused.code == refused.json["error"]["exit_code"] == 3 and refused.json["error"]["kind"] == "BundleError"


def test_help_lists_what_can_be_chosen_in_80_columns() -> None:
    ran = bench("-h")
    text = " ".join(ran.out.split())
    assert ran == bench("--help") and max(map(len, ran.out.splitlines())) <= 80
    assert "rounds, 6 or more" in text and "--json-file FILE" in text and "--version" in text
    assert f"One of {', '.join(registry.BASELINES)}." in text and f"Some of {', '.join(PROVIDERS)}." in text


def test_batches_are_entries_of_their_own(place: Path) -> None:
    ran = bench(place / "fp32", *QUICK, "--batch", "1,4")
    assert ran.code == 0 and re.search(r"│ fp32 +│ +1 │", ran.out) and re.search(r"│ fp32 +│ +4 │", ran.out)


# Bad input


def refused(code: int, *arguments: object) -> str:
    ran = bench(*arguments)
    assert (ran.code, ran.out) == (code, ""), (ran.code, ran.out, ran.err)
    return ran.err.splitlines()[-1]


def test_bundles_that_have_different_inputs_are_not_compared(place: Path) -> None:
    assert "number of classes" in refused(2, place / "fp32", place / "other", *QUICK)


def test_a_bundle_with_a_changed_byte_is_not_timed(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "fp32", tmp_path / "changed")
    content = bytearray((tmp_path / "changed" / "model.onnx").read_bytes())
    content[1000] ^= 1
    (tmp_path / "changed" / "model.onnx").write_bytes(content)
    assert "SHA-256" in refused(3, place / "fp32", tmp_path / "changed", *QUICK)


def test_a_bundle_that_was_never_judged_is_not_timed(place: Path, tmp_path: Path) -> None:
    assert run("export", place / "small.pt", "--no-gate", "-o", tmp_path / "unjudged").code == 0
    assert "no golden tensors" in refused(3, tmp_path / "unjudged", *QUICK)


def test_a_fixed_batch_is_not_timed_with_another(place: Path, tmp_path: Path) -> None:
    assert run("export", place / "small.pt", "--batch", 2, "-o", tmp_path / "two").code == 0
    assert "batches of 2 alone" in refused(2, tmp_path / "two", *QUICK)
    assert bench(tmp_path / "two", *QUICK, "--batch", 2).code == 0


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--min-rounds", 5], "'--min-rounds'"),
        (["--threads", "0"], "--threads '0'"),
        (["--threads", "one"], "--threads 'one'"),
        (["--batch", "1,,2"], "--batch '1,,2'"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else None,
)
def test_numbers_that_are_none_are_refused(place: Path, options: list[object], named: str) -> None:
    assert named in refused(2, place / "fp32", *options)


def test_one_bundle_twice_is_refused(place: Path) -> None:
    assert "given twice" in refused(2, place / "fp32", place / "fp32", *QUICK)


def test_files_that_are_there_are_not_replaced_unless_asked(place: Path, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text("mine")
    assert "--force" in refused(3, place / "fp32", *QUICK, "--json-file", tmp_path / "r.json")
    assert (tmp_path / "r.json").read_text() == "mine"
    assert bench(place / "fp32", *QUICK, "--json-file", tmp_path / "r.json", "--force").code == 0
    assert json.loads((tmp_path / "r.json").read_text())["summary"]
    assert "not a directory" in refused(3, place / "fp32", *QUICK, "--csv", tmp_path / "nowhere" / "r.csv")


def test_without_bundles_it_says_what_it_needs() -> None:
    assert bench().code == 2


def test_engines_without_threads_refuse_the_option(place: Path) -> None:
    bundle = read_bundle(place / "fp32")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backends.registry, "find", lambda name: TensorRtRtxEngine())
        with pytest.raises(UsageError, match="have no threads to set"):
            BundleBackend(bundle).open(Point(threads=2))
        with pytest.raises(UsageError, match="run on what they were made for"):
            BundleBackend(bundle).open(Point(provider="cuda"))


def test_a_bundle_that_fails_its_check_here_is_not_timed(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "fp16", tmp_path / "strict")
    manifest = json.loads((tmp_path / "strict" / "manifest.json").read_text())
    manifest["tolerance"]["relative_l2"] = 1e-9
    (tmp_path / "strict" / "manifest.json").write_text(json.dumps(manifest))
    assert "does not compute what it should" in refused(1, tmp_path / "strict", *QUICK)


def test_an_interruption_before_the_first_round_shows_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(InterleavedTiming, "run", lambda self: Record(dict.fromkeys(self.runners, ()), 0, False))
    assert "interrupted" in refused(130, place / "fp32", *QUICK)


# What artifacts take and give


def test_bundles_that_take_bytes_or_give_no_logits_are_checked_in_their_own_terms(place: Path, tmp_path: Path) -> None:
    kinds = {
        "bytes": ("--input", "uint8"),
        "top5": ("--answer", "top5"),
        "image": ("--input", "image", "--answer", "probabilities"),
    }
    for name, options in kinds.items():
        assert run("export", place / "small.pt", *options, "-o", tmp_path / name).code == 0
    bundles = [tmp_path / name for name in kinds]
    ran = bench(place / "fp32", *bundles, *QUICK[:-2], "--threads", 1, "--json-file", tmp_path / "r.json")
    assert ran.code == 0, ran.err
    figures = {f["source"]: f for f in json.loads((tmp_path / "r.json").read_text())["summary"]["figures"]}
    assert set(figures) == {"fp32", *kinds}
    for name, options in kinds.items():
        found = figures[name]
        # Of probabilities, what rounding alone explains counts as no distance at all.
        assert 0 <= found["distance"] < 1e-4 and (found["distance"] > 0 or "--answer" in options)
        assert found["cold"]["load_ms"] > 0 and found["of_bound"]["median"] > 0


def test_what_cannot_be_asked_for_is_told_in_one_paragraph_from_the_cold_start_on(place: Path, tmp_path: Path) -> None:
    assert run("export", place / "small.pt", "--batch", 1, "-o", tmp_path / "one").code == 0
    ran = bench(tmp_path / "one", "--batch", 2, *(option for option in QUICK if option != "--no-cold"))
    assert (ran.code, ran.out) == (2, "") and "takes batches of 1 alone" in ran.err and "Traceback" not in ran.err


# Scenarios


def test_loadgen_drives_each_bundle_and_its_verdict_decides(place: Path, tmp_path: Path) -> None:
    pytest.importorskip("mlperf_loadgen")
    options = ("--scenario", "singlestream", "--scenario-seconds", 0.2, "--scenario-queries", 100)
    ran = bench(place / "fp32", place / "ort", *options, "--json-file", tmp_path / "r.json")
    outcomes = json.loads((tmp_path / "r.json").read_text())["outcomes"]
    assert [o["name"] for o in outcomes] == ["fp32", "ort"]
    assert ran.code == (0 if all(o["valid"] for o in outcomes) else 1)
    assert not any(o["conforming"] for o in outcomes) and ran.out.count("NOT CONFORMING") == 2
    hopeless = ("--scenario", "server", "--scenario-seconds", 0.2, "--target-qps", 1e6)
    ran = bench(place / "fp32", *hopeless)
    assert ran.code == 1 and "INVALID" in ran.out


def test_a_fixed_batch_is_filled_up_for_loadgen(place: Path, tmp_path: Path) -> None:
    pytest.importorskip("mlperf_loadgen")
    assert run("export", place / "small.pt", "--batch", 2, "-o", tmp_path / "two").code == 0
    options = ("--scenario", "offline", "--scenario-seconds", 0.1, "--scenario-queries", 51, "--batch", 2)
    ran = bench(tmp_path / "two", *options, "--json-file", tmp_path / "r.json")
    (outcome,) = json.loads((tmp_path / "r.json").read_text())["outcomes"]
    assert outcome["samples"] >= 51 and outcome["batch"] == 2 and outcome["relative_l2"] < 1e-5
    assert ran.code == (0 if outcome["valid"] else 1)  # LoadGen's verdict depends on how busy the machine is


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--target-qps", 3], "--target-qps: only with --scenario"),
        (["--scenario-seconds", 3], "--scenario-seconds: only with --scenario"),
        (["--scenario", "server"], "say which rate"),
        (
            ["--scenario", "offline", "--baseline", "mixer", "--strict"],
            "--baseline, --strict: these belong to interleaved timing",
        ),
        (["--scenario", "offline", "--min-rounds", 31], "--min-rounds: these belong to interleaved timing"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else None,
)
def test_terms_that_do_not_fit_are_refused(place: Path, options: list[object], named: str) -> None:
    assert named in refused(2, place / "fp32", *options)


# Devices


def test_devices_are_watched_from_the_first_round_that_counts_and_their_energy_is_told(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from contextlib import contextmanager

    from s2mlp_bench.energy.device import State
    from s2mlp_bench.energy.sensors import Sensors

    class Fake:
        name, kind, lag_s = "board", "board", 0.0

        def __init__(self) -> None:
            self.joules, self.reads = 0.0, 0

        def read(self) -> State:
            self.joules += 3.0
            self.reads += 1
            return State("a board", "all of it", energy_j=self.joules, throttling=("heat",), busy=True)

        def close(self) -> None:
            pass

    fake = Fake()

    @contextmanager
    def here() -> Any:
        yield Sensors((fake,), ("something else",))  # type: ignore[arg-type]

    from s2mlp_bench import benchmark

    monkeypatch.setattr(benchmark, "open_sensors", here)
    monkeypatch.setattr(benchmark, "ENERGY_SECONDS", 0.05)
    ran = bench(place / "fp32", *QUICK, "--json-file", tmp_path / "r.json")
    assert ran.code == 0, ran.err
    document = json.loads((tmp_path / "r.json").read_text())
    (condition,) = document["devices"]["conditions"]
    assert condition["throttled"] == ["heat"] and "a board: held back by heat" in document["summary"]["noise"]
    assert document["devices"]["energies"]["fp32"]["joules_per_image"] > 0
    assert document["devices"]["unknown"] == ["something else"] and "a board" in ran.out and "NOISY" in ran.out
