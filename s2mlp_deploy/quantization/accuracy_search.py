"""Search for the layers that must stay in float so that an int8 graph keeps its accuracy.

The evaluator measures one graph (accuracy.py), the ranker orders the layers by the error that each causes alone, and the
search leaves them in float in that order, one after another, until a graph passes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from s2mlp_deploy.errors import AccuracyError
from s2mlp_deploy.formats.onnx import scratch_session
from s2mlp_deploy.gate.distance import compare
from s2mlp_deploy.gate.evaluation import logits_of
from s2mlp_deploy.graph.lowered import Lowered
from s2mlp_deploy.quantization.accuracy import Evaluator, describe, limits
from s2mlp_deploy.quantization.quantizer import Quantizer
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.report import Trial

MOST_FLOAT_LAYERS = 0.5
"""Share of layers that may stay in float; beyond it the bundle would be int8 in name only."""


@dataclass(frozen=True)
class Ranker:
    """Orders the layers of ``quantizer`` by their error on ``images`` (count, channels, height, width)."""

    quantizer: Quantizer
    images: Array

    def ranking(self) -> list[str]:
        """The names of the layers, the one that moves the logits most first."""
        expected = self._logits(self.quantizer.lowered)
        errors = {
            layer.name: compare(self._logits(self.quantizer.graph_of_one(layer)), expected).relative_l2
            for layer in self.quantizer.layers
        }
        return sorted(errors, key=lambda name: -errors[name])

    def _logits(self, lowered: Lowered) -> Array:
        """The logits of all images as one row, so that the distance is over all of them together."""
        with scratch_session(lowered) as session:
            return logits_of(session, self.images, lowered.axes.batch).reshape(1, -1)


def search(quantizer: Quantizer, evaluator: Evaluator, ranker: Ranker) -> tuple[Trial, ...]:
    """Every trial up to the one that passes, the last.

    Raises:
        AccuracyError: where none passes with at most half of the layers in float.
    """
    trials: list[Trial] = []
    for trial in _trials(quantizer, evaluator, ranker):
        trials.append(trial)
        if trial.passed:
            return tuple(trials)
    raise AccuracyError(_refusal(trials, evaluator, len(quantizer.layers)))


def _trials(quantizer: Quantizer, evaluator: Evaluator, ranker: Ranker) -> Iterator[Trial]:
    """Trials with ever more layers in float. The layers are ranked only where the first trial does not pass."""
    yield evaluator.trial((), quantizer.graph())
    if not quantizer.layers:
        return
    ranking = ranker.ranking()
    for count in range(1, int(len(ranking) * MOST_FLOAT_LAYERS) + 1):
        float_layers = tuple(ranking[:count])
        yield evaluator.trial(float_layers, quantizer.graph(float_layers))


def _refusal(trials: Sequence[Trial], evaluator: Evaluator, layers: int) -> str:
    if not layers:
        return (
            f"int8 throughout cannot keep {limits(trials[-1], evaluator.settings)}; nothing was published. Tried: "
            f"{describe(trials[-1])}. Try another --calibration-method, more calibration images, or --target litert, which computes in "
            "float between the layers"
        )
    shown = [trials[i] for i in sorted({0, len(trials) // 4, len(trials) // 2, 3 * len(trials) // 4, len(trials) - 1})]
    return (
        f"int8 cannot keep {limits(trials[-1], evaluator.settings)}, not even with {len(trials[-1].float_layers)} of {layers} layers "
        f"left in float; nothing was published. Tried: {'; '.join(map(describe, shown))}. Try another --calibration-method, more calibration "
        "images, or --precision fp16"
    )
