"""Sweeps on Ray, with a stand-in that runs tasks at once; tests/reliability/test_ray.py has a real cluster."""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from helpers import sweeps
from s2mlp_deploy.bundle.read import read_bundle
from s2mlp_deploy.errors import Error, InputError, RuntimeMissingError, UsageError
from s2mlp_deploy.pipeline.sweep import ray_shipping
from s2mlp_deploy.pipeline.sweep.item import Choice, Item
from s2mlp_deploy.pipeline.sweep.outcome import Outcome
from s2mlp_deploy.pipeline.sweep.plan import Group, Judgement
from s2mlp_deploy.pipeline.sweep.ray_workers import BENCH_SLOT, RayWorkers, work_on_node, work_on_shipped
from s2mlp_deploy.system.version import __version__


class RayError(Exception):
    """As ``ray.exceptions.RayError``."""


class Ray(ModuleType):
    """The functions of Ray that the workers use: a task runs when its result is taken, and one of the item ``dies`` dies."""

    def __init__(self, *, dies: str = "", refuses: Exception | None = None, **resources: float) -> None:
        super().__init__("ray")
        self.exceptions = SimpleNamespace(RayError=RayError)
        self.calls: list[dict[str, int]] = []
        self.sent: list[Any] = []
        self.most, self.connected, self._dies, self._refuses, self._resources = 0, False, dies, refuses, resources

    def init(self, **_: Any) -> None:
        if self._refuses:
            raise self._refuses
        self.connected = True

    def shutdown(self) -> None:
        self.connected = False

    def cluster_resources(self) -> dict[str, float]:
        return self._resources

    def remote(self, **_: Any) -> Any:
        def options(task: Any, **given: int) -> Any:
            self.calls.append(given)
            return SimpleNamespace(remote=partial(partial, task))

        return lambda task: SimpleNamespace(options=partial(options, task))

    def put(self, content: Any) -> Any:
        self.sent.append(content)
        return content

    def wait(self, running: list[Any]) -> tuple[list[Any], list[Any]]:
        self.most = max(self.most, len(running))
        return running[-1:], running[:-1]

    def get(self, task: Any) -> Any:
        if task.args[0].key == self._dies:
            raise RayError("The worker died unexpectedly while executing this task.")
        return task()


