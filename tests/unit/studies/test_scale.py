"""How latency and memory grow: fits whose truth is known, rounds on a clock that is told the time, real runs, refusals."""

from __future__ import annotations

import errno
import io
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from rich.console import Console

from helpers.support import Ran, command, pyramid_spec, save_checkpoint, small_spec
from s2mlp_bench import graphs
from s2mlp_bench.baselines import mixer
from s2mlp_bench.baselines.noshift import NoShift
from s2mlp_deploy.families.s2mlp.spec import PRESETS, S2MLPSpec, Stage
from s2mlp_deploy.graph.lowered import Axes
from s2mlp_deploy.schema.size import Size
from s2mlp_deploy.schema.spec import Embedding
from s2mlp_deploy.system import memory
from s2mlp_deploy.system.progress import Listener
from s2mlp_studies.scale import costs, footprint, growth, measure, plot, table
from s2mlp_studies.scale.footprint import Footprint
from s2mlp_studies.scale.measure import WARMUP, take_rounds
from s2mlp_studies.scale.scaling import (
    LONG_MS,
    MIXER,
    OVER,
    S2MLP,
    Plan,
    Point,
    Scaling,
    Setting,
    default_sizes,
    shortened,
)

POSITIONS = [196, 400, 784, 1600, 3136]
QUICK = ("--batch", 1, "--depth", "1", "--rounds", 6, "--min-seconds", 0)


def scale(*arguments: object) -> Ran:
    return command("s2mlp_studies.scale", "s2mlp_studies.scale.__main__", "main", *arguments)


# Fits


def rounds_of(rng: np.random.Generator, exponent: float, *, rounds: int, noise: float, shared: float) -> np.ndarray:
    """Samples (points, rounds) of 0.1 · M^exponent with noise of their own, and with what a whole round had in common."""
    truth = 0.1 * np.array(POSITIONS)[:, None] ** exponent
    own, common = rng.standard_normal((len(POSITIONS), rounds)), rng.standard_normal(rounds)
    return np.asarray(truth * np.exp(noise * own + shared * common))


@pytest.mark.parametrize(("noise", "shared"), [(0.05, 0.0), (0.03, 0.1)], ids=["own noise", "noisy rounds"])
@pytest.mark.parametrize("rounds", [6, 15])
def test_the_interval_of_rounds_covers_the_true_exponent_as_often_as_it_says(
    rounds: int, noise: float, shared: float
) -> None:
    rng = np.random.default_rng(0)
    found = [
        growth.of_rounds(POSITIONS, rounds_of(rng, 1.05, rounds=rounds, noise=noise, shared=shared).tolist())
        for _ in range(300)
    ]
    covered = [g.low <= 1.05 <= g.high for g in found if g and g.low is not None and g.high is not None]
    assert len(covered) == 300 and 0.90 <= np.mean(covered) <= 0.995
    assert np.mean([g.exponent for g in found if g]) == pytest.approx(1.05, abs=0.003)


@pytest.mark.parametrize("points", [3, 5, 8])
def test_the_interval_of_a_regression_covers_the_true_exponent_as_often_as_it_says(points: int) -> None:
    rng = np.random.default_rng(1)
    x = 100.0 * 2.0 ** np.arange(points)
    covered = []
    for _ in range(1000):
        g = growth.of_values(list(x), list(3 * x**0.4 * np.exp(0.05 * rng.standard_normal(points))))
        assert g and g.low is not None and g.high is not None
        covered.append(g.low <= 0.4 <= g.high)
    assert 0.93 < np.mean(covered) < 0.97


def test_linear_and_quadratic_growth_are_told_apart() -> None:
    rng = np.random.default_rng(2)
    for exponent, other in ((1.0, 2.0), (2.0, 1.0)):
        g = growth.of_rounds(POSITIONS, rounds_of(rng, exponent, rounds=8, noise=0.1, shared=0.3).tolist())
        assert g and g.low is not None and g.high is not None
        assert g.low <= exponent <= g.high and not g.low <= other <= g.high


