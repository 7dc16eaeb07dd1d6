"""The measurements of tunes: their goals, their table, and two small tunes that are measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from helpers.support import save_checkpoint, small_spec
from s2mlp_deploy.pipeline.request import EvidenceOptions
from s2mlp_deploy.pipeline.tune.request import Space
from s2mlp_deploy.system.progress import Listener
from s2mlp_studies.tune.goals import CHOICE, SECONDS, tune_goals
from s2mlp_studies.tune.measure import Tuned, measure_tune, request_for
from s2mlp_studies.tune.table import document, tune_table


def synthetic(second: str = "ort int8") -> Tuned:
    """A choice that takes 2% more than the best."""
    return Tuned("small", ("ort int8", second), 40.0, {"onnx int8": (1.0, 2.0, 1.0), "ort int8": (1.02, 2.04, 1.02)})


def test_goals_are_held_against_the_right_figures() -> None:
    goals = tune_goals(synthetic())
    assert [goal.measured.median for goal in goals] == pytest.approx([40.0, 1.02, 1.0])
    assert [goal.at_most or goal.at_least for goal in goals] == [SECONDS, CHOICE, 1]
    assert all(goal.holds for goal in goals)
    assert not tune_goals(synthetic("onnx int8"))[2].holds


def test_the_table_has_the_best_first_and_the_choices() -> None:
    console = Console(width=120)
    with console.capture() as capture:
        console.print(tune_table(synthetic()))
    rows = [line.replace("│", " ").split() for line in capture.get().splitlines() if "int8" in line]
    assert rows[0][:3] == ["onnx", "int8", "1.000"] and rows[1][-2:] == ["first,", "second"]
    assert document(synthetic())["seconds"] == 40.0


def test_small_tunes_are_measured(tmp_path: Path) -> None:
    checkpoint = save_checkpoint(tmp_path / "small.pt", small_spec(depth=1))
    request = request_for(checkpoint, tmp_path, tmp_path)
    space = Space(("onnx", "ort"), ("fp32",), ("auto",), (1,))
    found = measure_tune(replace(request, evidence=EvidenceOptions(), space=space), 6, Listener(), lambda text: None)
    assert found.samples_ms.keys() == {"onnx fp32, 1 thread", "ort fp32, 1 thread"}
    assert set(found.chosen) <= found.samples_ms.keys() and found.seconds > 0
