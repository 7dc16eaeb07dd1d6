"""Export cost, latency, engines and goals of the presets, from made up measurements and small real ones."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from rich.console import Console

from helpers.studies import synthetic_benchmark
from helpers.support import ROOT, save_checkpoint, small_spec, v2_spec
from s2mlp_bench import environment
from s2mlp_bench.interleaved_timing import NOTHING, Schedule
from s2mlp_deploy.checkpoint.load import load_checkpoint
from s2mlp_deploy.graph.lowered import Lowered
from s2mlp_deploy.graph.spatial_shift import LOWERINGS
from s2mlp_deploy.system.dependencies import pip_install
from s2mlp_deploy.system.process_cost import ProcessCost
from s2mlp_deploy.system.progress import Listener
from s2mlp_deploy.system.timing import Estimate
from s2mlp_studies import conditions, models, random_weights
from s2mlp_studies.benchmark import on
from s2mlp_studies.engines import graphs as preset_graphs
from s2mlp_studies.engines.goals import engine_goals
from s2mlp_studies.engines.measure import EngineCost, Engines, Figures, measure_engines
from s2mlp_studies.engines.table import document as engine_document
from s2mlp_studies.engines.table import engine_table
from s2mlp_studies.export.goals import export_goals
from s2mlp_studies.export.measure import GATE, IMPORTS, NAIVE, NO_GATE, ExportCost
from s2mlp_studies.export.table import document as export_document
from s2mlp_studies.export.table import export_table
from s2mlp_studies.goal import Goal, goal_table
from s2mlp_studies.latency import measure as latency
from s2mlp_studies.latency.goals import latency_goals
from s2mlp_studies.latency.measure import Details, Latency, alone
from s2mlp_studies.latency.table import document as latency_document
from s2mlp_studies.latency.table import latency_tables
from s2mlp_studies.models import MODELS
from s2mlp_studies.part import NAMES, Finding, Part, Run, load
from s2mlp_studies.presets import pages
from s2mlp_studies.presets.study import Checkpoints, Study


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Lowered:
    """A graph of two blocks in float32, with a shift."""
    spec = small_spec()
    path = save_checkpoint(tmp_path_factory.mktemp("small") / "small.pt", spec)
    return preset_graphs.lower(load_checkpoint(path), LOWERINGS["gather"])


def python(code: str) -> subprocess.CompletedProcess[str]:
    """Run ``code`` where the studies can be imported, installed or not."""
    path = f"import sys; sys.path.insert(0, {str(ROOT / 'bench' / 'studies')!r})"
    return subprocess.run([sys.executable, "-c", f"{path}\n{code}"], capture_output=True, text=True, check=False)


def test_baselines_that_are_missing_are_left_out_and_told() -> None:
    """It is stopped where the measuring would begin."""
    stop = "import s2mlp_studies.random_weights; s2mlp_studies.random_weights.save_random = lambda *_: sys.exit('measuring')"
    code = f"import runpy, sys; from s2mlp_bench.baselines import registry; registry.find_spec = lambda name: name != 'openvino'; {stop}"
    start = "sys.argv[1:] = ['--only', 'latency']; runpy.run_module('s2mlp_studies.presets', run_name='__main__')"
    done = python(f"{code}\n{start}")
    assert "measuring" in done.stderr and "the baseline openvino-static is left out" in done.stderr
    assert pip_install("openvino") in done.stderr


@pytest.mark.thorough
def test_four_benchmarks_are_held_with_the_same_small_model(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "small.pt", small_spec(channels=16))
    runs = latency.Runs(["no-shift", "openvino-static"], Schedule(0, 6, 0), Listener())
    found = latency.measure_latency("small", path, tmp_path, runs, details=True)
    assert found.details is not None
    shown = {"small-onnx-fp32", "small-onnx-int8"}
    assert set(found.everything.result.samples_ms) == {
        *map(on, shown),
        *map(alone, shown),
        on("no-shift"),
        on("openvino-static"),
        NOTHING,
    }
    assert set(found.details.lowerings.result.samples_ms) == {*map(on, LOWERINGS), on("no-shift"), NOTHING}
    assert set(found.details.threads.result.samples_ms) == {*(on(name, n) for name in shown for n in (1, 2)), NOTHING}
    assert set(found.details.inputs.result.samples_ms) == {on("small-onnx-fp32"), on("uint8"), NOTHING}
    assert found.details.best_lowering in LOWERINGS
    assert found.everything.result.roofline is not None and len(found.everything.result.profiles) == 2
    assert found.everything.result.summary.figures[0].cold is not None


def test_all_lowerings_share_one_calibration_for_int8(small: Lowered, tmp_path: Path) -> None:
    source = load_checkpoint(save_checkpoint(tmp_path / "small.pt", small_spec()))
    ours, theirs = preset_graphs.ranges(small), preset_graphs.ranges(preset_graphs.lower(source, LOWERINGS["conv"]))
    assert ours.keys() == theirs.keys()
    for name, found in theirs.items():
        assert (found.low, found.high) == pytest.approx((ours[name].low, ours[name].high), rel=1e-4)


@pytest.mark.thorough
def test_every_lowering_in_every_precision_is_built_as_an_engine(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    path = save_checkpoint(tmp_path / "small.pt", small_spec())
    heard: list[str] = []
    built = measure_engines("small", path, tmp_path, repeats=1, announce=heard.append)
    assert built.model == "small" and built.runtime.startswith("TensorRT for RTX 1.")
    found = {(cost.lowering, cost.precision): cost for cost in built.costs}
    assert set(found) == {(lowering, kind) for lowering in LOWERINGS for kind in ("fp32", "fp16", "int8")}
    for cost in built.costs:
        assert len(cost.builds) == 1 and all(run.peak_rss_bytes > cost.weight_bytes for run in cost.builds)
        assert cost.figures.engine_bytes > cost.weight_bytes
        assert cost.figures.kernels > cost.figures.shift_kernels and cost.figures.moved_bytes > 0
        assert (cost.figures.shift_kernels == 0) == (cost.figures.shift_moved_bytes == 0)
    assert found["gather", "fp16"].weight_bytes < 0.6 * found["gather", "fp32"].weight_bytes
    assert "engine, conv in int8" in heard
    assert [p.name for p in tmp_path.iterdir()] == ["small.pt"]


def run_without_tensorrt_rtx(*arguments: str, before: str = "") -> subprocess.CompletedProcess[str]:
    code = f"import runpy, sys; sys.modules.update(tensorrt_rtx=None); sys.argv[1:] = {list(arguments)}; {before}"
    start = "runpy.run_module('s2mlp_studies.presets', run_name='__main__')"
    return python(f"{code}\n{start}")


def test_engines_alone_need_their_runtime() -> None:
    done = run_without_tensorrt_rtx("--only", "engines")
    assert done.returncode == 4 and done.stdout == ""
    assert pip_install("trt-rtx") in done.stderr and "Traceback" not in done.stderr


def test_a_full_run_leaves_engines_out_and_says_so_where_their_runtime_is_missing() -> None:
    """It is stopped where the measuring would begin."""
    stop = "import s2mlp_studies.random_weights; s2mlp_studies.random_weights.save_random = lambda *_: sys.exit('measuring')"
    done = run_without_tensorrt_rtx(before=stop)
    assert "the part engines is left out: " in done.stderr and "measuring" in done.stderr
    assert pip_install("trt-rtx") in " ".join(done.stderr.split())


def synthetic_cost() -> ExportCost:
    def runs(wall_s: float, peak_rss_bytes: int) -> tuple[ProcessCost, ...]:
        return tuple(ProcessCost(wall_s * slow, 2 * wall_s, peak_rss_bytes) for slow in (1, 3, 2))

    samples = {NO_GATE: runs(4, 700), GATE: runs(24, 1100), NAIVE: runs(24, 900), IMPORTS: runs(2, 300)}
    return ExportCost("wide", 200, samples)


def synthetic_latency() -> Latency:
    fp32, int8 = "deep-onnx-fp32", "deep-onnx-int8"
    everything = {
        on(fp32): 102.0,
        on(int8): 34.0,
        on(latency.NAIVE): 120.0,
        on(latency.OPENVINO_STATIC): 35.7,
        alone(fp32): 85.0,
        alone(int8): 25.0,
    }
    lowerings = {on("gather"): 102.0, on("slice"): 104.0, on(latency.NO_SHIFT): 100.0}
    threads = {on(fp32): 102.0, on(fp32, 2): 51.0, on(int8): 34.0, on(int8, 2): 20.0}
    inputs = {on(fp32): 100.0, on(latency.UINT8): 101.0}
    return Latency(
        "deep",
        fp32,
        int8,
        synthetic_benchmark(everything, [fp32, int8]),
        Details(
            synthetic_benchmark(lowerings, ["gather", "slice"]),
            synthetic_benchmark(threads, [fp32, int8]),
            synthetic_benchmark(inputs, [fp32, latency.UINT8]),
        ),
        environment.describe(),
    )


def synthetic_engines() -> Engines:
    def cost(lowering: str, precision: str, engine_bytes: int) -> EngineCost:
        builds = tuple(ProcessCost(wall_s, 2.5, 700_000_000) for wall_s in (3, 9, 4))
        return EngineCost(lowering, precision, 1_000_000, builds, Figures(engine_bytes, 88, 12, 5_000_000, 600_000))

    sizes = {"fp32": 1_010_000, "fp16": 1_100_000, "int8": 1_200_000}
    small = [cost("gather", kind, size) for kind, size in sizes.items()]
    return Engines("deep", "TensorRT for RTX 1.7", (*small, cost("conv", "fp16", 1_140_000)))


def test_the_largest_engine_of_each_precision_is_held_against_its_weights() -> None:
    goals = engine_goals(synthetic_engines())
    assert [goal.measured.median for goal in goals] == pytest.approx([1.01, 1.14, 1.2])
    assert [goal.holds for goal in goals] == [True, True, False]
    assert "conv" in goals[1].what and "gather" in goals[2].what


def test_the_table_of_engines_fits_and_shows_medians() -> None:
    console = Console(width=120)
    with console.capture() as capture:
        console.print(engine_table(synthetic_engines()), goal_table(engine_goals(synthetic_engines())))
    text = capture.get()
    assert "3 rounds" in text and "…" not in text and text.count("conv") == 2
    cells = ["conv", "fp16", "4.0", "2.5", "700", "1.1", "1.140", "88", "12", "5.0", "0.6"]
    (row,) = (line for line in text.splitlines() if line.startswith("│ conv"))
    assert row.replace("│", " ").split() == cells


def test_export_goals_are_held_against_the_right_ratios() -> None:
    goals = export_goals(synthetic_cost(), MODELS["wide"].promises)
    assert [goal.measured.median for goal in goals] == [6, 1, 2, 4]
    assert [goal.holds for goal in goals] == [True, True, True, False]


def test_a_model_is_held_to_its_own_promises() -> None:
    promises = MODELS["v2-small7"].promises
    (exported,) = export_goals(synthetic_cost(), promises)
    assert exported.at_least == 1 and exported.what == f"time of {NAIVE} / {GATE}"
    found = replace(synthetic_latency(), details=None)
    naive, int8 = latency_goals(found, promises)
    assert (naive.at_least, int8.at_least) == (2.5, 2.2) and not naive.holds and int8.holds
    assert list(found.benchmarks) == ["everything"]


def test_every_model_can_be_drawn_at_random() -> None:
    assert MODELS.keys() == random_weights.PRESETS.keys()


def test_random_weights_leave_the_split_attention_soft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random_weights, "PRESETS", {"tiny": v2_spec()})
    source = load_checkpoint(random_weights.save_random("tiny", tmp_path / "tiny.pt"), image_size=v2_spec().image_size)
    assert source.spec.parameter_shapes() == v2_spec().parameter_shapes()
    drawn = source.weights["stages.0.blocks.0.attention1.weight"].abs().max()
    assert 0 < drawn < 8**-0.5 / (3 * 6 * 10)  # PyTorch draws up to 1 / √c, for each of three parts and 60 positions


def test_latency_goals_are_held_against_the_best_lowering() -> None:
    goals = latency_goals(synthetic_latency(), MODELS["deep"].promises)
    assert [goal.measured.median for goal in goals[:4]] == pytest.approx([120 / 102, 3, 120 / 34, 1.02])
    assert [goal.holds for goal in goals[:4]] == [False, True, False, True]


def test_int8_is_held_against_openvino_its_own_products_and_the_gain_that_float32_has_of_a_second_thread() -> None:
    goals = latency_goals(synthetic_latency(), MODELS["deep"].promises)[4:]
    assert [goal.measured.median for goal in goals] == pytest.approx([1.05, 34 / 25, 1.01, (34 / 20) / (102 / 51)])
    limits = [(1.05, None), (None, 1.3), (None, 1.02), (1, None)]
    assert [(goal.at_least, goal.at_most) for goal in goals] == limits


def test_the_gains_of_a_second_thread_are_compared_round_by_round() -> None:
    found = synthetic_latency()
    assert found.details is not None
    samples = {
        on(found.fp32): (8.0, 80.0),
        on(found.fp32, 2): (4.0, 20.0),
        on(found.int8): (6.0, 6.0),
        on(found.int8, 2): (4.0, 2.0),
    }
    threads = found.details.threads
    timed = replace(threads, result=replace(threads.result, samples_ms=samples))
    gain = replace(found.details, threads=timed).second_thread_gain(found.int8, found.fp32)
    assert (gain.low, gain.median, gain.high) == (0.75, 0.75, 0.75)


def test_a_goal_without_a_number_does_not_hold() -> None:
    nothing = Estimate(float("nan"), float("nan"), float("nan"))
    assert not Goal("wide", "", nothing, at_most=3).holds
    assert not Goal("wide", "", nothing, at_least=3).holds


def test_a_goal_whose_limit_lies_inside_the_interval_is_unclear() -> None:
    assert not Goal("wide", "", Estimate(1.02, 1.0, 1.04), at_most=1.03).clear
    assert Goal("wide", "", Estimate(1.01, 1.0, 1.02), at_most=1.03).clear
    assert not Goal("wide", "", Estimate(5.5, 4.5, 6.0), at_least=5).clear


def test_the_tables_show_every_candidate_and_verdict() -> None:
    cost, measured = synthetic_cost(), synthetic_latency()
    goals = [*export_goals(cost, MODELS["wide"].promises), *latency_goals(measured, MODELS["deep"].promises)]
    console = Console(width=120)
    with console.capture() as capture:
        console.print(export_table(cost))
        console.print(latency_tables(measured))
        console.print(goal_table(goals))
    text = capture.get()
    assert all(name in text for name in (*cost.samples, "deep-onnx-int8", latency.NAIVE, "slice"))
    assert text.count("holds") == 7 and text.count("MISSED") == 5
    assert all(f"{ratio} [{ratio}, {ratio}]" in text for ratio in ("1.020", "1.360", "1.200", "1.700", "2.000"))


def test_the_documents_keep_raw_samples_with_their_units() -> None:
    exports, timed = export_document(synthetic_cost()), latency_document(synthetic_latency())
    assert exports["samples"][IMPORTS][0] == {"wall_s": 2, "cpu_s": 4, "peak_rss_bytes": 300}
    assert timed["lowerings"]["samples_ms"][on("gather")][:3] == [102.0, 153.0, 204.0]
    engines = json.loads(json.dumps(engine_document(synthetic_engines())))
    assert engines["runtime"] == "TensorRT for RTX 1.7"
    assert engines["engines"][0]["builds"][0] == {"wall_s": 3, "cpu_s": 2.5, "peak_rss_bytes": 700_000_000}
    assert engines["engines"][0]["figures"]["shift_moved_bytes"] == 600_000


def made_up(name: str, *findings: Finding) -> Part:
    """The part called ``name`` with these findings in place of measurements."""
    return replace(load(name), measure=lambda run: iter(findings))


def broken(run: Run) -> Iterator[Finding]:
    """A measurement that breaks off in its middle."""
    yield export_finding()
    raise RuntimeError("the disk is full")


def export_finding() -> Finding:
    cost = synthetic_cost()
    goals = export_goals(cost, MODELS["wide"].promises)
    return Finding("wide", "S²-MLP-wide", export_table(cost), export_document(cost), goals)


def engine_finding() -> Finding:
    built = synthetic_engines()
    return Finding("deep", "S²-MLP-deep", engine_table(built), engine_document(built), engine_goals(built))


def latency_finding() -> Finding:
    timed = synthetic_latency()
    goals = latency_goals(timed, MODELS["deep"].promises)
    return Finding("deep", "S²-MLP-deep", latency_tables(timed), {}, goals, lambda path: path.write_bytes(b"PNG"))


def study(docs: Path | None = None) -> Study:
    out = Console(width=120, file=io.StringIO())
    run = Run(list(MODELS.values()), 6, None, Listener(), Checkpoints(Path("nowhere")))
    return Study(run, out, docs, lambda: date(2026, 11, 28))


def test_the_page_of_a_part_shows_what_was_measured_and_why_goals_were_missed(tmp_path: Path) -> None:
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "export.md").write_text("what was there")
    study(tmp_path).measure_all([made_up("export", export_finding())])
    page = (tmp_path / "benchmarks" / "export.md").read_text("utf-8")
    assert page.startswith("# Export\n") and "what was there" not in page and "measured on 2026-11-28" in page
    assert "| wide | memory of s2mlp-export / checkpoint | ≤ 3 | 4.000 [4.000, 4.000] | MISSED |" in page
    assert "**wide, memory of s2mlp-export / checkpoint.** Not yet understood." in page
    assert page.count("| wide |") == 4 and page.count("MISSED") == 1 and "`make bench ONLY=export`" in page
    assert "## S²-MLP-wide" in page and "peak, MB" in page and "onnxruntime " in page and "\n\n\n" not in page


def test_known_reasons_and_pictures_stand_in_their_pages(tmp_path: Path) -> None:
    study(tmp_path).measure_all([made_up("latency", latency_finding()), made_up("engines", engine_finding())])
    latency_page = (tmp_path / "benchmarks" / "latency.md").read_text("utf-8")
    assert "**A second thread for int8.**" in latency_page and "](latency_deep.png)" in latency_page
    assert (tmp_path / "benchmarks" / "latency_deep.png").read_bytes() == b"PNG"
    engine_page = (tmp_path / "benchmarks" / "engines.md").read_text("utf-8")
    assert "70 kB a kernel" in engine_page and "TensorRT for RTX 1.7" in engine_page and "…" not in engine_page


def test_the_index_has_the_goals_of_all_pages_that_are_there(tmp_path: Path) -> None:
    study(tmp_path).measure_all([made_up("export", export_finding())])
    study(tmp_path).measure_all([made_up("engines", engine_finding())])
    index = (tmp_path / "benchmarks.md").read_text("utf-8")
    assert (
        index.count("](benchmarks/export.md) | wide |") == 4 and index.count("](benchmarks/engines.md) | deep |") == 3
    )
    rows = {line.split(" | ")[0].strip("| "): line for line in index.splitlines() if line.count(" | ") == 3}
    assert "not yet" in rows["scale"] and "2026-11-28" in rows["export"] and set(NAMES) < set(rows)


def test_a_part_that_breaks_off_keeps_its_old_page_and_the_others_follow(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study(tmp_path).measure_all([made_up("export", export_finding())])
    before = (tmp_path / "benchmarks" / "export.md").read_bytes()
    again = study(tmp_path)
    again.measure_all([replace(load("export"), measure=broken), made_up("engines", engine_finding())])
    assert again.failed == ["export"] and "the disk is full" in capsys.readouterr().err
    assert (tmp_path / "benchmarks" / "export.md").read_bytes() == before
    assert (tmp_path / "benchmarks" / "engines.md").exists() and list(again.document) == ["engines"]


def test_the_document_of_a_run_has_conditions_goals_and_findings() -> None:
    measured = study()
    measured.measure_all([made_up("export", export_finding())])
    document = json.loads(json.dumps(measured.document))["export"]
    assert [goal["holds"] for goal in document["goals"]] == [True, True, True, False]
    assert document["conditions"]["date"] == "2026-11-28" and document["findings"][0]["model"] == "wide"


@pytest.mark.parametrize("name", NAMES)
def test_every_part_has_a_page(name: str) -> None:
    part = load(name)
    record = {"date": "2026-11-28", "machine": "m", "versions": "v", "seconds": 3, "goals": []}
    sections = [{"model": "deep", "title": "S²-MLP-deep", "picture": None, "tables": "┏━┓"}]
    page = pages.render(part, record, [], sections)
    assert page.startswith(f"# {part.title}\n") and "┏━┓" in page and "\n\n\n" not in page
    assert part.name == name and page.endswith("\n") and not page.endswith("\n\n")


def test_models_name_parts_that_there_are() -> None:
    assert {part for model in models.MODELS.values() for part in model.parts} < set(NAMES)


def test_conditions_name_machine_versions_and_load() -> None:
    found = conditions.describe(date(2026, 11, 28))
    assert "cores" in found.machine and "load average" in found.machine and "onnxruntime " in found.versions


@pytest.mark.parametrize("arguments", [["--only", "exports"], ["--model", "narrow"]])
def test_an_unknown_part_or_model_is_refused_with_those_there_are(arguments: list[str]) -> None:
    start = (
        f"import runpy, sys; sys.argv[1:] = {arguments}; runpy.run_module('s2mlp_studies.presets', run_name='__main__')"
    )
    done = python(start)
    assert done.returncode == 2 and "expected one of" in " ".join(done.stderr.split())


def test_each_reason_is_given_once() -> None:
    missed = Goal("wide", "gain of a 2nd thread, int8 / fp32", Estimate(0.5, 0.4, 0.6), at_least=1)
    why = {"gain of a 2nd thread": "known"}
    assert pages.reasons([missed, replace(missed, model="deep")], why) == ["known"]
    assert pages.reasons([replace(missed, measured=Estimate(2, 1.5, 3))], why) == []


def test_the_command_can_explain_itself_without_torch_and_onnxruntime() -> None:
    hide = "sys.modules.update(torch=None, onnxruntime=None, onnxsim=None)"
    explain = "sys.argv = ['bench', '--help']; runpy.run_module('s2mlp_studies.presets', run_name='__main__')"
    assert python(f"import runpy, sys; {hide}; {explain}").returncode == 0
