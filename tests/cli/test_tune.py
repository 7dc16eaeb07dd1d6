"""``s2mlp-tune``: what it publishes, prints and refuses, and that it goes on where it was."""

from __future__ import annotations

import json
import re
import signal
import time
from pathlib import Path

import pytest

from helpers import processes
from helpers.support import Ran, run, save_checkpoint, small_spec
from s2mlp_deploy import OutputOptions, Source
from s2mlp_deploy.bundle.read import read_bundle
from s2mlp_deploy.errors import CheckpointError
from s2mlp_deploy.pipeline.tune import energy
from s2mlp_deploy.pipeline.tune.request import Limits, Space, TuneRequest
from s2mlp_deploy.pipeline.tune.tune import tune as find_best
from s2mlp_deploy.pipeline.tune.workspace import Made

SMALL = ("--formats", "onnx,ort", "--precisions", "fp32", "--threads", "1")


def tune(*arguments: object) -> Ran:
    return run("tune", *arguments)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("tuned") / "small.pt", small_spec(channels=16, depth=1))


@pytest.fixture(scope="module")
def kept(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ran]:
    """A tune in JSON, and its place; its candidates are kept."""
    place = tmp_path_factory.mktemp("kept")
    return place, tune(checkpoint, *SMALL, "-o", place / "best", "--keep", "--json", "--png", place / "best.png")


def test_the_best_is_an_ordinary_bundle_with_the_bytes_of_an_export(
    kept: tuple[Path, Ran], checkpoint: Path, tmp_path: Path
) -> None:
    place, ran = kept
    assert ran.code == 0, ran.err
    report = ran.json["report"]
    (taken,) = (row for row in report["rows"] if row["outcome"] == "taken")
    assert taken["name"] == report["taken"] and report["taken"] in report["decision"]
    flags = taken["flags"]
    assert run("export", checkpoint, *flags, "-o", tmp_path / "same").code == 0
    assert read_bundle(place / "best").manifest == read_bundle(tmp_path / "same").manifest
    assert (place / "best" / "manifest.json").read_bytes() == (tmp_path / "same" / "manifest.json").read_bytes()
    assert run("verify", place / "best").code == 0


def test_the_report_has_every_candidate_with_its_figures_and_its_reason(kept: tuple[Path, Ran]) -> None:
    place, ran = kept
    report = ran.json["report"]
    assert json.loads((place / "best.json").read_bytes()) == report
    rows = {row["name"]: row for row in report["rows"]}
    assert {"onnx fp32, 1 thread", "ort fp32, 1 thread"} <= rows.keys()
    assert all(row["milliseconds"]["median"] > 0 and row["figures"]["size_bytes"] > 0 for row in rows.values())
    assert all(row["reason"] or row["outcome"] == "taken" for row in rows.values())
    assert any(row["on_front"] for row in rows.values())
    assert any(row["lowering"] == "slice" for row in rows.values())  # of the fast ones other lowerings were tried
    assert (place / "best.png").stat().st_size > 1000
    assert not [one for one in report["excluded"] if "onnx fp32" in one["name"]]