@pytest.fixture
def address() -> Iterator[str]:
    """Where something answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def make(item: Item, output: Path) -> Outcome:
    return replace(sweeps.outcome(item), bundle=str(output / item.key))


def ran(ray: Ray, items: list[Item], address: str, output: Path, monkeypatch: pytest.MonkeyPatch) -> list[Outcome]:
    monkeypatch.setitem(sys.modules, "ray", ray)
    found = list(RayWorkers(address, output, make).run(items))
    assert not ray.connected
    return found


@pytest.fixture
def items(tmp_path: Path) -> list[Item]:
    (tmp_path / "best.pt").touch()
    return [replace(item, checkpoint=tmp_path / "best.pt") for item in sweeps.items(20)]


def test_each_item_is_made_and_few_are_handed_out_at_a_time(
    items: list[Item], address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = Ray(CPU=3)
    found = ran(ray, items, address, tmp_path, monkeypatch)
    assert sorted(outcome.key for outcome in found) == [item.key for item in items]
    assert {outcome.bundle for outcome in found} == {str(tmp_path / item.key) for item in items}
    assert ray.most == 6 and ray.calls == [{"num_cpus": 1, "num_gpus": 0}] * 20


def test_engines_for_gpus_take_one_where_the_cluster_has_any(
    items: list[Item], address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = replace(items[0], choice=Choice("trt", "fp32", None, "auto"))
    for gpus in (0, 2):
        ray = Ray(CPU=1, GPU=gpus)
        ran(ray, [engine], address, tmp_path, monkeypatch)
        assert ray.calls == [{"num_cpus": 1, "num_gpus": int(gpus > 0)}]


def test_an_item_whose_worker_dies_each_time_has_failed(
    items: list[Item], address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {o.key: o for o in ran(Ray(CPU=1, dies=items[1].key), items[:3], address, tmp_path, monkeypatch)}
    assert [found[item.key].status for item in items[:3]] == ["made", "failed", "made"]
    error = found[items[1].key].error
    assert error and error.kind == "WorkerDied" and "The worker died unexpectedly" in error.message


def test_a_node_with_another_release_or_without_the_storage_says_so(items: list[Item], tmp_path: Path) -> None:
    other = work_on_node(items[0], tmp_path, "9.9", make)
    assert other.error and other.error.exit_code == 4 and "and the sweep was started with 9.9" in other.error.message
    unseen = work_on_node(items[0], tmp_path / "nowhere", __version__, make)
    assert unseen.error and "does not see" in unseen.error.message and "mount the same storage" in unseen.error.message


def refusal(address: str, tmp_path: Path) -> Error:
    with pytest.raises(Error) as found:
        list(RayWorkers(address, tmp_path, make).run([]))
    return found.value


def test_what_cannot_be_connected_to_is_refused(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mismatch = RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.9.0\n    Python: 3.9.1")
    monkeypatch.setitem(sys.modules, "ray", Ray(refuses=mismatch))
    found = refusal(address, tmp_path)
    assert isinstance(found, RuntimeMissingError) and "has other versions than this machine" in str(found)
    assert "Ray: 2.9.0 Python: 3.9.1" in str(found)
    monkeypatch.setitem(sys.modules, "ray", Ray(refuses=ConnectionError("Could not find any running Ray instance.")))
    assert "no Ray cluster answers at auto (Could not find any" in str(refusal("auto", tmp_path))
    found = refusal("127.0.0.1:1", tmp_path)
    assert found.exit_code == 4 and "no Ray cluster answers at 127.0.0.1:1 (Connection refused)" in str(found)
    for text in ("here", "here:", ":80", "host:port"):
        assert isinstance(refusal(text, tmp_path), UsageError)
    monkeypatch.setitem(sys.modules, "ray", None)
    assert "--ray needs the package ray" in str(refusal(address, tmp_path))


def test_timings_take_the_slot_of_a_node_and_a_cluster_without_any_is_refused(
    items: list[Item], address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = Ray(CPU=4, bench_slot=2)
    monkeypatch.setitem(sys.modules, "ray", ray)
    list(RayWorkers(address, tmp_path, make, needs=BENCH_SLOT).run(items[:2]))
    assert ray.calls == [{"num_cpus": 1, "num_gpus": 0, "resources": {"bench_slot": 1.0}}] * 2
    monkeypatch.setitem(sys.modules, "ray", Ray(CPU=4))
    with pytest.raises(RuntimeMissingError, match=r"has the resource 'bench_slot'.*start each with `ray start"):
        list(RayWorkers(address, tmp_path, make, needs=BENCH_SLOT).run(items[:2]))


def test_files_are_shipped_once_and_bundles_come_back(
    pristine: Path, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a node that sees neither the checkpoint, nor the images, nor the output."""
    here, there = tmp_path / "here", tmp_path / "there"
    for place in (here / "train" / "0", there, tmp_path / "out"):
        place.mkdir(parents=True)
    monkeypatch.setattr("tempfile.tempdir", str(there))
    (here / "best.pt").write_bytes(b"weights")
    (here / "train" / "0" / "x.png").write_bytes(b"image")
    group = Group(checkpoints=("*.pt",), judgement=Judgement(data=here / "train"))
    items = [replace(item, checkpoint=here / "best.pt", group=group) for item in sweeps.items(3)]
    seen: list[Path] = []

    def task(item: Item, output: Path) -> Outcome:
        seen.extend(item.reads)
        assert item.checkpoint.read_bytes() == b"weights" and item.group.judgement.data
        assert (item.group.judgement.data / "0" / "x.png").read_bytes() == b"image"
        return sweeps.Copies(pristine, there).make(item, output)

    ray = Ray(CPU=1)
    monkeypatch.setitem(sys.modules, "ray", ray)
    found = list(RayWorkers(address, tmp_path / "out", task, ships=True).run(items))
    assert not [outcome.error for outcome in found if outcome.error]
    assert [cargo.name for cargo in ray.sent] == ["best.pt", "train"]
    assert all(there in path.parents for path in seen) and len(set(seen)) == 2
    for item in items:
        assert read_bundle(tmp_path / "out" / item.key).manifest == read_bundle(pristine).manifest
    assert {path.name for path in (tmp_path / "out").iterdir()} == {item.key for item in items}


def test_what_arrives_otherwise_than_it_was_sent_is_refused(
    items: list[Item], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    cargo = ray_shipping.pack(items[0].checkpoint)
    damaged = replace(cargo, files={"": b"other weights"})
    outcome, made = work_on_shipped(items[0], __version__, make, damaged)
    assert outcome.error and outcome.error.exit_code == 3 and "arrived with other contents" in outcome.error.message
    assert made is None
    monkeypatch.setattr(ray_shipping, "MOST_BYTES", 2)
    (tmp_path / "large").write_bytes(b"123")
    with pytest.raises(InputError, match="put it on storage that all nodes see"):
        ray_shipping.pack(tmp_path / "large")


def test_a_full_disk_fails_the_items_of_that_node_alone(
    pristine: Path, items: list[Item], address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    receive = ray_shipping.receive
    full = iter([False, True, False])

    def on_a_full_disk(cargo: ray_shipping.Cargo) -> Path:
        if next(full):
            raise OSError(errno.ENOSPC, "No space left on device", "model.onnx")
        return receive(cargo)

    monkeypatch.setattr(ray_shipping, "receive", on_a_full_disk)
    monkeypatch.setitem(sys.modules, "ray", Ray(CPU=1))
    (tmp_path / "out").mkdir()
    (tmp_path / "marks").mkdir()
    copies = sweeps.Copies(pristine, tmp_path / "marks")
    found = list(RayWorkers(address, tmp_path / "out", copies.make, ships=True).run(items[:3]))
    (failed,) = (outcome for outcome in found if outcome.error)
    assert failed.error and failed.error.message == "model.onnx: No space left on device"
    assert failed.error.exit_code == 3 and len(list((tmp_path / "out").iterdir())) == 2
