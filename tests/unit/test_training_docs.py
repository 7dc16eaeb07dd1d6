"""docs/training.md: its Python blocks run in order, and its figures are those that were recorded."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
import torch

from helpers.support import ROOT

PAGE = (ROOT / "docs" / "training.md").read_text("utf-8")


@pytest.fixture
def threads() -> Iterator[None]:
    """Restores torch's number of threads, which the page sets."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_the_blocks_run_as_they_stand() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    names: dict[str, object] = {"__name__": "docs.training"}
    for block in blocks:
        exec(compile(block, "docs/training.md", "exec"), names)
    assert len(blocks) == 4 and PAGE.count("\nassert ") == 6


def test_the_accuracies_are_those_recorded_beside_the_checkpoints() -> None:
    for name in ("fashion_mnist_v2_inplace", "fashion_mnist_inplace"):
        recipe = json.loads((ROOT / "examples" / f"{name}.json").read_text("utf-8"))
        assert f"{recipe['test_correct'] / recipe['test_images']:.2%}" in PAGE
