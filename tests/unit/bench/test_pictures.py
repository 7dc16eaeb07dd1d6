"""A benchmark in pictures: what they show, that nothing covers anything, and their bytes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from helpers.benchmarks import BASELINES, PAIR, Entry, made_up, swept
from helpers.support import ROOT
from s2mlp_bench.benchmark import Result
from s2mlp_bench.profile import KINDS
from s2mlp_bench.report import pictures
from s2mlp_bench.report.pictures import drawing, inline_svg, roofline_plot, rows, scatter
from s2mlp_bench.report.pictures.legend import Mark
from s2mlp_deploy.errors import OutputError, RuntimeMissingError, UsageError
from s2mlp_deploy.system.dependencies import pip_install

LONG = "a-very-long-name-of-a-bundle-that-somebody-exported-on-a-tuesday-onnx-fp32"
MANY = swept(
    [*PAIR, *BASELINES, Entry("openvino, int8", 4.1, "baseline", "int8"), Entry("openvino", 11, "baseline")], (1, 2)
)
CONTESTS: dict[str, Sequence[Entry]] = {
    "one": PAIR[:1],
    "two": PAIR,
    "usual": (*PAIR, *BASELINES),
    "many": MANY,
    "sweep": swept(PAIR, (1, 2, 3, 4)),
    "same": [Entry(f"bundle{i}", 10.0, accuracy=0.9) for i in range(9)],
    "long": [replace(PAIR[0], source=LONG), replace(PAIR[1], source="W" * 250), *BASELINES],
    "far apart": [Entry("slow", 5000.0), Entry("fast", 0.004, precision="int8")],
}


def drawn(entries: Sequence[Entry], **how: bool) -> Figure:
    """The picture that a file gets."""
    _, result = made_up(entries, **how)
    with drawing.style(pictures.FILE_FONT):
        figure = pictures.figure(result)
        figure.canvas.draw()
        return figure


def axes_of(entries: Sequence[Entry], draw: Any) -> Axes:
    """Axes with what ``draw(axes, result)`` draws."""
    _, result = made_up(entries)
    with drawing.style(pictures.FILE_FONT):
        axes = drawing.axes_at(drawing.blank(500, 600), 20, 20, 460, 500)
        draw(axes, result)
    return axes


def ratios_of(entries: Sequence[Entry]) -> tuple[Axes, Result]:
    return axes_of(entries, lambda axes, result: rows.ratios(axes, result.summary)), made_up(entries)[1]


def points(axes: Axes, marker: str) -> list[tuple[float, str]]:
    """Places and faces of single markers."""
    found = [line for line in axes.lines if line.get_marker() == marker and len(np.atleast_1d(line.get_xdata())) == 1]
    return [(float(np.ravel(line.get_xdata())[0]), str(line.get_markerfacecolor())) for line in found]


def legends(figure: Figure) -> list[Text]:
    return [text for legend in figure.legends for text in legend.get_texts()]


def texts(figure: Figure) -> list[str]:
    written = [*figure.texts, *legends(figure), *(text for axes in figure.axes for text in axes.texts)]
    return [text.get_text() for text in written]


def overlaps(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of upright texts that cover one another, and texts that leave the picture."""
    written = [*figure.texts, *legends(figure)]
    for axes in figure.axes:
        ticks = [t for t in (*axes.get_xticklabels(), *axes.get_yticklabels()) if t.get_visible()]
        written += [*axes.texts, *ticks, axes.xaxis.label]
    boxes = [(t.get_text(), t.get_window_extent()) for t in written if t.get_text() and not t.get_rotation()]
    found = [(a, b) for i, (a, x) in enumerate(boxes) for b, y in boxes[i + 1 :] if x.overlaps(y)]
    width, height = figure.bbox.size
    return found + [(a, "edge") for a, x in boxes if x.x0 < 0 or x.y0 < 0 or x.x1 > width or x.y1 > height]


# Ratios, latencies, profiles


def test_each_ratio_stands_at_its_median_with_its_interval_and_its_bound() -> None:
    axes, result = ratios_of((*PAIR, *BASELINES))
    figures = result.summary.figures
    assert [x for x, _ in points(axes, "o")] == [f.speed.median for f in figures]
    bars = [tuple(map(float, line.get_xdata())) for line in axes.lines if line.get_linewidth() == 2]  # type: ignore[arg-type]
    assert bars == [(f.speed.low, f.speed.high) for f in figures]
    bounds = [f.speed.median / f.of_bound.median for f in figures if f.of_bound]
    assert [x for x, _ in points(axes, "|")] == bounds and len(bounds) == 2