def test_a_second_tune_takes_over_what_is_there_and_says_so_in_a_table(
    kept: tuple[Path, Ran], checkpoint: Path
) -> None:
    place, first = kept
    made = {row["name"].partition(",")[0] for row in first.json["report"]["rows"]}
    assert len(made) >= 2
    ran = tune(checkpoint, *SMALL, "--max-size", "1GB", "-o", place / "best", "--force")
    assert ran.code == 0, ran.err
    # Other lowerings are tried of the fast ones, which may be others in the second race; nothing is made twice.
    assert not made & set(re.findall(r"^\d+ of \d+, (.+): (?:compiling|writing)", ran.err, re.MULTILINE))
    assert "candidates" in ran.out and "taken" in ran.out and "s2mlp-export" in ran.out
    assert not (place / "best.tuning").exists()  # it was published, and nobody asked to keep them


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--max-accuracy-drop", "0.5"), 2, "--max-accuracy-drop needs --data"),
        (("--calibration", "synthetic"), 2, "measuring speed alone"),
        (("--objective", "energy"), 4, "--objective energy: the kernel shows no energy counter"),
        (("--formats", "nope"), 2, "no exporter for format 'nope'"),
        (("--precisions", "int8"), 2, "--precisions int8 needs --calibration"),
        (("--precisions", "fp31"), 2, "--precisions 'fp31': expected"),
        (("--lowerings", "roll"), 2, "--lowerings 'roll': expected"),
        (("--max-size", "30"), 2, "--max-size '30': expected a size"),
        (("--max-latency", "20"), 2, "--max-latency '20': expected a time"),
        (("--budget", "0s"), 2, "--budget '0s': expected a time"),
        (("--threads", "x"), 2, "--threads 'x': expected positive numbers"),
        (("--png", "best.gif"), 2, "--png best.gif is not a picture's name"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_request_that_cannot_be_fulfilled_is_refused_before_any_work(
    checkpoint: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(energy, "SYSFS", tmp_path)
    ran = tune(checkpoint, *arguments, "-o", tmp_path / "best")
    assert ran.code == code and said in ran.err, ran.err
    assert "reading the checkpoint" not in ran.err and not list(tmp_path.iterdir())


def test_limits_that_nothing_keeps_show_the_nearest_misses_and_publish_nothing(
    kept: tuple[Path, Ran], checkpoint: Path, tmp_path: Path
) -> None:
    ran = tune(checkpoint, *SMALL, "--max-size", "1KB", "-o", tmp_path / "best", "--json")
    assert ran.code == 1 and ran.json["error"]["kind"] == "LimitError"
    assert "The nearest: onnx fp32 (--max-size:" in ran.err
    assert {row["outcome"] for row in ran.json["report"]["rows"]} == {"beyond a limit"}
    assert not (tmp_path / "best").exists()
    late = tune(checkpoint, *SMALL, "--max-latency", "0.001us", "-o", tmp_path / "best")
    assert late.code == 1 and "--max-latency" in late.err and "The nearest" in late.err


def test_a_missing_checkpoint_is_an_error_of_input(tmp_path: Path) -> None:
    ran = tune(tmp_path / "none.pt", "-o", tmp_path / "best")
    assert ran.code == 3 and "none.pt" in ran.err


def test_a_checkpoint_that_changes_meanwhile_is_refused_and_nothing_is_published(tmp_path: Path) -> None:
    changing = save_checkpoint(tmp_path / "changing.pt", small_spec(depth=1))

    def change(made: Made) -> int:
        save_checkpoint(changing, small_spec(depth=1), seed=1)
        return 1

    space = Space(("onnx",), ("fp32",), ("auto",))
    request = TuneRequest(
        Source(changing), limits=Limits(memory_bytes=10), space=space, output=OutputOptions(tmp_path / "best")
    )
    with pytest.raises(CheckpointError, match="changed while it was worked on"):
        find_best(request, measure_memory=change)
    assert not (tmp_path / "best").exists()


def test_memory_is_that_of_a_process_which_runs_the_artifact(checkpoint: Path, tmp_path: Path) -> None:
    ran = tune(checkpoint, *SMALL, "--formats", "onnx", "--max-memory", "1MB", "-o", tmp_path / "best", "--json")
    assert ran.code == 1 and "--max-memory" in ran.err
    (row,) = ran.json["report"]["rows"]
    assert 20e6 < row["figures"]["memory_bytes"] < 500e6


def test_a_bundle_is_compiled_for_what_runs_here(checkpoint: Path, tmp_path: Path) -> None:
    assert run("export", checkpoint, "-o", tmp_path / "bundle").code == 0
    ran = tune(tmp_path / "bundle", "--formats", "onnx,ort", "--threads", "1", "-o", tmp_path / "best", "--json")
    assert ran.code == 0, ran.err
    assert {row["name"] for row in ran.json["report"]["rows"]} == {"onnx fp32, 1 thread", "ort fp32, 1 thread"}
    assert run("verify", tmp_path / "best").code == 0
    for option in (("--precisions", "fp32"), ("--calibration", tmp_path)):
        refused = tune(tmp_path / "bundle", *option, "-o", tmp_path / "other")
        assert refused.code == 2 and "give" in refused.err, refused.err


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_tune_that_was_killed_goes_on_where_it_was(checkpoint: Path, tmp_path: Path, number: int) -> None:
    arguments = (checkpoint, *SMALL, "-o", tmp_path / "best")
    running = processes.start("tune", tmp_path / "log", *arguments)
    work = tmp_path / "best.tuning"
    while running.process.is_alive() and not list(work.glob("onnx-fp32-*")):
        time.sleep(0.01)
    running.send(number)
    assert running.wait(60) in (-signal.SIGKILL, 130)
    (first,) = work.glob("onnx-fp32-*")
    written = (first / "manifest.json").stat().st_mtime_ns
    assert not (tmp_path / "best").exists()
    ran = tune(*arguments, "--keep", "--json")
    assert ran.code == 0, ran.err
    assert (first / "manifest.json").stat().st_mtime_ns == written
    assert "1 of 2, onnx fp32" not in ran.err and ran.json["report"]["taken"]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