def test_what_slows_whole_rounds_down_leaves_the_exponent_alone() -> None:
    """Half of the rounds are three times as slow. Drawn for each point by itself they would make the interval wide."""
    samples = np.array(POSITIONS)[:, None] ** 1.1 * np.array([1, 3, 1, 3, 1, 3, 1])
    g = growth.of_rounds(POSITIONS, samples.tolist())
    assert g and (g.exponent, g.low, g.high) == pytest.approx((1.1, 1.1, 1.1))


def test_a_line_that_fits_has_no_misfit_and_its_factor() -> None:
    g = growth.of_values(POSITIONS, [0.5 * x**1.5 for x in POSITIONS])
    assert g and (g.exponent, g.low, g.high, g.factor) == pytest.approx((1.5, 1.5, 1.5, 0.5))
    assert g.misfit < 1e-12


def test_what_is_no_power_law_says_how_far_it_is_off() -> None:
    g = growth.of_counts([1, 10, 100], [101, 110, 200])  # 100 + x
    assert g and 0.1 < g.misfit < 0.3 and (g.low, g.high) == (None, None)


def test_what_cannot_be_known_is_unknown() -> None:
    assert growth.of_rounds([4, 4], [[1.0] * 6, [2.0] * 6]) is None
    assert growth.of_values([5], [1.0]) is None
    assert growth.of_values([1, 2, 3], [0, 1, 2]) is None and growth.of_counts([1, 2], [0, 1]) is None
    two = growth.of_values([1, 2], [3, 6])
    assert two and two.exponent == pytest.approx(1) and (two.low, two.high) == (None, None)


# What to measure


def test_every_setting_departs_from_the_base_in_one_thing() -> None:
    plan = Plan(((40, 20), (20, 28)), (4, 1), (Fraction(1), Fraction(1, 4)))
    assert plan.base == Setting((20, 28), 1, Fraction(1))
    assert len(plan.settings) == 4 and plan.settings[0] == plan.base
    for setting in plan.settings[1:]:
        assert sum(a != b for a, b in zip(vars(setting).values(), vars(plan.base).values(), strict=True)) == 1
    assert [s.size for s in plan.sweep("image size")] == [(20, 28), (40, 20)]
    assert [s.depth for s in plan.sweep("depth")] == [Fraction(1, 4), Fraction(1)]


def test_sizes_grow_twofold_in_whole_patches_from_the_models_own() -> None:
    assert [h for h, _ in default_sizes(PRESETS["deep"])] == [224, 320, 448, 640, 896]
    assert default_sizes(small_spec()) == ((20, 28), (28, 40), (40, 56), (56, 80), (80, 112))
    assert (
        len(set(default_sizes(small_spec(image_size=(4, 4))))) == len(default_sizes(small_spec(image_size=(4, 4)))) >= 3
    )
    for size in default_sizes(pyramid_spec()):
        pyramid_spec().map_sizes(size)


def test_fewer_blocks_are_the_first_of_each_stage() -> None:
    assert shortened(PRESETS["deep"], Fraction(1, 4)).depth == 9
    assert [stage.depth for stage in shortened(pyramid_spec(), Fraction(1, 2)).stages] == [1, 1, 0]
    assert shortened(pyramid_spec(), Fraction(1)) == pyramid_spec()


# Costs


def test_the_papers_models_cost_what_the_paper_reports() -> None:
    for name, row in costs.presets().items():
        assert round(row.s2mlp.macs, -8) == costs.PAPER[name].macs
        assert row.s2mlp.parameters == pytest.approx(costs.PAPER[name].parameters, rel=0.06)


def test_the_image_size_changes_an_s2mlps_work_and_not_its_weights() -> None:
    rows = costs.at_sizes(PRESETS["wide"], [(224, 224), (448, 896)])
    assert rows[0].s2mlp.parameters == rows[1].s2mlp.parameters
    assert rows[0].mixer and rows[1].mixer and rows[1].mixer.parameters > rows[0].mixer.parameters
    head = 768 * 1000
    assert (rows[1].s2mlp.macs - head) == 8 * (rows[0].s2mlp.macs - head)
    assert (rows[1].mixer.macs - head) == 8 * (rows[0].mixer.macs - head)


