"""Error against depth as a picture: what it shows, what is refused before any work, and its bytes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from helpers.damaged_bundles import alter_weight
from helpers.support import ROOT, run, save_checkpoint, small_spec
from s2mlp_deploy.bundle.read import read_bundle
from s2mlp_deploy.cli import layer_error, plot
from s2mlp_deploy.cli.plot import Curve, figure, save
from s2mlp_deploy.errors import OutputError
from s2mlp_deploy.pipeline import verify as verifying
from s2mlp_deploy.schema.manifest import Quantization
from s2mlp_deploy.system.dependencies import pip_install

BEGUN = "reading the checkpoint"


def layers(*depths: int, error: float = 3e-7) -> tuple[tuple[str, float], ...]:
    """Layers of a model with stages of these depths, each further off than the one before."""
    names = [f"stage{s}/{x}" for s, n in enumerate(depths) for x in ("embedding", *(f"block{b:02d}" for b in range(n)))]
    return tuple((name, error * 1.1**i) for i, name in enumerate([*names, "logits"]))


def curve(*depths: int, name: str = "fp32", error: float = 3e-7) -> Curve:
    return Curve(name, layers(*depths, error=error), 8 * error)


def texts(drawn: Figure) -> list[str]:
    """What is written in the figure, without the numbers of the vertical axis."""
    (axes,) = drawn.axes
    return [t.get_text() for t in (*drawn.texts, *axes.texts, *axes.get_xticklabels())]


def lines(drawn: Figure) -> list[tuple[str, Sequence[float], str]]:
    """The curves (colour, values, style), without markers and grid."""
    found = []
    for line in drawn.axes[0].lines:
        y = [float(v) for v in np.asarray(line.get_ydata(), float)]
        if line.get_linestyle() != "None" and len(y) > 2:
            found.append((str(line.get_color()), y, str(line.get_linestyle())))
    return found


def overlaps(drawn: Figure) -> list[tuple[str, str]]:
    """Pairs of texts that cover one another, and texts that leave the picture."""
    drawn.canvas.draw()
    (axes,) = drawn.axes
    low, high = axes.get_ylim()
    decades = [t for t in axes.get_yticklabels() if low <= t.get_position()[1] <= high]  # others are not drawn
    written = [t for t in (*drawn.texts, *axes.texts, *axes.get_xticklabels(), *decades) if t.get_text()]
    boxes = [(t.get_text(), t.get_window_extent()) for t in written]
    found = [(a, b) for i, (a, x) in enumerate(boxes) for b, y in boxes[i + 1 :] if x.overlaps(y)]
    width, height = drawn.bbox.size
    return found + [(a, "edge") for a, x in boxes if x.x0 < 0 or x.y0 < 0 or x.x1 > width or x.y1 > height]


# What it shows


def test_each_bundle_has_a_line_a_tolerance_of_its_colour_and_a_label() -> None:
    curves = [curve(2), curve(2, name="fp16", error=4e-4), curve(2, name="int8", error=1e-2)]
    drawn = figure(curves, "S²-MLP in words")
    found = lines(drawn)
    assert [y for _, y, _ in found] == [[e for _, e in c.layers] for c in curves]
    assert len({colour for colour, *_ in found}) == 3
    limits = {str(x.get_color()): x.get_ydata()[0] for x in drawn.axes[0].lines if len(x.get_xdata()) == 2}  # type: ignore[index]
    assert limits == {colour: c.limit for (colour, *_), c in zip(found, curves, strict=True)}
    assert {"S²-MLP in words", "fp32", "fp16", "int8", "fp16 tolerance 0.0032"} <= set(texts(drawn))
    assert drawn.axes[0].get_yscale() == "log"


@pytest.mark.parametrize(
    "depths", [(1,), (6,), (11,), (12,), (24,), (36,), (2, 2), (7, 5), (2, 2, 18, 2), (1, 1, 0)], ids=str
)
@pytest.mark.parametrize("spread", [1.0, 1.02, 30.0])
def test_no_label_covers_another_or_leaves_the_picture(depths: tuple[int, ...], spread: float) -> None:
    curves = [curve(*depths, name=name, error=1e-6 * spread**i) for i, name in enumerate(("fp32", "fp16", "int8"))]
    kept = frozenset({"stage0/block00"})
    curves[2] = replace(curves[2], in_float=kept, input="an image")
    words = "S²-MLP, 1 stage, 36 blocks, 53,916,520 parameters, 1000 classes, shift directions 4"
    assert overlaps(figure(curves, words)) == []


def test_blocks_are_numbered_and_stages_named_where_there_are_several() -> None:
    ticks = [t.get_text() for t in figure([curve(3)], "").axes[0].get_xticklabels()]
    assert ticks == ["embedding", "00", "01", "02", "logits"]
    assert "stage 0" not in texts(figure([curve(3)], ""))
    assert {"stage 0", "stage 1"} <= set(texts(figure([curve(3, 2)], "")))


def test_blocks_with_layers_left_in_float_are_hollow_and_that_is_explained() -> None:
    plain, marked = curve(3), replace(curve(3), in_float=frozenset({"stage0/block01"}))
    for drawn_curve, hollow in ((plain, []), (marked, [2])):
        drawn = figure([drawn_curve], "")
        points = [x for x in drawn.axes[0].lines if x.get_linestyle() == "None"]
        assert [float(np.asarray(x.get_xdata())[0]) for x in points if x.get_markerfacecolor() == "white"] == hollow
        assert any("left in float" in text for text in texts(drawn)) == bool(hollow)


def test_what_is_not_finite_or_not_off_at_all_is_drawn_at_an_edge_and_explained() -> None:
    values = layers(3)
    broken = Curve("fp16", ((values[0][0], 0.0), *values[1:3], *((n, float("inf")) for n, _ in values[3:])), 1e-6)
    drawn = figure([broken], "")
    low, high = drawn.axes[0].get_ylim()
    crosses = [x for x in drawn.axes[0].lines if x.get_marker() == "x"]
    assert [float(np.asarray(x.get_xdata())[0]) for x in crosses] == [3, 4] and crosses[0].get_ydata()[0] == high  # type: ignore[index]
    assert lines(drawn)[0][1][0] > low > 0
    assert any("not finite" in text and "closer than" in text for text in texts(drawn))
    assert overlaps(drawn) == []


def test_inputs_are_named_with_those_who_saw_them() -> None:
    curves = [curve(2), replace(curve(2, name="int8", error=1e-2), input="an image")]
    assert any("noise (fp32), an image (int8)" in text for text in texts(figure(curves, "")))
    assert any("golden input: noise. " in text for text in texts(figure(curves[:1], "")))


# The file


def test_the_same_figure_gives_the_same_bytes(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from s2mlp_deploy.cli.plot import Curve, figure, save;"
        "curve = lambda *depths: Curve('fp32', tuple((f'stage0/block{b:02d}', 3e-7) for b in range(*depths)), 2.4e-6);"
        "[save(figure([curve(2)], 'x'), Path(path), replace=False) for path in sys.argv[1:]]"
    )
    paths = [[tmp_path / f"{i}{suffix}" for suffix in plot.SUFFIXES] for i in range(2)]
    for i, files in enumerate(paths):
        environment = {**os.environ, "PYTHONHASHSEED": str(i), "MPLBACKEND": "svg" if i else "agg"}
        subprocess.run([sys.executable, "-c", code, *map(str, files)], cwd=ROOT, env=environment, check=True)
    for one, other in zip(*paths, strict=True):
        first, second = one.read_bytes(), other.read_bytes()
        assert first == second and not re.search(rb"(?i)creationdate|<dc:date>|matplotlib v", first)


def test_a_users_matplotlib_settings_are_neither_used_nor_changed(tmp_path: Path) -> None:
    import matplotlib as mpl

    save(figure([curve(2)], "x"), tmp_path / "a.png", replace=False)
    with mpl.rc_context({"font.size": 30, "savefig.dpi": 17, "axes.facecolor": "red"}):
        save(figure([curve(2)], "x"), tmp_path / "b.png", replace=False)
        assert mpl.rcParams["font.size"] == 30
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_file_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "error.png"
    plot.check(path, replace=False)
    path.write_text("mine")
    with pytest.raises(OutputError, match="exists: choose another place with --plot"):
        save(figure([curve(1)], ""), path, replace=False)
    assert path.read_text() == "mine" and [p.name for p in tmp_path.iterdir()] == ["error.png"]


def test_a_disk_that_fills_up_leaves_the_old_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "error.png"
    path.write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="No space left on device"):
        save(figure([curve(1)], ""), path, replace=True)
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["error.png"]


# s2mlp-export


def test_an_export_draws_every_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    for i in range(80):
        Image.fromarray(rng.integers(0, 256, (20, 28, 3), np.uint8)).save(tmp_path / "images" / f"{i}.png")
    checkpoint = save_checkpoint(tmp_path / "small.pt", small_spec())
    precisions = ("--precision", "fp32", "--precision", "fp16", "--precision", "int8")
    ran = run(
        "export",
        checkpoint,
        *precisions,
        "--calibration",
        "images",
        "--min-agreement",
        0.3,
        "--plot",
        "error.png",
        "--json",
    )
    assert ran.code == 0, ran.err
    fp32, fp16, int8 = (c["layers"]["stage0/block01"] for c in ran.json["plot"]["curves"])
    assert fp32 < 1e-5 < fp16 < int8 < 0.5
    assert [c["input"] for c in ran.json["plot"]["curves"]] == ["noise", "noise", "an image"]
    assert [c["name"] for c in ran.json["plot"]["curves"]] == ["fp32", "fp16", "int8"]
    with Image.open("error.png") as picture:
        assert picture.format == "PNG" and min(picture.size) > 500
    assert "drawing error against depth …" in ran.err.splitlines()


def test_layers_left_in_float_are_marked_by_their_block(pristine: Path) -> None:
    bundle = read_bundle(pristine)
    kept = ("stage0/block01/fc4", "logits")
    quantization = Quantization(target="x86", method="minmax", calibration_images=3, float_layers=kept)
    changed = replace(bundle, manifest=bundle.manifest.model_copy(update={"quantization": quantization}))
    assert layer_error.curve(changed, verifying.layers(bundle)).in_float == {"stage0/block01", "logits"}
    assert layer_error.curve(bundle, verifying.layers(bundle)).in_float == frozenset()


def test_a_format_that_hides_its_layers_is_left_out_with_a_warning(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert verifying.shows_layers("onnx") and not verifying.shows_layers("ort")
    monkeypatch.chdir(tmp_path)
    ran = run("export", checkpoint, "--format", "ort", "--format", "onnx", "--plot", "error.svg")
    assert ran.code == 0, ran.err
    assert ran.err.splitlines()[0] == "warning: left out of --plot: --format ort does not show its layers"
    assert ran.out.splitlines()[-1].split() == ["plot", "error.svg"]
    assert "<svg" in (tmp_path / "error.svg").read_text("utf-8")


def test_synthetic_calibration_is_left_out_with_a_warning(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ("--precision", "fp32", "--precision", "int8", "--calibration", "synthetic")
    ran = run("export", checkpoint, *options, "--plot", "error.png", "--json")
    assert ran.code == 0 and "warning: left out of --plot: with --calibration synthetic" in ran.err
    assert [c["name"] for c in ran.json["plot"]["curves"]] == ["fp32"]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--format", "ort", "--plot", "p.png"), "--plot has nothing to draw: --format ort does not show its layers"),
        (("--no-gate", "--plot", "p.png"), "with --no-gate there are no golden tensors"),
        (("--precision", "int8", "--calibration", "synthetic", "--plot", "p.png"), "with --calibration synthetic"),
        (("--plot", "p.gif"), "is not a picture's name: expected one that ends in .png or .svg or .pdf"),
        (("--plot", "p"), "is not a picture's name"),
        (("--plot", "small-onnx-fp32/p.png"), "lies in the bundle small-onnx-fp32"),
        (("--format", "abacus", "--plot", "p.png"), "no exporter for format 'abacus' is installed"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_what_cannot_be_drawn_is_refused_before_any_work(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: Sequence[str], problem: str
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = run("export", checkpoint, *options)
    assert (ran.code, ran.out) == (2, "") and problem in ran.err and BEGUN not in ran.err
    assert [p.name for p in tmp_path.iterdir()] == ["small.pt"]


@pytest.mark.parametrize("place", ["taken.png", "folder.png", "link.png", "nowhere/p.png", "small.pt/p.png"])
def test_a_place_that_cannot_be_written_is_refused_before_any_work(
    checkpoint: Path, tmp_path: Path, place: str
) -> None:
    (tmp_path / "taken.png").write_text("mine")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "link.png").symlink_to(tmp_path / "elsewhere.png")
    before = sorted(p.name for p in tmp_path.iterdir())
    ran = run("export", checkpoint, "-o", tmp_path / "bundle", "--plot", tmp_path / place)
    assert (ran.code, ran.out) == (3, "") and "--plot" in ran.err and BEGUN not in ran.err
    assert sorted(p.name for p in tmp_path.iterdir()) == before and (tmp_path / "taken.png").read_text() == "mine"


def test_force_replaces_a_picture(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "error.PNG"
    path.write_text("old")
    options = ("-o", tmp_path / "bundle", "--plot", path)
    assert run("export", checkpoint, *options).code == 3 and not (tmp_path / "bundle").exists()
    assert run("export", checkpoint, *options, "--force").code == 0
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask()


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("command", ["export", "verify"])
def test_a_missing_matplotlib_is_named_before_any_work(
    checkpoint: Path, pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.chdir(tmp_path)
    ran = run(command, checkpoint if command == "export" else pristine, "--plot", "error.png")
    assert (ran.code, ran.out) == (4, "") and pip_install("plot") in ran.err
    assert ran.err.count("\n") == 1 and [p.name for p in tmp_path.iterdir()] == ["small.pt"]


def test_without_a_plot_matplotlib_is_not_imported(pristine: Path) -> None:
    code = (
        "import atexit, sys; atexit.register(lambda: print(sum(m.startswith('matplotlib') for m in sys.modules)))\n"
        "from s2mlp_deploy.cli.verify import main; sys.argv = ['s2mlp-verify', *sys.argv[1:]]; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(pristine), "--per-block"], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "0"


# s2mlp-verify


def test_verify_draws_a_bundle_and_shows_its_layers(pristine: Path, tmp_path: Path) -> None:
    ran = run("verify", pristine, "--plot", tmp_path / "error.png")
    assert ran.code == 0 and "error against depth" in ran.out and "stage0/block01" in ran.out
    assert (tmp_path / "error.png").exists()
    found = run("verify", pristine, "--plot", tmp_path / "error.png", "--force", "--json").json
    assert found["plot"] == str(tmp_path / "error.png") and list(found["layers"])[-1] == "logits"
    assert run("verify", pristine, "--json").json["plot"] is None


def test_a_bundle_that_fails_is_drawn_too(bundle: Path, tmp_path: Path) -> None:
    alter_weight(bundle, "stage0.blocks.0.fc1.weight", by=float("nan"))
    ran = run("verify", bundle, "--plot", tmp_path / "error.png")
    assert ran.code == 1 and "FAILED" in ran.out and (tmp_path / "error.png").exists()


def test_verify_refuses_what_cannot_be_drawn_before_it_runs_anything(
    checkpoint: Path, pristine: Path, tmp_path: Path
) -> None:
    assert run("export", checkpoint, "--format", "ort", "-o", tmp_path / "ort").code == 0
    ran = run("verify", tmp_path / "ort", "--plot", tmp_path / "p.png")
    assert ran.code == 2 and "--format ort does not show its layers" in ran.err and "checking" not in ran.err
    ran = run("verify", pristine, "--plot", pristine / "p.png")
    assert ran.code == 2 and "lies in the bundle" in ran.err
    (tmp_path / "p.png").write_text("mine")
    ran = run("verify", pristine, "--plot", tmp_path / "p.png")
    assert ran.code == 3 and "--force" in ran.err and (tmp_path / "p.png").read_text() == "mine"
    ran = run("verify", tmp_path / "nowhere", "--plot", tmp_path / "q.png")
    assert ran.code == 3 and "does not exist" in ran.err
    assert run("verify", pristine, "--force").err == "error: --force is for --plot: nothing else is written\n"