def test_what_is_not_comparable_is_hollow_and_says_why() -> None:
    axes, result = ratios_of((*PAIR, *BASELINES))
    faces = [face == drawing.PAPER for _, face in points(axes, "o")]
    assert faces == [not f.comparable for f in result.summary.figures] == [False, False, False, True, True, True]
    assert {"another network", "wrong answers", "calibrated on noise"} <= {t.get_text() for t in axes.texts}
    assert "not comparable" in texts(drawn((*PAIR, *BASELINES))) and "not comparable" not in texts(drawn(PAIR))


def test_the_axis_is_logarithmic_where_the_spread_is_large_and_begins_at_zero_elsewhere() -> None:
    assert ratios_of(PAIR)[0].get_xscale() == "linear" and ratios_of(PAIR)[0].get_xlim()[0] == 0
    assert ratios_of([*PAIR, Entry("slow", 60.0)])[0].get_xscale() == "log"


def test_latencies_show_three_percentiles_and_where_the_samples_are() -> None:
    axes = axes_of(PAIR, lambda axes, result: rows.latencies(axes, result.summary, result.samples_ms))
    figures = made_up(PAIR)[1].summary.figures
    for marker, name in (("o", "p50_ms"), ("D", "p90_ms"), ("|", "p99_ms")):
        assert [x for x, _ in points(axes, marker)] == [getattr(f, name) for f in figures]
    outline = axes.collections[0].get_paths()[0].vertices
    highest = float(outline[np.argmin(outline[:, 1]), 0])  # type: ignore[index, call-overload]
    assert highest == pytest.approx(figures[0].p50_ms, rel=0.05)


def test_samples_that_are_all_the_same_can_be_drawn() -> None:
    _, result = made_up(PAIR[:1])
    flat = replace(result, samples_ms={name: [5.0] * 40 for name in result.samples_ms})
    assert all(picture.svg for picture in pictures.of_report(flat))


def test_bars_of_a_profile_add_up_to_the_whole_time() -> None:
    axes = axes_of(PAIR, lambda axes, result: rows.profile(axes, result.profiles, result.summary))
    lengths = [float(bar.get_width()) for bar in axes.patches]  # type: ignore[attr-defined]
    total = sum(p.total_ms for p in made_up(PAIR)[1].profiles)
    assert sum(lengths) == pytest.approx(total)


def test_threads_are_a_column_and_no_name_loses_letters_to_them() -> None:
    prefixed = [replace(e, source=f"fashion_mnist-onnx-{e.source}") for e in PAIR]
    figure = drawn(swept([*prefixed, replace(BASELINES[0], source=f"openvino, {prefixed[0].source}")], (1, 2)))
    (ratios, _) = figure.axes
    words = [text.get_text() for text in ratios.texts]
    assert words.count("fp32") == words.count("int8") == words.count("openvino, fp32") == 2
    columns = [t.get_window_extent().x1 for t in ratios.texts if t.get_text() in ("1 thread", "2 threads")]
    assert len(columns) == 6 and max(columns) - min(columns) < 1
    assert not any("…" in text and "× (" not in text for text in texts(figure))
    assert sum("fashion_mnist" in text for text in texts(figure)) == 1, "said once"


def test_every_kind_of_layer_has_a_colour_of_its_own() -> None:
    assert {*(kind for _, kind in KINDS), "other"} == set(rows.KIND_COLOURS)
    colours = [*rows.KIND_COLOURS.values(), *roofline_plot.COLOURS.values(), drawing.BUNDLE, drawing.BASELINE]
    colours += [drawing.INK, drawing.QUIET, drawing.FAINT, drawing.GRID, drawing.PAPER]
    assert len(set(colours)) == len(colours) and set(colours) <= set(inline_svg.VARIABLES)


# Roofline and accuracy


def test_bundles_and_their_layers_stand_where_they_compute() -> None:
    axes = axes_of(PAIR, roofline_plot.draw)
    places = {
        (float(np.ravel(line.get_xdata())[0]), float(np.ravel(line.get_ydata())[0]), line.get_markersize())
        for line in axes.lines
        if len(np.atleast_1d(line.get_xdata())) == 1
    }
    assert (57.0, 140.0, roofline_plot.LARGE) in places and (140.0, 350.0, roofline_plot.LARGE) in places
    small = [size for *_, size in places if size == roofline_plot.SMALL]
    assert len(small) >= 6 and axes.get_xscale() == axes.get_yscale() == "log"


