"""What contestants are asked while they are timed: golden images that take turns, and the answers expected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from s2mlp_bench.backends import BundleWay
from s2mlp_bench.candidate import Contestant, Point
from s2mlp_deploy.bundle.contents import Bundle
from s2mlp_deploy.errors import UsageError
from s2mlp_deploy.gate import golden
from s2mlp_deploy.runtime.session import Session
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.manifest import FLOAT_LOGITS
from s2mlp_deploy.schema.size import Size, format_size

IMAGES = 8
"""Images at a size for which no golden tensors are in the bundle."""


@dataclass(frozen=True)
class Questions:
    """Images as the artifact takes them, (count, …), and logits (count, classes): whose, ``answered_by`` says."""

    images: Array
    logits: Array
    answered_by: str

    def turns(self, batch: int) -> tuple[tuple[Array, Array], ...]:
        """Batches of images, each starting at another one, with their logits."""
        count = len(self.images)
        chosen = [np.arange(start, start + batch) % count for start in range(count)]
        return tuple((self.images[turn], self.logits[turn]) for turn in chosen)


def of_bundle(bundle: Bundle) -> Questions:
    """The bundle's golden images of the model's own size, and the reference's logits."""
    expected = golden.load(bundle.golden)
    manifest = bundle.manifest
    axes = slice(2, 4) if manifest.interface.input == "float" else slice(1, 3)
    cases = [case for case, x in expected.inputs.items() if x.shape[axes] == manifest.spec.image_size]
    return Questions(
        np.concatenate([expected.inputs[case] for case in cases]),
        np.concatenate([expected.logits[case] for case in cases]),
        "the float64 reference",
    )


def at_size(size: Size, channels: int, batch: int, session: Session, name: str) -> Questions:
    """Noise of another ``size``, for which ``session``, a verified bundle called ``name``, gives the answers.

    It takes images ``batch`` at a time.
    """
    rng = np.random.default_rng(size[0] * 65536 + size[1])
    images = rng.standard_normal((IMAGES, channels, *size), dtype=np.float32)
    logits = np.concatenate([session.run(np.repeat(image[None], batch, axis=0))[:1] for image in images])
    return Questions(images, logits, f"{name} at {format_size(size)}")


class Asked:
    """What each contestant is asked; read, or answered by the first bundle, once."""

    def __init__(self, bundles: Sequence[Bundle]) -> None:
        self._bundles = {bundle.directory: bundle for bundle in bundles}
        self._known: dict[tuple[Path, Size | None], Questions] = {}

    def of(self, contestant: Contestant) -> Questions:
        """What ``contestant`` is asked.

        Raises:
            UsageError: for another size of a bundle that does not take prepared images and give logits.
        """
        size, asks = contestant.point.size, contestant.asks
        assert asks is not None
        key = asks, size
        if size and contestant.interface != FLOAT_LOGITS:
            raise UsageError(
                f"--image-size: {contestant.source} was exported with --input or --answer; other sizes are measured without"
            )
        if key not in self._known:
            bundle = self._bundles[asks]
            self._known[key] = self._at_size(bundle, contestant.point, size) if size else of_bundle(bundle)
        return self._known[key]

    def _at_size(self, asks: Bundle, point: Point, size: Size) -> Questions:
        """Golden tensors are for few sizes. At others the first verified bundle of the same network answers."""
        wanted = asks.manifest.source.sha256, asks.manifest.spec
        same = (b for b in self._bundles.values() if (b.manifest.source.sha256, b.manifest.spec) == wanted)
        bundle = next(b for b in same if b.manifest.tolerance is not None)  # ``asks`` is one
        batch = bundle.manifest.batch or 1
        session = BundleWay(bundle).open(Point(batch, point.threads, size, point.provider))
        return at_size(size, bundle.manifest.spec.in_channels, batch, session, bundle.directory.name)