def test_patches_half_as_high_and_wide_make_four_times_the_positions() -> None:
    rows = costs.at_patches(PRESETS["deep"])
    assert [(row.patch, row.positions) for row in rows] == [((32, 32), 49), ((16, 16), 196), ((8, 8), 784)]
    assert rows[1] == costs.compared(PRESETS["deep"], (224, 224))
    assert [row.s2mlp.parameters - rows[1].s2mlp.parameters for row in rows] == [
        384 * 3 * (n * n - 256) for n in (32, 16, 8)
    ]


def test_patches_that_do_not_fill_the_image_or_do_not_lie_side_by_side_are_left_out() -> None:
    assert [row.patch for row in costs.at_patches(small_spec())] == [(4, 4), (2, 2)]  # 20x28 and 8x8 do not fit
    assert [row.patch for row in costs.at_patches(small_spec(patch=1, image_size=(3, 5)))] == [(1, 1)]
    first, *others = pyramid_spec().stages
    overlapping = replace(first.embedding, kernel=(7, 7), padding=(3, 3))
    assert costs.at_patches(replace(pyramid_spec(), stages=(replace(first, embedding=overlapping), *others))) == ()


# Rounds


class FakeClock:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def timed(times: dict[str, Callable[[], float]], plan: Plan) -> tuple[dict[str, tuple[float, ...]], list[str]]:
    clock, order = FakeClock(), list[str]()

    def call(name: str) -> Callable[[], float]:
        def candidate() -> float:
            order.append(name)
            milliseconds = times[name]()
            clock.now += milliseconds / 1e3
            return milliseconds

        return candidate

    keys = {name: (name, plan.base) for name in times}
    samples = take_rounds({key: call(name) for name, key in keys.items()}, plan, Listener(), clock)
    return {name: samples[key] for name, key in keys.items()}, order


def test_short_points_run_twice_in_their_turn_and_the_second_counts() -> None:
    turn = iter(range(1000))
    times = {"short": lambda: 100.0 if next(turn) % 2 else 90.0, "long": lambda: LONG_MS + 1}
    samples, order = timed(times, Plan(((20, 28),), rounds=7))
    assert set(samples["short"]) == {100.0} and set(samples["long"]) == {LONG_MS + 1}
    assert Counter(order) == {"short": WARMUP + 2 * 7, "long": WARMUP + 7}


@pytest.mark.parametrize(("seconds", "expected"), [(0.0, 6), (5.0, 20)])
def test_measuring_goes_on_until_both_rounds_and_time_are_reached(seconds: float, expected: int) -> None:
    samples, _ = timed({"a": lambda: 62.5, "b": lambda: 62.5}, Plan(((20, 28),), rounds=6, min_seconds=seconds))
    assert {len(values) for values in samples.values()} == {expected}


def test_the_order_changes_from_round_to_round_and_the_seed_fixes_it() -> None:
    times = {name: (lambda: 600.0) for name in "abcd"}
    plan = Plan(((20, 28),), rounds=12)
    _, order = timed(times, plan)
    assert len({tuple(order[i : i + 4]) for i in range(0, len(order), 4)}) > 3
    assert order == timed(times, plan)[1] != timed(times, replace(plan, seed=1))[1]


# Memory


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = small_spec(channels=64)
    return graphs.write(mixer.lower(spec, Axes(None, (20, 28))), tmp_path_factory.mktemp("graph") / "mixer")


def test_a_larger_batch_takes_more_memory_to_run(graph: Path, tmp_path: Path) -> None:
    small, large = (footprint.take(graph, (n, 3, 20, 28), threads=1, scratch=tmp_path) for n in (1, 150))
    assert small.running_bytes is not None and large.running_bytes is not None
    values = 149 * 35 * (64 + 2 * 192)  # what a block holds for the other images
    assert large.running_bytes - small.running_bytes > 4 * values * 0.8
    assert large.peak_bytes > small.peak_bytes > 20e6


