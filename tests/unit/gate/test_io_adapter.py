"""What an artifact takes and gives in place of images and logits: bytes; each of the best classes once, the best one first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from s2mlp_deploy.errors import ParityError, RuntimeMissingError
from s2mlp_deploy.gate.io_adapter import ArtifactIo, IoAdapter, as_logits, probabilities, scoring_every_class
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.manifest import Interface, Preprocessing

CLASSES = 7
IMAGES = np.zeros((2, 3, 4, 4), np.float32)
SCORES = np.float32([[0.4, 0.3, 0.2, 0.05, 0.03], [0.9, 0.05, 0.02, 0.02, 0.01]])
BEST = np.array([[3, 0, 6, 1, 2], [5, 6, 4, 3, 0]])


@dataclass
class Ranking:
    scores: Array
    best: Array

    def run(self, images: Array) -> Array:
        return self.scores

    def rank(self, images: Array) -> tuple[Array, Array]:
        return self.scores, self.best


def spread(scores: Array = SCORES, best: Array = BEST) -> Array:
    return scoring_every_class(Ranking(scores, best), Interface(output="top5"), CLASSES).run(IMAGES)


def changed(array: Array, row: int, place: int, value: float) -> Array:
    other = array.copy()
    other[row, place] = value
    return other


def test_scores_lie_at_the_places_of_their_classes() -> None:
    found = spread()
    assert found.shape == (2, CLASSES) and np.isneginf(found).sum(1).tolist() == [2, 2]
    np.testing.assert_array_equal(np.take_along_axis(found, BEST, 1), SCORES)


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        (changed(SCORES, 1, 4, 0.03), BEST),  # above the one before
        (SCORES, changed(BEST, 0, 4, 3)),  # named already
        (SCORES, changed(BEST, 1, 4, CLASSES)),
        (SCORES, changed(BEST, 0, 0, -1)),
        (SCORES.astype(np.float64), BEST),
        (SCORES, BEST.astype(np.int32)),
        (SCORES[:, :4], BEST[:, :4]),
        (SCORES, BEST[:, :4]),
        (SCORES[:1], BEST[:1]),
    ],
    ids=["order", "twice", "beyond", "negative", "float64", "int32", "four", "four classes", "one image"],
)
def test_what_is_no_ranking_of_the_best_is_refused(scores: Array, best: Array) -> None:
    with pytest.raises(ParityError, match="does not name its best classes, each once and the best one first"):
        spread(scores, best)


def test_images_are_rounded_to_what_an_artifact_that_takes_bytes_can_see() -> None:
    """Or it would be compared with logits of images that it never gets."""
    preprocessing = Preprocessing(mean=(0.5, 0.4, 0.3), std=(0.25, 0.5, 0.1))
    x = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 3, 4, 4)).astype(np.float32)
    takes_bytes, takes_floats = (
        IoAdapter(preprocessing, (4, 4), ArtifactIo(interface=Interface(input=kind))) for kind in ("uint8", "float")
    )
    snapped = takes_bytes.snapped(x)
    level = 1 / 255 / np.array(preprocessing.std)[:, None, None]
    assert 0.1 < (np.abs(snapped - x) / level).max() <= 0.5 + 1e-5
    np.testing.assert_array_equal(takes_bytes.raw(snapped), takes_bytes.raw(x))
    np.testing.assert_array_equal(takes_bytes.snapped(snapped), snapped)
    assert takes_floats.snapped(x) is x


@pytest.mark.parametrize("logits", [[[0.0, 0.0]], [[2.0, -1.0]], [[0.5, 0.0, -3.0]], [[0.3]], [[-2.0]]], ids=str)
@pytest.mark.parametrize("move", [1e-3, 0.1, 1.0, 3.0])
def test_probabilities_stand_for_logits_that_moved_no_further_and_hardly_less(
    logits: list[list[float]], move: float
) -> None:
    """No further than the artifact's own, or healthy ones would be refused; and as far as a softmax can turn such a move into."""
    wide = np.array(logits)
    moved = wide.copy()
    moved[0, -1] += move
    given, before = probabilities(moved), probabilities(wide)
    found = float(np.linalg.norm(as_logits(given, wide, Interface(output="probabilities")) - wide))
    steepest = 0.25 if wide.shape[1] == 1 else 0.5
    least = float(np.linalg.norm(given - before)) / steepest
    assert least * (1 - 1e-3) <= found <= move * (1 + 1e-9)


@pytest.mark.parametrize("left_out", [None, 0, 4])
def test_a_ranking_that_leaves_out_one_of_the_best_is_far_away_though_its_scores_are_right(
    left_out: int | None,
) -> None:
    logits = np.random.default_rng(0).standard_normal((len(IMAGES), CLASSES)).astype(np.float32)
    order = np.argsort(-logits, axis=1)
    named = order[:, :5] if left_out is None else np.delete(order, left_out, axis=1)[:, :5]
    scores = np.take_along_axis(probabilities(logits.astype(np.float64)), named, 1).astype(np.float32)
    found = as_logits(spread(scores, named), logits, Interface(output="top5"))
    distances = np.linalg.norm(found - logits, axis=1) / np.linalg.norm(logits, axis=1)
    assert (distances < 1e-5).all() if left_out is None else (distances > 1e-3).all(), distances


def test_a_session_without_classes_is_refused() -> None:
    class Plain:
        def run(self, images: Array) -> Array:
            return SCORES

    with pytest.raises(RuntimeMissingError, match="give one output, and the artifact has two"):
        scoring_every_class(Plain(), Interface(output="top5"), CLASSES)
