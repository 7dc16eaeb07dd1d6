"""Feed an artifact the inputs its interface expects, and map its outputs back to logits.

Golden logits, tolerances and labels are about prepared images and logits. An artifact that takes bytes gets the bytes
that prepared images come from; one that gives probabilities, or only the best of them, is held to the same tolerance,
with the least that logits must have moved for probabilities to be where they are (:func:`_least_move`): that is within
the tolerance wherever the artifact's own logits are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from s2mlp_deploy.data.image_stream import Images, ImageStream
from s2mlp_deploy.data.preprocessing import nearest_bytes, normalize, normalize_exactly
from s2mlp_deploy.errors import ParityError, RuntimeMissingError, UsageError
from s2mlp_deploy.gate import golden_images
from s2mlp_deploy.gate.distance import leading_class
from s2mlp_deploy.gate.golden_images import Pictures
from s2mlp_deploy.graph.io_signature import BEST
from s2mlp_deploy.graph.probabilities import probabilities
from s2mlp_deploy.runtime.session import BATCH, RankingSession, Session, run_in_batches
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.manifest import FLOAT_LOGITS, Interface, Manifest, Preprocessing
from s2mlp_deploy.schema.size import Size, format_size


@dataclass(frozen=True)
class TestInputs:
    """Inputs by case: ``prepared`` as the reference takes them (in float64 where they come from bytes), ``raw`` as the artifact does."""

    __test__ = False  # pytest takes classes of such a name for tests

    prepared: Mapping[str, Array]
    raw: Mapping[str, Array]


@dataclass(frozen=True)
class ArtifactIo:
    """An artifact's inputs and outputs: interface, batch size (None: any), element type of the output."""

    batch: int | None = None
    interface: Interface = FLOAT_LOGITS
    dtype: str = "float32"

    @classmethod
    def of(cls, manifest: Manifest) -> ArtifactIo:
        """Of the artifact that ``manifest`` describes."""
        return cls(manifest.batch, manifest.interface, manifest.output.dtype)


