"""``s2mlp-bench --device N``: the GPU that CUDA shows to everything that is timed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from helpers.fake_cuda import FakeGpu, install
from helpers.support import command
from s2mlp_bench import environment
from s2mlp_bench.environment import VISIBLE, use_gpu


@pytest.mark.parametrize(
    ("before", "number", "after"),
    [("", 1, "1"), ("2,3", 1, "3"), ("GPU-8a,GPU-5c", 0, "GPU-8a"), ("5", 0, "5")],
)
def test_it_is_counted_among_those_that_are_visible(
    before: str, number: int, after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VISIBLE, before)
    use_gpu(number)
    assert os.environ[VISIBLE] == after


def test_one_that_is_hidden_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VISIBLE, "2,3")
    ran = command("s2mlp-bench", "s2mlp_bench.cli", "main", tmp_path, "--device", 2)
    assert ran.code == 2 and "--device 2: CUDA_VISIBLE_DEVICES=2,3 shows 2 GPUs, numbered from 0" in ran.err
    assert os.environ[VISIBLE] == "2,3"


def test_the_gpus_stand_in_the_environment_of_a_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    install(FakeGpu(names=("NVIDIA L4",)), monkeypatch)
    assert environment.describe()["gpus"] == ["NVIDIA L4"]
    install(FakeGpu(driver=None), monkeypatch)
    assert "gpus" not in environment.describe()
