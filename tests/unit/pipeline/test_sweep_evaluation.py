"""Accuracy on labelled images in portions: the counts of one process, whoever works on them; and timings one at a time."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.support import run, save_checkpoint, small_spec
from s2mlp_deploy.bundle.contents import MANIFEST
from s2mlp_deploy.bundle.read import read_bundle
from s2mlp_deploy.data import images
from s2mlp_deploy.errors import DataError
from s2mlp_deploy.formats import registry
from s2mlp_deploy.pipeline.sweep import evaluation
from s2mlp_deploy.pipeline.sweep import sweep as sweeping
from s2mlp_deploy.pipeline.sweep.evaluation import LabelledFolder, evaluate, portions_of, tally, total
from s2mlp_deploy.pipeline.sweep.sweep import SweepRequest, sweep
from s2mlp_deploy.system import bench_slot

COUNT, WRONG = 45, 9


@pytest.fixture(scope="module")
def labelled(pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images in folders of the class that the artifact itself names, but for some that lie in another."""
    place = tmp_path_factory.mktemp("labelled")
    bundle = read_bundle(pristine)
    spec, rng = bundle.manifest.classifier, np.random.default_rng(0)
    session = registry.find("onnx").open(bundle.artifact)
    for i in range(COUNT):
        colour = rng.integers(0, 256, (1, 1, 3))
        pixels = np.clip(rng.integers(-60, 60, (*spec.image_size, 3)) + colour, 0, 255).astype(np.uint8)
        file = place / f"{i}.png"
        Image.fromarray(pixels).save(file)
        named = session.run(images.load([file], bundle.manifest.images, spec.image_size)).argmax()
        folder = place / str((named + (i % 5 == 0)) % spec.classes)
        folder.mkdir(exist_ok=True)
        file.rename(folder / file.name)
    return place


def test_portions_hold_every_image_once_in_whole_batches(
    pristine: Path, labelled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "PORTION", 10)
    portions = portions_of("key", pristine, LabelledFolder(labelled))
    assert [(one.first, one.last) for one in portions] == [(0, 16), (16, 32), (32, 45)]
    assert len({one.key for one in portions}) == 3
    assert [(one.first, one.last) for one in portions_of("key", pristine, LabelledFolder(labelled, 7))] == [(0, 7)]


def test_processes_count_as_one_does(pristine: Path, labelled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = evaluate(pristine, LabelledFolder(labelled))
    assert (whole.images, whole.right, whole.accuracy) == (COUNT, COUNT - WRONG, 0.8)
    monkeypatch.setattr(evaluation, "PORTION", 16)
    parts = [tally(one) for one in portions_of("key", pristine, LabelledFolder(labelled))]
    assert [one.images for one in parts] == [16, 16, 13] and total(parts).right == whole.right
    ran = run("verify", pristine, "--data", labelled, "--workers", 2, "--json")
    assert ran.code == 0, ran.err
    assert ran.json["accuracy"] == {"images": COUNT, "right": whole.right, "accuracy": 0.8, "recorded": None}


def test_what_cannot_be_evaluated_is_refused_by_name(pristine: Path, labelled: Path, bundle: Path) -> None:
    with pytest.raises(DataError, match="has no subfolders"):
        evaluate(pristine, LabelledFolder(labelled / "0"))
    assert "--data-count and --workers are for --data" in run("verify", pristine, "--workers", 2).err
    (portion,) = portions_of("key", bundle, LabelledFolder(labelled))
    (bundle / MANIFEST).write_text((bundle / MANIFEST).read_text() + " ")
    error = tally(portion).error
    assert error and error.exit_code == 3 and "was replaced while it was evaluated" in error.message


class Here:
    """Workers that are this process."""

    def __init__(self, task: Callable[[Any], Any], count: int) -> None:
        self._task = task

    def run(self, items: Iterable[Any]) -> Iterator[Any]:
        yield from map(self._task, items)


def test_a_sweep_measures_what_is_there_once(labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "LocalWorkers", Here)
    save_checkpoint(tmp_path / "small.pt", small_spec())
    (tmp_path / "plan.toml").write_text(
        f'[[export]]\ncheckpoints = ["*.pt"]\nlatency = true\n[export.evaluation]\ndata = "{labelled}"\n'
    )
    request = SweepRequest(tmp_path / "plan.toml", tmp_path / "out", workers=1)
    result = sweep(request)
    (outcome,) = result.outcomes()
    assert outcome.evaluation and (outcome.evaluation.images, outcome.evaluation.right) == (COUNT, COUNT - WRONG)
    assert outcome.latency and 0 < outcome.latency.low_ms <= outcome.latency.median_ms and outcome.latency.processor
    assert result.counts == {"made": 1}
    files = sorted((tmp_path / "out" / "measured").iterdir())
    assert len(files) == 2
    shown = run("sweep", request.plan, "-o", request.output)
    assert shown.code == 0, shown.err
    assert "ms a batch" in shown.out and "80.00%" in shown.out and "measured" not in shown.err
    files[0].unlink()  # killed before it was there
    (again,) = sweep(request).outcomes()
    assert again.evaluation == outcome.evaluation and again.status == "there"
    (tmp_path / "out" / outcome.key / MANIFEST).with_name("model.onnx").write_bytes(b"damaged")
    for file in (tmp_path / "out" / "measured").iterdir():
        file.unlink()
    result = sweep(request)
    (damaged,) = result.outcomes()
    assert damaged.status == "failed" and damaged.error and damaged.bundle and result.counts == {"failed": 1}
    assert [json.loads(line)["status"] for line in result.results.read_text().splitlines()] == ["failed"]


def test_only_one_times_on_a_machine(tmp_path: Path) -> None:
    entered, order = threading.Event(), list[str]()

    def second() -> None:
        entered.set()
        with bench_slot.held(tmp_path):
            order.append("second")

    with bench_slot.held(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        entered.wait()
        thread.join(0.1)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