@dataclass(frozen=True)
class IoAdapter:
    """Converts prepared images to an artifact's inputs and its outputs to logits. ``size`` is the model's image size."""

    preprocessing: Preprocessing
    size: Size
    io: ArtifactIo = field(default=ArtifactIo())

    @classmethod
    def of(cls, manifest: Manifest) -> IoAdapter:
        """For the artifact that ``manifest`` describes."""
        return cls(manifest.images, manifest.classifier.image_size, ArtifactIo.of(manifest))

    def test_inputs(self, inputs: Mapping[str, Array], pictures: Pictures | None = None) -> TestInputs:
        """The artifact's inputs, as close to the prepared ``inputs`` (by case) as bytes allow.

        An artifact that resizes also gets noise of other sizes, and ``pictures`` as they are.
        """
        if self.io.interface.input == "float":
            return TestInputs(inputs, inputs)
        raw = {case: nearest_bytes(x, self.preprocessing) for case, x in inputs.items()}
        if self.io.interface.input == "uint8":
            return TestInputs({case: normalize_exactly(x, self.preprocessing) for case, x in raw.items()}, raw)
        raw |= self._noise(len(self.preprocessing.mean)) if "noise" in raw else {}
        if pictures and pictures.files:
            del raw["images"]
            raw |= {golden_images.case_of(i): self._bytes_in(file) for i, file in enumerate(pictures.files)}
        return TestInputs({case: np.stack([self._fitted(image) for image in x]) for case, x in raw.items()}, raw)

    def raw(self, inputs: Array) -> Array:
        """Prepared ``inputs`` as the artifact takes them, at the model's size."""
        return inputs if self.io.interface.input == "float" else nearest_bytes(inputs, self.preprocessing)

    def snapped(self, inputs: Images) -> Images:
        """Prepared ``inputs``, rounded to values that the artifact can take, which those of image files have."""
        if self.io.interface.input == "float" or isinstance(inputs, ImageStream):
            return inputs
        return normalize(nearest_bytes(inputs, self.preprocessing), self.preprocessing)

    def logits(self, session: Session, inputs: Images, expected: Array, files: Sequence[Path] = ()) -> Array:
        """The logits of prepared ``inputs`` that the outputs of ``session`` stand for, near the ``expected`` ones.

        An artifact that resizes gets the ``files`` that the inputs were prepared from.

        Raises:
            UsageError: where it is to resize and there are no files.
        """
        found: list[Array] = []
        first = 0
        for raw in self.portions(inputs, files):
            wanted = expected[first : first + len(raw)]
            scores = class_scores(session, raw, self.io, expected.shape[1])
            found.append(as_logits(scores, wanted, self.io.interface))
            first += len(raw)
        return np.concatenate(found)

    def portions(self, inputs: Images, files: Sequence[Path] = ()) -> Iterator[Array]:
        """Prepared ``inputs`` as the artifact takes them, as many as run together; ``files`` are those that they were prepared from.

        Raises:
            UsageError: as :meth:`logits`.
        """
        if self.io.interface.input == "image":
            if files:
                yield from (self._bytes_in(file) for file in files)
                return
            if self.preprocessing.crop_fraction < 1:
                raise UsageError(
                    "--input image with a --crop-fraction below 1 is checked on image files: give a folder of images with --data"
                )
        step = self.io.batch or BATCH
        for start in range(0, len(inputs), step):
            yield self.raw(inputs[start : start + step])

    def _noise(self, channels: int) -> dict[str, Array]:
        """Images of odd sizes that have to shrink, to grow, and to do one along either axis."""
        h, w = self.size
        rng = np.random.default_rng(20210614)
        sizes = [(2 * h + 3, 3 * w + 1), (h // 2 + 1, w // 2 + 3), (h + 5, max(1, w - 3))]
        return {
            f"noise-{format_size(size)}": rng.integers(0, 256, (1, *size, channels), dtype=np.uint8)
            for size in dict.fromkeys(sizes)
        }

    def _bytes_in(self, file: Path) -> Array:
        from s2mlp_deploy.data import images

        pixels: Array = images.pixels_of(images.read(file, self.preprocessing))[None]
        return pixels

    def _fitted(self, pixels: Array) -> Array:
        from s2mlp_deploy.data import images

        return normalize_exactly(images.fitted_bytes(pixels, self.preprocessing, self.size), self.preprocessing)


def class_scores(session: Session, raw: Array, io: ArtifactIo, classes: int) -> Array:
    """Logits or probabilities (samples, classes) of ``raw``; −∞ for classes that the artifact does not name."""
    return run_in_batches(scoring_every_class(session, io.interface, classes), raw, io.batch)


def named_classes(scores: Array, interface: Interface) -> Array:
    """The class (samples,) that each row of ``scores`` (:func:`class_scores`) names; of one probability: whether it is above a half."""
    above_half = scores.shape[1] == 1 and interface.output != "logits"
    return leading_class(scores - 0.5 if above_half else scores)


def scoring_every_class(session: Session, interface: Interface, classes: int) -> Session:
    """``session``, wrapped where needed so that it gives a number for each class.

    Raises:
        RuntimeMissingError: where it gives no classes beside its scores.
    """
    if interface.output != "top5":
        return session
    if not isinstance(session, RankingSession):
        raise RuntimeMissingError("this format's sessions give one output, and the artifact has two")
    return _Spread(session, classes)


class _Spread:
    """A session whose scores lie at their classes' places, −∞ elsewhere."""

    def __init__(self, session: RankingSession, classes: int) -> None:
        self._session, self._classes = session, classes

    def run(self, images: Array) -> Array:
        """The scores, spread.

        Raises:
            ParityError: where they are not each of the best classes once, the best one first.
        """
        scores, best = self._session.rank(images)
        shape = (len(images), min(BEST, self._classes))
        rows = np.sort(best, axis=-1)
        if not (
            scores.shape == best.shape == shape
            and scores.dtype == np.float32
            and best.dtype == np.int64
            and not (np.diff(scores) > 0).any()
            and not (np.diff(rows) == 0).any()
            and 0 <= rows.min() <= rows.max() < self._classes
        ):
            raise ParityError(
                f"the artifact does not name its best classes, each once and the best one first: expected scores {list(shape)} "
                f"float32 and classes int64 from 0 to {self._classes - 1}, and got scores {list(scores.shape)} {scores.dtype} and "
                f"classes {list(best.shape)} {best.dtype}, for the first image {scores[:1].tolist()} and {best[:1].tolist()}"
            )
        spread = np.full((len(scores), self._classes), -np.inf, scores.dtype)
        np.put_along_axis(spread, best, scores, axis=1)
        return spread


def as_logits(scores: Array, logits: Array, interface: Interface) -> Array:
    """The logits (rows, classes) that ``scores`` stand for, near the reference's ``logits``.

    Classes that the artifact does not name score no better than the last it names; nothing else is known of them.
    """
    if interface.output == "logits" or scores.shape != logits.shape:
        return scores
    wide = logits.astype(np.float64)
    expected = probabilities(wide)
    found = scores.astype(np.float64)
    if interface.output == "top5":
        unnamed = np.isneginf(found)
        last = np.where(unnamed, np.inf, found).min(axis=1, keepdims=True)
        found = np.where(unnamed, np.minimum(expected, last), found)
    missed = found - expected
    distance = np.linalg.norm(missed, axis=1, keepdims=True)
    moved = wide + missed * (_least_move(distance, expected) / np.where(distance > 0, distance, 1))
    if logits.shape[1] == 1:
        positive = found > 0.5
        return np.where(positive == (moved > 0), moved, np.where(positive, np.finfo(np.float64).tiny, 0.0))
    rows, best = np.arange(len(moved)), found.argmax(1)
    behind = moved.argmax(1) != best
    moved[rows[behind], best[behind]] = np.nextafter(moved.max(1)[behind], np.inf)
    return moved


_SOFTMAX_ROUNDS = 2.0**-21
"""Relative error of a softmax in float32: exponentials, their sum and a division, each some units in the last place."""


def _least_move(distance: Array, probabilities: Array) -> Array:
    """The least that logits have moved if ``probabilities`` (rows, classes) moved by ``distance`` (rows, 1).

    The derivative of softmax is diag(p) − p·pᵀ. Its norm is at most ½, at most the largest p, and, by its rows' absolute
    sums, at most twice the largest p·(1 − p); call the least of these m. Where logits move by d, no p and no 1 − p grows by
    more than e^(2d). So the distance is at most min(½, m·e^(4d))·d, which is solved for d.

    The derivative of a sigmoid is m = p·(1 − p), at most ¼, which grows by no more than e^d.
    """
    p = probabilities
    one = p.shape[1] == 1
    most, growth = (0.25, 1.0) if one else (0.5, 4.0)
    steepest = p * (1 - p) if one else np.minimum(p.max(1, keepdims=True), 2 * (p * (1 - p)).max(1, keepdims=True))
    steepest = np.clip(steepest, np.finfo(np.float64).tiny, most)
    rounding = _SOFTMAX_ROUNDS * np.linalg.norm(p, axis=1, keepdims=True)
    left = distance - np.minimum(distance, rounding)
    least: Array = np.maximum(left / most, _product_log(growth * left / steepest) / growth)
    return least


def _product_log(x: Array) -> Array:
    """w ≥ 0 such that w·e^w = ``x`` ≥ 0, by Newton's method, which comes from above here."""
    w: Array = np.log1p(x)
    for _ in range(20):
        w = w - (w - x * np.exp(-w)) / (1 + w)
    return w
