"""The test inputs of a candidate: golden images that take turns, and the logits expected for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from s2mlp_bench.backends import BundleBackend
from s2mlp_bench.candidate import Candidate, Point
from s2mlp_bench.network import samples_of
from s2mlp_deploy.bundle import golden_tensors
from s2mlp_deploy.bundle.contents import Bundle
from s2mlp_deploy.errors import UsageError
from s2mlp_deploy.runtime.session import Session
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.manifest import FLOAT_LOGITS
from s2mlp_deploy.schema.onnx_network import OnnxNetwork
from s2mlp_deploy.schema.size import Size, format_size

IMAGES = 8
"""Images at a size for which no golden tensors are in the bundle."""


@dataclass(frozen=True)
class TestInputs:
    """Images as the artifact takes them, (count, …), and the logits (count, classes) expected, computed by ``source``; of a
    network that no family describes numbers of samples, and all outputs as rows (:mod:`s2mlp_bench.network`)."""

    images: Array
    logits: Array
    source: str

    def turn(self, number: int, batch: int) -> tuple[Array, Array]:
        """A batch of images with their logits; each ``number`` starts at another image.

        It is put together now: all that there are, of a large batch, would take gigabytes.
        """
        count = len(self.images)
        chosen = np.arange(number, number + batch) % count
        return self.images[chosen], self.logits[chosen]


def of_bundle(bundle: Bundle) -> TestInputs:
    """The bundle's golden images of the model's own size, and the reference's logits."""
    manifest = bundle.manifest
    if isinstance(manifest.spec, OnnxNetwork):
        samples = samples_of(bundle)
        return TestInputs(np.arange(len(samples.rows)), samples.rows, f"the {manifest.spec.golden}")
    expected = golden_tensors.load(bundle.golden)
    axes = slice(2, 4) if manifest.interface.input == "float" else slice(1, 3)
    cases = [case for case, x in expected.inputs.items() if x.shape[axes] == manifest.classifier.image_size]
    return TestInputs(
        np.concatenate([expected.inputs[case] for case in cases]),
        np.concatenate([expected.logits[case] for case in cases]),
        "the float64 reference",
    )


def at_size(size: Size, channels: int, batch: int, session: Session, name: str) -> TestInputs:
    """Noise of another ``size``, with the logits of ``session``, a verified bundle called ``name``.

    It takes images ``batch`` at a time.
    """
    rng = np.random.default_rng(size[0] * 65536 + size[1])
    images = rng.standard_normal((IMAGES, channels, *size), dtype=np.float32)
    logits = np.concatenate([session.run(np.repeat(image[None], batch, axis=0))[:1] for image in images])
    return TestInputs(images, logits, f"{name} at {format_size(size)}")


class InputSource:
    """Gives each candidate its test inputs. They are read from a bundle, or computed by the first one, once."""

    def __init__(self, bundles: Sequence[Bundle]) -> None:
        self._bundles = {bundle.directory: bundle for bundle in bundles}
        self._known: dict[tuple[Path, Size | None], TestInputs] = {}

    def of(self, candidate: Candidate) -> TestInputs:
        """The test inputs of ``candidate``.

        Raises:
            UsageError: for another size of a bundle that does not take prepared images and give logits.
        """
        size, golden_bundle = candidate.point.size, candidate.golden_bundle
        assert golden_bundle is not None
        key = golden_bundle, size
        if size and candidate.interface != FLOAT_LOGITS:
            raise UsageError(
                f"--image-size: {candidate.source} was exported with --input or --answer; other sizes are measured without"
            )
        if key not in self._known:
            bundle = self._bundles[golden_bundle]
            self._known[key] = self._at_size(bundle, candidate.point, size) if size else of_bundle(bundle)
        return self._known[key]

    def _at_size(self, golden_bundle: Bundle, point: Point, size: Size) -> TestInputs:
        """Golden tensors are for few sizes. At others the first verified bundle of the same network gives them."""
        wanted = golden_bundle.manifest.source.sha256, golden_bundle.manifest.classifier
        same = (b for b in self._bundles.values() if (b.manifest.source.sha256, b.manifest.classifier) == wanted)
        bundle = next(b for b in same if b.manifest.tolerance is not None)  # ``golden_bundle`` is one
        batch = bundle.manifest.batch or 1
        session = BundleBackend(bundle).open(Point(batch, point.threads, size, point.provider))
        return at_size(size, bundle.manifest.classifier.in_channels, batch, session, bundle.directory.name)
