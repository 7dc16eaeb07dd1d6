"""What contestants are asked while they are timed: golden images that take turns, and the answers expected."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from s2mlp_deploy import golden
from s2mlp_deploy.artifact import Bundle
from s2mlp_deploy.exporter import Session
from s2mlp_deploy.parity import Array
from s2mlp_deploy.spec import Size, format_size

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
    """The bundle's golden images of the model's own size, and the oracle's logits."""
    expected = golden.load(bundle.golden)
    manifest = bundle.manifest
    axes = slice(2, 4) if manifest.interface.input == "float" else slice(1, 3)
    cases = [case for case, x in expected.inputs.items() if x.shape[axes] == manifest.spec.image_size]
    return Questions(
        np.concatenate([expected.inputs[case] for case in cases]),
        np.concatenate([expected.logits[case] for case in cases]),
        "the float64 oracle",
    )


def at_size(size: Size, channels: int, batch: int, session: Session, name: str) -> Questions:
    """Noise of another ``size``, for which ``session``, a verified bundle called ``name``, gives the answers.

    It takes images ``batch`` at a time.
    """
    rng = np.random.default_rng(size[0] * 65536 + size[1])
    images = rng.standard_normal((IMAGES, channels, *size), dtype=np.float32)
    logits = np.concatenate([session.run(np.repeat(image[None], batch, axis=0))[:1] for image in images])
    return Questions(images, logits, f"{name} at {format_size(size)}")