def test_a_system_that_does_not_tell_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Session:
        def run(self, images: np.ndarray) -> np.ndarray:
            return images

    monkeypatch.setattr(footprint, "_FORGET_PEAK", (tmp_path, "5"))
    assert footprint._running_bytes(Session(), np.zeros(1)) is None  # type: ignore[arg-type]


def test_a_process_that_fails_is_told_with_what_it_ran(tmp_path: Path) -> None:
    with pytest.raises(footprint.BundleError, match=r"1x3x20x28.*nothing\.onnx"):
        footprint.take(tmp_path / "nothing.onnx", (1, 3, 20, 28), threads=1, scratch=tmp_path)


# Pictures and tables


def made_up(
    spec: S2MLPSpec,
    sizes: tuple[Size, ...],
    *,
    noise: float = 0.02,
    slower: float = 0.9,
    running: int | None = 1_000_000,
    depths: tuple[Fraction, ...] = (Fraction(1),),
) -> Scaling:
    """A measurement that nobody made: 10⁻⁸ ms for each multiply-add; ``slower`` is the mixer's time in the other's."""
    rng = np.random.default_rng(0)
    plan = Plan(sizes, (1, 2), depths)
    no_mixer = mixer.refusal(spec)
    points = []
    for model in (S2MLP,) if no_mixer else (S2MLP, MIXER):
        for s in plan.settings:
            short = shortened(spec, s.depth)
            macs = s.batch * short.macs(s.size)
            times = 1e-8 * macs * (slower if model == MIXER else 1) * np.exp(noise * rng.standard_normal(9))
            positions = prod(short.map_sizes(s.size)[0])
            footprints = Footprint(100_000_000 + 4 * positions, None if running is None else running * positions)
            points.append(Point(model, s, positions, short.depth, 1000, macs, footprints, tuple(times)))
    return Scaling(spec, plan, "slice", tuple(points), no_mixer)


def overlaps(drawn: Figure) -> list[tuple[str, str]]:
    """Pairs of texts that cover one another, and texts that leave the picture."""
    drawn.canvas.draw()
    (axes,) = drawn.axes
    low, high = axes.get_ylim()
    ticks = [t for t in axes.get_yticklabels() if low <= t.get_position()[1] <= high]  # others are not drawn
    written = [*drawn.texts, *axes.texts, *axes.get_xticklabels(), *ticks, axes.xaxis.label, axes.yaxis.label]
    boxes = [(t.get_text(), t.get_window_extent()) for t in written if t.get_text()]
    found = [(a, b) for i, (a, x) in enumerate(boxes) for b, y in boxes[i + 1 :] if x.overlaps(y)]
    width, height = drawn.bbox.size
    return found + [(a, "edge") for a, x in boxes if x.x0 < 0 or x.y0 < 0 or x.x1 > width or x.y1 > height]


SQUARES: tuple[Size, ...] = ((224, 224), (320, 320), (448, 448), (640, 640), (896, 896))
CROWDED: tuple[Size, ...] = tuple((16 * n, 16 * (n + 1)) for n in range(14, 30))
WIDE: tuple[Size, ...] = ((224, 224), (224, 12000), (11200, 11200))


@pytest.mark.parametrize("sizes", [SQUARES, CROWDED, WIDE, SQUARES[:2]], ids=["squares", "crowded", "wide", "two"])
@pytest.mark.parametrize("slower", [0.2, 0.9, 1.0, 6.0])
def test_no_label_covers_another_or_leaves_the_picture(sizes: tuple[Size, ...], slower: float) -> None:
    assert overlaps(plot.figure(made_up(PRESETS["deep"], sizes, slower=slower))) == []


