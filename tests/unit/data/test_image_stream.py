"""Images that stay in their files: as an array of them, and with the same figures in an export."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.support import PAPER_CHECKPOINT, TEST_IMAGES
from s2mlp_deploy import EvidenceOptions, Export, ExportRequest, Int8, OutputOptions, Source
from s2mlp_deploy.data import image_stream, images
from s2mlp_deploy.data.image_stream import ImageStream
from s2mlp_deploy.errors import DataError
from s2mlp_deploy.pipeline.deploy import deploy
from s2mlp_deploy.quantization.settings import Float32, PrecisionOptions
from s2mlp_deploy.runtime.session import BATCH
from s2mlp_deploy.schema.manifest import Preprocessing

PLAIN = Preprocessing(mean=(0.5,) * 3, std=(0.25,) * 3)
SIZE = (5, 7)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, ...]:
    rng = np.random.default_rng(0)
    for i in range(9):
        Image.fromarray(rng.integers(0, 256, (6, 9, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
    return tuple(sorted(tmp_path.iterdir()))


def test_it_is_indexed_as_the_array_would_be(files: tuple[Path, ...]) -> None:
    whole, stream = images.load(files, PLAIN, SIZE), ImageStream(files, PLAIN, SIZE)
    assert len(stream) == 9
    np.testing.assert_array_equal(stream[2:5], whole[2:5])
    np.testing.assert_array_equal(stream[[8, 0]], whole[[8, 0]])
    np.testing.assert_array_equal(list(stream), whole)
    np.testing.assert_array_equal(stream.of([1, 4, 6])[1:], whole[[4, 6]])


def test_few_images_are_kept_and_many_stay_in_their_files(
    files: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(image_stream.read(files, PLAIN, SIZE), np.ndarray)
    monkeypatch.setattr(image_stream, "MOST_BYTES", 9 * 4 * 3 * 5 * 7 - 1)
    assert isinstance(image_stream.read(files, PLAIN, SIZE), ImageStream)
    monkeypatch.undo()
    monkeypatch.setattr(image_stream, "MOST_KEPT", 8)
    monkeypatch.setattr(image_stream, "PORTION", 4)
    stream = image_stream.read(files, PLAIN, SIZE)
    assert [len(portion) for portion in image_stream.portions(stream)] == [4, 4, 1]
    np.testing.assert_array_equal(np.concatenate(list(image_stream.portions(stream))), images.load(files, PLAIN, SIZE))


def test_a_file_that_is_no_image_is_found_when_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"nothing")
    stream = ImageStream((tmp_path / "x.png",) * 2, PLAIN, SIZE)
    with pytest.raises(DataError, match=r"x\.png is not an image that can be read"):
        stream[:1]


def test_portions_hold_whole_batches() -> None:
    assert image_stream.PORTION % BATCH == 0


@pytest.mark.parametrize(
    "precision", [Float32(), Int8(TEST_IMAGES, 32, max_accuracy_drop=2.0)], ids=lambda one: one.row.name
)
def test_an_export_has_the_same_bytes_and_figures_whether_its_images_are_kept_or_not(
    precision: PrecisionOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def export(name: str) -> Export:
        evidence = EvidenceOptions(data=TEST_IMAGES, data_count=72)
        return deploy(
            ExportRequest(
                Source(PAPER_CHECKPOINT), precision=precision, evidence=evidence, output=OutputOptions(tmp_path / name)
            )
        )

    kept = export("kept")
    monkeypatch.setattr(image_stream, "MOST_KEPT", 0)
    monkeypatch.setattr(image_stream, "PORTION", 3 * BATCH)
    streamed = export("streamed")
    assert streamed.bundle.manifest == kept.bundle.manifest
    for field in ("evidence", "images", "trials", "distances"):
        assert getattr(streamed.report, field) == getattr(kept.report, field), field