def roofline_legend(entries: Sequence[Entry]) -> list[list[Mark]]:
    return roofline_plot.marks(made_up(entries)[1])


def test_the_legend_of_a_roofline_names_roofs_bundles_and_layers() -> None:
    roofs, bundles, layers = roofline_legend(PAIR)
    assert [mark.text for mark in roofs] == ["fp32: 173 Gop/s, 15.0 GB/s", "int8: 1,826 Gop/s, 15.0 GB/s"]
    assert [mark.text for mark in bundles] == ["fp32", "int8"]
    kinds = {mark.text for mark in layers}
    assert {"GELU", "FC₃"} <= kinds and "shift" not in kinds
    several = roofline_legend(swept(PAIR, (1, 2)))
    assert {"fp32, 1 thread: 173 Gop/s, 15.0 GB/s", "fp32, 2 threads: 346 Gop/s, 15.0 GB/s"} <= {
        m.text for m in several[0]
    }
    assert len({mark.marker for mark in several[1]}) == len(several[1]) == 4
    assert {mark.text for mark in several[1]} >= {"fp32, 1 thread", "int8, 2 threads"}


def test_dots_have_the_marker_that_the_legend_shows() -> None:
    axes = axes_of(CONTESTS["same"], roofline_plot.draw)
    drawn_markers = [line.get_marker() for line in axes.lines if line.get_markersize() == roofline_plot.LARGE]
    assert drawn_markers == [mark.marker for mark in roofline_legend(CONTESTS["same"])[1]]


def test_layers_without_arithmetic_and_those_in_caches_are_named_in_sentences() -> None:
    notes = next(p for p in pictures.of_report(made_up()[1]) if p.name == "roofline").notes
    assert any(re.search(r"the shift, which computes nothing and takes \d+% of the time", note) for note in notes)
    assert any("caches" in note for note in notes)
    _, result = made_up()
    assert result.roofline is not None
    fast = tuple(replace(roof, bytes_per_s=1e12) for roof in result.roofline.roofs)
    below = replace(result, roofline=replace(result.roofline, roofs=fast))
    notes = next(p for p in pictures.of_report(below) if p.name == "roofline").notes
    assert not any("caches" in note or "above the level" in note for note in notes)
    low = tuple(replace(roof, operations_per_s=50e9) for roof in fast)
    notes = next(
        p
        for p in pictures.of_report(replace(result, roofline=replace(result.roofline, roofs=low)))
        if p.name == "roofline"
    ).notes
    assert any("above the level shows that the peak is higher" in note for note in notes)


def test_accuracy_is_drawn_where_two_bundles_carry_it() -> None:
    names = [picture.name for picture in pictures.of_report(made_up(PAIR)[1])]
    assert names[-2:] == ["accuracy-latency", "accuracy-size"]
    without = [replace(PAIR[0], accuracy=None), PAIR[1]]
    assert not any("accuracy" in picture.name for picture in pictures.of_report(made_up(without)[1]))
    axes = axes_of(swept(PAIR, (1, 2)), lambda axes, r: scatter.accuracy(axes, r.summary, against="size"))
    places = [(float(np.ravel(x)[0]), float(np.ravel(y)[0])) for x, y in (line.get_data() for line in axes.lines)]
    np.testing.assert_allclose(places, [[3.0, 89.57], [0.9, 89.12]])


# Layout


@pytest.mark.parametrize("name", CONTESTS)
def test_no_text_covers_another_or_leaves_the_picture(name: str) -> None:
    assert overlaps(drawn(CONTESTS[name])) == []


@pytest.mark.parametrize(("bound", "names"), [(True, CONTESTS), (False, ("one", "usual"))], ids=["bound", "no bound"])
def test_pictures_of_the_report_are_drawn_for_every_benchmark(bound: bool, names: Iterable[str]) -> None:
    for name in names:
        for picture in pictures.of_report(made_up(CONTESTS[name], bound=bound)[1]):
            assert picture.svg.startswith(b"<?xml") and picture.words.endswith(".") and "\n" not in picture.words