def test_the_picture_shows_each_model_with_its_exponent_and_interval() -> None:
    found = made_up(PRESETS["wide"], SQUARES)
    drawn = plot.figure(found)
    (axes,) = drawn.axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    written = [t.get_text() for t in (*axes.texts, *drawn.texts)]
    for model in (S2MLP, MIXER):
        g = found.growth(model, "image size", "latency")
        assert g and g.low is not None and g.high is not None
        assert f"{model}\nexponent {g.exponent:.3f}\n[{g.low:.3f}, {g.high:.3f}]" in written
    assert any("another model with other weights" in text for text in written)
    assert axes.get_xticklabels()[0].get_text() == "196\n224x224"
    alone = plot.figure(made_up(pyramid_spec(), default_sizes(pyramid_spec())))
    assert overlaps(alone) == [] and not any(MIXER in t.get_text() for t in (*alone.axes[0].texts, *alone.texts))


@pytest.mark.parametrize(("suffix", "start"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")])
def test_the_same_measurement_gives_the_same_bytes(suffix: str, start: bytes) -> None:
    pictures = {plot.picture(made_up(small_spec(), default_sizes(small_spec())), suffix) for _ in range(2)}
    assert len(pictures) == 1 and pictures.pop().startswith(start)


AROUND = {"processor": "CPU", "usable_cores": 2, "load_average": 0.1, "versions": {}}


def shown(found: Scaling) -> str:
    console = Console(width=120, file=io.StringIO())
    console.print(table.render(found, AROUND))
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_the_tables_fit_and_say_what_a_mixer_is_and_what_is_unknown() -> None:
    found = made_up(PRESETS["deep"], SQUARES, running=None, depths=(Fraction(1, 2), Fraction(1)))
    text = shown(found)
    assert max(map(len, text.splitlines())) <= 120 and "…" not in text
    words = " ".join(text.split())
    assert "Each image size is another model, with other weights, in a file of its own" in words
    assert "onnxruntime unknown" in words and "(unknown)" in words
    assert "│ memory to run │ positions │ unknown │" in words
    assert "│ wide │ 13.99 │ 14.0 │ 72.24 │ 71 │ 12.60 │ 59.88 │" in words
    assert "│ 8x8 │ 784 │ 41.68 │ 53.70 │ 37.51 │ 53.92 │" in words


def test_a_machine_that_was_not_quiet_is_called_noisy() -> None:
    quiet, noisy = (made_up(small_spec(), ((20, 28),), noise=noise) for noise in (0.02, 0.5))
    assert "NOISY" not in shown(quiet) and "NOISY: at 4 of 4 points" in shown(noisy)


def test_what_does_not_grow_has_no_table() -> None:
    text = shown(made_up(small_spec(), ((20, 28),)))
    assert "growing batch" in text and "growing image size" not in text and "growing depth" not in text
    assert "positions │  " not in text


def test_memory_that_running_does_not_raise_has_no_exponent() -> None:
    found = made_up(small_spec(), default_sizes(small_spec()), running=0)
    assert found.growth(S2MLP, "image size", "memory to run") is None
    peak = found.growth(S2MLP, "image size", "peak memory")
    assert peak and 0 < peak.exponent < 0.1


# Real runs


def two_stages() -> S2MLPSpec:
    down = Embedding((2, 2), (2, 2))
    return S2MLPSpec(
        (Stage(Embedding((4, 4), (4, 4)), 8, 16, 1), Stage(down, 12, 24, 2)), classes=5, image_size=(24, 40)
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``small.pt`` of one stage, ``two.pt`` of two, and a measurement of the first: ``r.json``, ``r.png``, ``out``."""
    directory = tmp_path_factory.mktemp("scaling")
    save_checkpoint(directory / "small.pt", small_spec())
    save_checkpoint(directory / "two.pt", two_stages())
    files = ("--json-file", directory / "r.json", "--png", directory / "r.png")
    options = ("--image-size", "40x56,20x28", "--batch", "2,1", "--depth", "1/2,1", "--rounds", 7, "--min-seconds", 0)
    ran = scale(directory / "small.pt", *options, *files)
    assert ran.code == 0, ran.err
    (directory / "out").write_text(ran.out)
    (directory / "err").write_text(ran.err)
    return directory


def test_the_json_holds_every_point_with_its_raw_samples(place: Path) -> None:
    document = json.loads((place / "r.json").read_text())
    points: list[dict[str, Any]] = document["points"]
    expected = {((20, 28), 1, 2), ((40, 56), 1, 2), ((20, 28), 2, 2), ((20, 28), 1, 1)}
    for model in (S2MLP, MIXER):
        ours = [p for p in points if p["model"] == model]
        assert {(tuple(p["image_size"]), p["batch"], p["blocks"]) for p in ours} == expected and len(ours) == 4
    for p in points:
        assert len(p["samples_ms"]) == 7 and min(p["samples_ms"]) > 0 and p["peak_bytes"] > 20e6
        assert p["latency_ms"]["median"] == pytest.approx(np.median(p["samples_ms"]))
        spec = shortened(small_spec(), Fraction(p["blocks"], 2))
        size = tuple(p["image_size"])
        counted = (
            (spec.parameters(), spec.macs(size))
            if p["model"] == S2MLP
            else (mixer.like(spec, size).parameters(), mixer.like(spec, size).macs())
        )
        assert (p["parameters"], p["macs"]) == (counted[0], p["batch"] * counted[1])
    assert (
        document["plan"]["depths"] == ["1/2", "1"] and document["lowering"] == "slice" and document["no_mixer"] is None
    )
    assert len(document["checkpoint_sha256"]) == 64 and document["environment"]["versions"]["onnxruntime"]


def test_the_json_holds_every_exponent_and_where_its_interval_comes_from(place: Path) -> None:
    document = json.loads((place / "r.json").read_text())
    grown = {(g["model"], g["over"], g["quantity"]): g for g in document["growth"]}
    assert {over for _, over, _ in grown} == set(OVER)
    grows = [p for p in document["points"] if p["model"] == S2MLP and (p["batch"], p["blocks"]) == (1, 2)]
    times = [p["samples_ms"] for p in sorted(grows, key=lambda p: prod(p["image_size"]))]
    own = growth.of_rounds([35, 140], times)
    latency = grown[S2MLP, "image size", "latency"]
    assert own and (latency["exponent"], latency["low"], latency["high"]) == pytest.approx(
        (own.exponent, own.low, own.high)
    )
    assert latency["interval"] == "rounds drawn again"
    assert grown[MIXER, "image size", "parameters"]["exponent"] > 0.01
    assert abs(grown[S2MLP, "image size", "parameters"]["exponent"]) < 1e-12
    assert grown[S2MLP, "batch", "multiply-adds"] | {"factor": 0} == {
        "model": S2MLP,
        "over": "batch",
        "quantity": "multiply-adds",
        "interval": None,
        "exponent": pytest.approx(1),
        "low": None,
        "high": None,
        "factor": 0,
        "misfit": pytest.approx(0),
    }


def test_the_command_shows_tables_and_says_what_it_does(place: Path) -> None:
    out, err = (place / "out").read_text(), (place / "err").read_text()
    assert "growing image size: batch 1, 2 blocks, 1 thread" in out and "growing batch: image 20x28" in out
    for step in (
        "writing the graph: MLP-Mixer, 2 blocks for 40x56",
        "measuring memory",
        "checking answers",
        "timing 8 points",
    ):
        assert step in err
    assert (place / "r.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(p.name for p in place.iterdir()) == ["err", "out", "r.json", "r.png", "small.pt", "two.pt"]


def test_a_model_of_several_stages_is_measured_without_a_mixer_and_that_is_said(place: Path, tmp_path: Path) -> None:
    ran = scale(place / "two.pt", *QUICK, "--image-size", "24x40,32x56", "--json-file", tmp_path / "r.json")
    assert ran.code == 0, ran.err
    assert "without an MLP-Mixer beside it: an MLP-Mixer has one stage, and this S²-MLP has 2" in ran.out
    assert "MLP-Mixer, ms" not in ran.out and "MLP-Mixer / S²-MLP" not in ran.out
    assert {p["model"] for p in json.loads((tmp_path / "r.json").read_text())["points"]} == {S2MLP}


def test_one_size_batch_and_depth_can_be_measured_alone(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(footprint, "take", lambda *_, **__: Footprint(1_000_000, None))
    ran = scale(place / "small.pt", *QUICK, "--image-size", "20x28", "--shift-semantics", "inplace")
    assert ran.code == 0, ran.err
    assert "how fast it grows" not in ran.out


# Refusals


def refused(code: int, *arguments: object) -> str:
    ran = scale(*arguments)
    assert (ran.code, ran.out) == (code, ""), (ran.code, ran.out, ran.err)
    return ran.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("code", "options", "named"),
    [
        (2, ["--rounds", 5], "'--rounds'"),
        (2, ["--image-size", "20y28"], "expected N or HxW"),
        (3, ["--image-size", "20x28,20x27"], "20x27 is not a multiple of the 4x4 patch"),
        (3, ["--image-size", "20x28,2"], "smaller than the 4x4 patch"),
        (2, ["--batch", "1,0"], "--batch '1,0'"),
        (2, ["--depth", "0"], "--depth '0'"),
        (2, ["--depth", "3/2"], "--depth '3/2'"),
        (2, ["--depth", "1/0"], "--depth '1/0'"),
        (2, ["--depth", "0.5"], "expected shares of the whole"),
        (2, ["--threads", 0], "--threads"),
        (2, ["--png", "picture.jpg"], "not a picture's name"),
        (2, ["--png", "picture.png", "--image-size", "20x28"], "two with different numbers of positions"),
        (2, ["--png", "picture.png", "--image-size", "20x28,28x20"], "two with different numbers of positions"),
        (2, ["--shift-semantics", "auto"], "auto"),
        (2, ["--shift-semantics", "inplace", "--shift-directions", "8"], "pass --shift-semantics paper"),
        (3, ["--layout", "nowhere.toml"], "nowhere.toml"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else None,
)
def test_what_cannot_be_done_as_asked_is_refused_before_any_work(
    place: Path, code: int, options: list[object], named: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = scale(place / "small.pt", *options)
    assert (ran.code, ran.out) == (code, "") and named in " ".join(ran.err.replace("│", " ").split()), ran.err
    assert "writing the graph" not in ran.err and list(tmp_path.iterdir()) == []


def test_files_that_are_there_are_not_replaced_unless_asked(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(footprint, "take", lambda *_, **__: Footprint(1_000_000, 1000))
    for option, name in (("--json-file", "r.json"), ("--png", "r.svg")):
        (tmp_path / name).write_text("mine")
        assert "--force" in refused(3, place / "small.pt", *QUICK, option, tmp_path / name)
        assert (tmp_path / name).read_text() == "mine"
        options = ("--image-size", "20x28,28x40", option, tmp_path / name, "--force")
        assert scale(place / "small.pt", *QUICK, *options).code == 0
        assert (tmp_path / name).read_text() != "mine"
    assert "not a directory" in refused(3, place / "small.pt", *QUICK, "--json-file", tmp_path / "nowhere" / "r.json")


def test_too_little_memory_is_told_before_any_work(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: 100_000)
    said = refused(2, place / "small.pt", *QUICK)
    assert "take at least" in said and "80x112, batch 1 takes most" in said


def test_memory_that_the_system_does_not_tell_stops_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: None)
    monkeypatch.setattr(footprint, "take", lambda *_, **__: Footprint(1_000_000, 1000))
    assert scale(place / "small.pt", *QUICK, "--image-size", "20x28").code == 0


def test_a_graph_that_computes_something_else_is_not_timed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(footprint, "take", lambda *_, **__: Footprint(1_000_000, 1000))
    monkeypatch.setattr(measure, "_lowering", lambda spec: NoShift())
    assert "does not compute what PyTorch does at 20x28" in refused(
        1, place / "small.pt", *QUICK, "--image-size", "20x28"
    )


def test_a_full_disk_is_told_with_a_way_out(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(graphs, "write", full)
    said = refused(3, place / "small.pt", *QUICK, "--image-size", "20x28")
    assert "No space left on device" in said and "TMPDIR" in said


def test_a_checkpoint_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "no.pt").write_bytes(b"")
    assert "is empty" in refused(3, tmp_path / "no.pt")
