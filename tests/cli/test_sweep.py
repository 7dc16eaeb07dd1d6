"""``s2mlp-sweep``: what it makes, prints and refuses, and that it goes on after it was killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from helpers import processes, sweeps
from helpers.support import run, save_checkpoint, small_spec
from s2mlp_deploy.bundle.read import read_bundle
from s2mlp_deploy.pipeline.sweep import task
from s2mlp_deploy.pipeline.sweep.item import items_of
from s2mlp_deploy.pipeline.sweep.local_workers import LocalWorkers
from s2mlp_deploy.pipeline.sweep.plan import read_plan

PLAN = """
[[export]]
checkpoints = ["runs/*.pt"]
precisions = ["fp32", "fp16"]
[export.source]
shift_semantics = "paper"
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a plan of six exports, of which two fail: one of the checkpoints is damaged."""
    directory = tmp_path_factory.mktemp("sweep")
    (directory / "runs").mkdir()
    for seed, name in enumerate("ab"):
        save_checkpoint(directory / "runs" / f"{name}.pt", small_spec(), seed=seed)
    (directory / "runs" / "damaged.pt").write_bytes(b"nothing")
    (directory / "plan.toml").write_text(PLAN)
    return directory


def descendants(pid: int) -> set[int]:
    """The processes that ``pid`` has started."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if parent == pid:
                found.add(int(entry.name))
    return found


def running(pids: set[int]) -> bool:
    return any(os.path.exists(f"/proc/{pid}") for pid in pids)


def test_it_goes_on_after_it_was_killed_and_lists_what_failed(place: Path) -> None:
    """Killed after the first bundle; the workers end with it. The second run makes the rest, and the third nothing."""
    out = place / "out"
    call = "from s2mlp_deploy.cli.entry_points import sweep; sweep()"
    options = (place / "plan.toml", "-o", out, "--workers", "1")
    first = subprocess.Popen([sys.executable, "-c", call, *options], stderr=subprocess.DEVNULL)
    while not list(out.glob("*/manifest.json")):
        assert first.poll() is None
        time.sleep(0.01)
    workers = descendants(first.pid)
    first.kill()
    assert first.wait() == -signal.SIGKILL and workers
    for _ in range(1000):
        if not running(workers):
            break
        time.sleep(0.01)
    assert not running(workers)
    done = len(list(out.glob("*/manifest.json")))
    assert 0 < done < 4 and not (out / "results.jsonl").exists()

    second = run("sweep", place / "plan.toml", "-o", out, "--workers", 1, "--json")
    assert second.code == 1, second.err
    assert second.json["counts"] == {"there": done, "made": 4 - done, "failed": 2}
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert lines == second.json["items"] and len(lines) == 6
    failed = [line for line in lines if line["error"]]
    assert {Path(line["checkpoint"]).name for line in failed} == {"damaged.pt"}
    assert {line["error"]["exit_code"] for line in failed} == {3}
    assert {path.name for path in out.iterdir()} == {
        "results.jsonl",
        *(line["key"] for line in lines if line["bundle"]),
    }
    for line in lines:
        if line["bundle"]:
            manifest = read_bundle(Path(line["bundle"])).manifest
            assert (manifest.format, manifest.precision, manifest.source.sha256) == (
                line["format"],
                line["precision"],
                line["sha256"],
            )
            assert line["relative_l2"] < line["limit"]

    (place / "runs" / "damaged.pt").unlink()
    third = run("sweep", place / "plan.toml", "-o", out)
    assert third.code == 0 and "0 exports made, 4 there already" in third.out
    assert third.out.count("│ a.pt") == 2


def test_a_checkpoint_that_changes_meanwhile_and_a_full_disk_fail_alone(place: Path) -> None:
    items = items_of(read_plan(place / "plan.toml"), place / "plan.toml")
    save_checkpoint(place / "runs" / "b.pt", small_spec(), seed=9)
    output = place / "other"
    output.mkdir()
    workers = LocalWorkers(partial(sweeps.make_on_a_full_disk, output=output), 1)
    found = {outcome.key: outcome for outcome in workers.run(items)}
    errors = {(item.checkpoint.stem, item.choice.precision): found[item.key].error for item in items}
    (done,) = (name for name, error in errors.items() if not error)
    assert done == ("a", "fp32") and len(errors) == 4
    assert {error.exit_code for error in errors.values() if error} == {3}
    assert "File too large" in str(errors["a", "fp16"])
    assert "b.pt is not the file that was requested" in str(errors["b", "fp32"])
    assert [path.name for path in output.iterdir()] == [key for key, outcome in found.items() if not outcome.error]


def test_a_plan_that_is_refused_leaves_nothing(place: Path, tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text('[[export]]\ncheckpoints = ["*.pt"]\nformat = "onnx"')
    ran = run("sweep", tmp_path / "plan.toml", "-o", tmp_path / "out", "--json")
    assert ran.code == 3 and ran.json["error"]["kind"] == "PlanError"
    assert "format: unknown key" in ran.err and not (tmp_path / "out").exists()


def test_shipping_is_for_clusters(place: Path, tmp_path: Path) -> None:
    ran = run("sweep", place / "plan.toml", "-o", tmp_path / "out", "--ship")
    assert ran.code == 2 and "--ship is for --ray" in ran.err and not list(tmp_path.iterdir())


@pytest.mark.thorough
@pytest.mark.parametrize("seed", range(5))
def test_it_goes_on_after_it_was_killed_at_random_moments(seed: int, place: Path, tmp_path: Path) -> None:
    """Killed again and again, ever later, until it is done: then everything is there, and nothing else."""
    rng, out = random.Random(seed), tmp_path / "out"
    (tmp_path / "runs").mkdir()
    for i in range(3):
        save_checkpoint(tmp_path / "runs" / f"{i}.pt", small_spec(), seed=i)
    (tmp_path / "plan.toml").write_text(PLAN.replace("[export.source]", "latency = true\n[export.source]"))
    for attempt in range(1, 100):
        running = processes.start("sweep", tmp_path / "log", tmp_path / "plan.toml", "-o", out, "--workers", 2)
        running.process.join(rng.uniform(0, 2 * attempt))
        running.send(rng.choice((signal.SIGKILL, signal.SIGTERM, signal.SIGINT)))
        if running.wait() == 0:
            break
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert len(lines) == 6 and all(line["latency"] and not line["error"] for line in lines)
    assert {path.name for path in out.iterdir()} == {"results.jsonl", "measured", *(line["key"] for line in lines)}
    for line in lines:
        read_bundle(Path(line["bundle"]))


def test_a_bundle_is_no_place_for_others(place: Path, bundle: Path) -> None:
    ran = run("sweep", place / "plan.toml", "-o", bundle)
    assert ran.code == 3 and "is a bundle, and a sweep puts its bundles into a directory of their own" in ran.err


def test_a_bundle_whose_manifest_is_damaged_is_not_taken_for_done(place: Path, tmp_path: Path) -> None:
    item = items_of(read_plan(place / "plan.toml"), place / "plan.toml")[0]
    (tmp_path / item.key).mkdir()
    (tmp_path / item.key / "manifest.json").write_text("{}")
    outcome = task.make(item, tmp_path)
    assert outcome.error and outcome.error.exit_code == 3 and "manifest.json" in outcome.error.message
