"""The Python in docs/apps.md runs as it stands there, and its test of an app finds what is wrong with one."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.formats import exported
from helpers.support import ROOT, save_checkpoint, small_spec
from s2mlp_deploy.bundle.read import read_bundle
from s2mlp_deploy.data import images
from s2mlp_deploy.formats import registry
from s2mlp_deploy.schema.array import Array

pytest.importorskip("ai_edge_litert", reason="needs ai-edge-litert")

PAGE = (ROOT / "docs" / "apps.md").read_text("utf-8")
ON_A_BOARD, TESTING = re.findall("```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("app")
    (place / "pictures" / "0").mkdir(parents=True)
    for i in range(2):
        pixels = np.random.default_rng(i).integers(0, 256, (31, 40 + i, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(place / "pictures" / "0" / f"{i}.png")
    checkpoint = save_checkpoint(place / "small.pt", small_spec())
    exported(
        checkpoint,
        "--format",
        "litert",
        "--golden-images",
        place / "pictures",
        "--mean",
        0.5,
        "--std",
        0.25,
        "-o",
        place / "out",
    )
    return place / "out"


@pytest.fixture
def app(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """An app whose parts are right, in the bundle's directory."""
    monkeypatch.chdir(bundle)
    opened = read_bundle(bundle)
    session = registry.find("litert").open(opened.artifact)

    def prepare(file: str) -> Array:
        manifest = opened.manifest
        return images.prepare(bundle / file, manifest.images, manifest.classifier.image_size)

    return {"prepare": prepare, "run": session.run}


def test_the_program_for_a_board_classifies(app: dict[str, Any]) -> None:
    prepared = np.random.default_rng(0).standard_normal((1, 3, 20, 28)).astype(np.float32)
    names: dict[str, Any] = {"prepared": prepared}
    exec(ON_A_BOARD, names)
    np.testing.assert_allclose(names["logits"], app["run"](prepared), rtol=0, atol=1e-5)


def test_the_test_of_an_app_passes_what_is_right(app: dict[str, Any]) -> None:
    exec(TESTING, app)


WRONG: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "image-00.png is prepared otherwise": ("prepare", lambda prepare: lambda file: prepare(file)[::-1]),
    "input/": ("run", lambda run: lambda given: run(given) * np.float32(1.0001)),
}


@pytest.mark.parametrize("said", WRONG)
def test_the_test_of_an_app_finds_what_is_wrong(said: str, app: dict[str, Any]) -> None:
    """Channels in another order, and logits off by a ten-thousandth."""
    part, spoil = WRONG[said]
    with pytest.raises(AssertionError, match=said):
        exec(TESTING, {**app, part: spoil(app[part])})
