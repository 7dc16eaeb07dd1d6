"""A sweep on a cluster loses nothing where a worker dies

`s2mlp-sweep --ray` hands the exports of a plan to a Ray cluster. Tried on a cluster of two nodes on one machine, which share its disk: every
export is made once and verifies, whichever worker is killed meanwhile.

Not covered: several machines, and GPUs.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from helpers import sweeps
from helpers.reliability.record import Trials
from helpers.support import ROOT, run, save_checkpoint, small_spec
from s2mlp_deploy.pipeline.sweep import task
from s2mlp_deploy.pipeline.sweep.item import items_of
from s2mlp_deploy.pipeline.sweep.plan import read_plan
from s2mlp_deploy.pipeline.sweep.ray_workers import RayWorkers

PLAN = '[[export]]\ncheckpoints = ["*.pt"]\nprecisions = ["fp32", "fp16"]\n[export.source]\nshift_semantics = "paper"\n'


@pytest.fixture(scope="module")
def cluster(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Two nodes of one core each."""
    if not request.config.getoption("--thorough"):
        pytest.skip("only with --thorough: a cluster takes a minute to start")
    if find_spec("ray") is None:
        pytest.skip("no Ray: pip install ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_raylet_start_wait_time_s", "180")
        patch.setenv("PYTHONPATH", str(ROOT / "tests"))
        found = two_nodes()
        yield found
        found.shutdown()


def two_nodes() -> Any:
    """A cluster. Ray waits half a minute for a node, which a busy machine may miss: then another is started."""
    from ray.cluster_utils import Cluster

    for left in (2, 1, 0):
        found = Cluster()
        try:
            found.add_node(num_cpus=1, include_dashboard=False, resources={"bench_slot": 1})
            found.add_node(num_cpus=1, resources={"bench_slot": 1})
            found.wait_for_nodes(timeout=120)
            return found
        except Exception:
            found.shutdown()
            if not left:
                raise
    return None


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A plan of ten exports."""
    for seed in range(5):
        save_checkpoint(tmp_path / f"{seed}.pt", small_spec(), seed=seed)
    (tmp_path / "plan.toml").write_text(PLAN)
    return tmp_path


def test_a_plan_on_two_nodes(cluster: Any, place: Path, trials: Trials) -> None:
    """Every export of a plan is made on two nodes, and a second run makes none."""
    ran = run("sweep", place / "plan.toml", "-o", place / "out", "--ray", cluster.address, "--json")
    assert ran.code == 0 and ran.json["counts"] == {"made": 10}, ran.err
    for item in ran.json["items"]:
        assert run("verify", item["bundle"]).code == 0
    again = run("sweep", place / "plan.toml", "-o", place / "out", "--ray", cluster.address, "--json")
    assert again.json["counts"] == {"there": 10}
    trials.tried("exports", 10)


def test_nodes_that_share_no_storage(cluster: Any, place: Path, trials: Trials) -> None:
    """With `--ship` the checkpoints travel through Ray, and the bundles come back: each verifies, and is that of a sweep on this machine."""
    ran = run("sweep", place / "plan.toml", "-o", place / "out", "--ray", cluster.address, "--ship", "--json")
    assert ran.code == 0 and ran.json["counts"] == {"made": 10}, ran.err
    (item, *_) = items_of(read_plan(place / "plan.toml"), place / "plan.toml")
    assert not task.make(item, place).error
    assert (place / "out" / item.key / "manifest.json").read_bytes() == (
        place / item.key / "manifest.json"
    ).read_bytes()
    for found in ran.json["items"]:
        assert run("verify", found["bundle"]).code == 0 and found["checkpoint"].startswith(str(place))
    trials.tried("exports", 10)


def test_timings_on_a_cluster(cluster: Any, place: Path, trials: Trials) -> None:
    """A plan with `latency = true`: each bundle is timed, where its node's `bench_slot` is free."""
    (place / "plan.toml").write_text(PLAN.replace("[export.source]", "latency = true\n[export.source]"))
    ran = run("sweep", place / "plan.toml", "-o", place / "out", "--ray", cluster.address, "--json")
    assert ran.code == 0 and all(item["latency"]["median_ms"] > 0 for item in ran.json["items"]), ran.err
    trials.tried("bundles timed", 10)


def test_workers_that_are_killed(cluster: Any, place: Path, trials: Trials) -> None:
    """Workers are killed in the middle of two exports: all are made, and no scratch directory stays."""
    (place / "marks").mkdir()
    (place / "out").mkdir()
    items = items_of(read_plan(place / "plan.toml"), place / "plan.toml")
    workers = RayWorkers(cluster.address, place / "out", partial(sweeps.killed_once, marks=place / "marks"))
    found = list(workers.run(items))
    assert [outcome.error for outcome in found] == [None] * 10
    assert len(list((place / "marks").iterdir())) == 2
    assert {path.name for path in (place / "out").iterdir()} == {item.key for item in items}
    trials.tried("workers killed", 2)


def test_storage_that_a_node_does_not_see(cluster: Any, place: Path, trials: Trials) -> None:
    """A checkpoint is gone when its export begins: that item fails, and names the node."""
    items = items_of(read_plan(place / "plan.toml"), place / "plan.toml")[:1]
    (place / "0.pt").unlink()
    (outcome,) = RayWorkers(cluster.address, place, task.make).run(items)
    assert outcome.error and f"the node {socket.gethostname()} does not see" in outcome.error.message
    trials.tried("items refused")
