"""The measurements of repairs: their goals, their table, and a small network that is exported and timed."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from rich.console import Console

from helpers.shift_nets import NETS as SMALL
from s2mlp_deploy.system.process_cost import ProcessCost
from s2mlp_studies.repair import measure
from s2mlp_studies.repair.goals import DEEP, YOLO, repair_goals
from s2mlp_studies.repair.measure import AFTER, BEFORE, GraphCount, Plan, Repaired
from s2mlp_studies.repair.nets import NETS
from s2mlp_studies.repair.table import document, repair_tables


def synthetic(model: str = DEEP, kernels: int | None = 90) -> Repaired:
    """Half the time, 0.3 of the kernels, 15 s and 2.5 times the file."""
    return Repaired(
        model,
        200,
        GraphCount(500, 96, 300),
        GraphCount(100, 0, kernels),
        {BEFORE: (10.0, 20.0, 12.0), AFTER: (5.0, 10.0, 6.0)},
        (ProcessCost(15.0, 20.0, 800),),
        ProcessCost(1.0, 1.0, 300),
    )


def test_goals_are_held_against_the_right_ratios() -> None:
    goals = repair_goals(synthetic())
    assert [goal.measured.median for goal in goals] == pytest.approx([0.5, 0.3, 15, 2.5])
    assert [goal.at_most for goal in goals] == [0.75, 0.5, 20, 3] and all(goal.holds for goal in goals)


def test_the_cost_of_a_repair_counts_for_the_largest_file_and_speed_for_all() -> None:
    yolo, other = repair_goals(synthetic(YOLO)), repair_goals(synthetic("TSM-like", None))
    assert [goal.at_most for goal in yolo] == [0.75, 0.5]
    assert [(goal.what, goal.at_most) for goal in other] == [("latency of repaired / exported", 1)]


def test_the_networks_of_the_goals_are_measured() -> None:
    assert {DEEP, YOLO} < {net.name for net in NETS} and len(NETS) == 4


def test_the_table_fits_and_shows_the_graph_before_and_after() -> None:
    console = Console(width=120)
    with console.capture() as capture:
        console.print(repair_tables([synthetic(), synthetic("TSM-like", None)]))
    text = capture.get()
    assert "3 interleaved rounds" in text and "…" not in text
    rows = [line.replace("│", " ").split() for line in text.splitlines() if DEEP in line]
    gain = ["12.0", "→", "6.0", "0.50", "[0.50,", "0.50]", "500", "→", "100", "96", "→", "0", "300", "→", "90"]
    assert rows == [[DEEP, *gain], [DEEP, "0.0", "15.0", "20.0", "0", "2.50", "[2.50,", "2.50]"]]


def test_the_document_keeps_raw_samples() -> None:
    found = json.loads(json.dumps(document(synthetic())))
    assert found["samples_ms"][AFTER] == [5.0, 10.0, 6.0] and found["before"]["scatter_nds"] == 96
    assert found["repairs"][0]["peak_rss_bytes"] == 800


def test_two_files_are_timed_in_the_same_rounds() -> None:
    net = SMALL["s2mlp"]
    files = {BEFORE: net.file("dynamo", "fixed"), AFTER: net.file("dynamo", "fixed")}
    found = measure.latencies(files, (2, *net.shape), Plan(6, 1, False, random.Random(0)))
    assert {name: len(samples) for name, samples in found.items()} == {BEFORE: 6, AFTER: 6}
    assert all(ms > 0 for samples in found.values() for ms in samples)


def test_nodes_and_kernels_are_counted(tmp_path: Path) -> None:
    net = SMALL["shiftvit"]
    found = measure.count(net.file("dynamo", "fixed"), (2, *net.shape), None)
    assert found.nodes > found.scatter_nds > 0 and found.kernels is None
    pytest.importorskip("tensorrt_rtx")
    built = measure.count(net.file("dynamo", "fixed"), (2, *net.shape), tmp_path / "engine")
    assert built.kernels and built.nodes == found.nodes and not list(tmp_path.iterdir())