def test_without_a_roofline_latencies_take_its_place_and_alone_there_are_no_ratios() -> None:
    assert {"Roofline", "Speed, relative to fp32"} <= set(texts(drawn(PAIR)))
    assert {"Latency", "Speed, relative to fp32"} <= set(texts(drawn(PAIR, bound=False)))
    assert {"Latency", "Roofline"} <= set(texts(drawn(PAIR[:1])))
    assert len(drawn(PAIR[:1], bound=False).axes) == 1


def test_many_candidates_make_a_picture_higher_and_few_leave_it_as_it_is() -> None:
    def inches(name: str) -> tuple[float, float]:
        width, height = drawn(CONTESTS[name]).get_size_inches()
        return float(width), float(height)

    assert inches("two") == (*inches("usual")[:1], 4.5) and inches("two")[0] == 11
    assert 6 < inches("many")[1] < 10


def test_long_names_lose_their_middle() -> None:
    shortened = [t for t in texts(drawn(CONTESTS["long"])) if t.startswith("a-very") and t != LONG]
    assert shortened
    for name in shortened:
        head, tail = name.split("…")
        assert LONG.startswith(head) and LONG.endswith(tail) and len(name) > 20


def test_names_are_no_formulas_and_what_cannot_be_printed_is_replaced() -> None:
    figure = drawn([Entry("$\\frac$ \udcff\n\u202e", 10.0), Entry("模型", 5.0)])
    assert "$\\frac$ ���" in texts(figure) and "模型" in texts(figure)


@pytest.mark.parametrize(("stable", "complete"), [(True, True), (False, True), (True, False)])
def test_a_noisy_or_interrupted_benchmark_says_so(stable: bool, complete: bool) -> None:
    _, result = made_up(PAIR, noise=() if stable else ("fp32: it drifts",), complete=complete)
    with drawing.style(pictures.FILE_FONT):
        written = " ".join(texts(pictures.figure(result)))
    assert ("NOISY" in written, "INCOMPLETE" in written) == (not stable, not complete)


# The file


def test_the_same_measurements_give_the_same_bytes(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path[:0] = ['tests']; from pathlib import Path; from helpers.benchmarks import made_up; from s2mlp_bench.report import "
        "pictures; [pictures.draw(made_up()[1], Path(path), replace=False) for path in sys.argv[1:]]"
    )
    names = ("picture.png", "picture.svg", "picture.pdf")
    for i in range(2):
        (tmp_path / str(i)).mkdir()
        environment = {**os.environ, "PYTHONHASHSEED": str(i), "MPLBACKEND": "svg" if i else "agg"}
        paths = [str(tmp_path / str(i) / name) for name in names]
        subprocess.run([sys.executable, "-W", "error", "-c", code, *paths], cwd=ROOT, env=environment, check=True)
    for name in names:
        first, second = ((tmp_path / str(i) / name).read_bytes() for i in range(2))
        assert first == second and not re.search(rb"(?i)creationdate|<dc:date>|matplotlib v", first), name


def test_a_users_matplotlib_settings_are_neither_used_nor_changed() -> None:
    import matplotlib as mpl

    _, result = made_up(PAIR)
    usual = pictures.content(result, ".svg")
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "red", "text.parse_math": True}):
        assert pictures.content(result, ".svg") == usual and mpl.rcParams["font.size"] == 30


def test_a_picture_has_the_size_of_a_readme(tmp_path: Path) -> None:
    path = tmp_path / "it.PNG"
    pictures.draw(made_up(PAIR)[1], path, replace=False)
    with Image.open(path) as picture:
        assert picture.format == "PNG" and picture.size == (1650, 675)


def test_what_is_no_picture_or_there_already_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--png .*it.gif is not a picture's name"):
        pictures.check(tmp_path / "it.gif")
    taken = tmp_path / "it.svg"
    taken.write_text("mine")
    with pytest.raises(OutputError, match="exists"):
        pictures.draw(made_up(PAIR)[1], taken, replace=False)
    assert taken.read_text() == "mine"
    pictures.draw(made_up(PAIR)[1], taken, replace=True)
    assert b"<svg" in taken.read_bytes() and [path.name for path in tmp_path.iterdir()] == ["it.svg"]


def test_a_missing_matplotlib_is_named_with_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(RuntimeMissingError, match=re.escape(pip_install("bench"))):
        pictures.check(tmp_path / "it.png")
