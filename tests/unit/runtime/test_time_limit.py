"""Runs of graphs with loops end after a while, whatever the loops do."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from helpers import looping
from s2mlp_deploy.errors import ModelError, TimeLimitError
from s2mlp_deploy.graph import onnx_file
from s2mlp_deploy.pipeline.repair import trial
from s2mlp_deploy.runtime.onnxruntime import Loading, OnnxSession

INPUTS = {"input": np.ones((3, 32), np.float32)}


@pytest.mark.parametrize("optimization", ["none", "all"])
def test_a_loop_without_end_is_stopped(optimization: str, tmp_path: Path) -> None:
    loading = Loading(optimization=optimization, loop_seconds=0.2)  # type: ignore[arg-type]
    session = OnnxSession(looping.save(tmp_path / "model.onnx", looping.FOR_EVER), loading)
    started = time.monotonic()
    with pytest.raises(TimeLimitError, match=r"has loops and ran for 0\.2 s"):
        session.compute(INPUTS)
    assert time.monotonic() - started < 10


def test_a_loop_that_ends_is_not(tmp_path: Path) -> None:
    session = OnnxSession(looping.save(tmp_path / "model.onnx", 5))
    assert (session.compute(INPUTS)["logits"] == 5 * 0.5 - 1).all()
    assert (session.compute(INPUTS)["logits"] == 5 * 0.5 - 1).all(), "again"


def test_other_sizes_are_not_tried_where_a_model_runs_on_and_on(tmp_path: Path) -> None:
    path = looping.save(tmp_path / "model.onnx", looping.FOR_EVER)
    started = time.monotonic()
    with pytest.raises(ModelError, match="expected loops that end sooner"):
        trial.run(onnx_file.read(path), OnnxSession(path, Loading(loop_seconds=0.2)))
    assert time.monotonic() - started < 10
