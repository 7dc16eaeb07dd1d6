"""The probabilities that a graph with ``--answer probabilities`` gives for its logits, in NumPy."""

from __future__ import annotations

import numpy as np

from s2mlp_deploy.schema.array import Array


def probabilities(logits: Array) -> Array:
    """The probabilities of each row of logits: the softmax, or the sigmoid of a single logit."""
    return softmax(np.pad(logits, ((0, 0), (1, 0))))[:, 1:] if logits.shape[1] == 1 else softmax(logits)


def softmax(logits: Array) -> Array:
    """Probabilities (rows, classes)."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    normalized: Array = powers / powers.sum(axis=1, keepdims=True)
    return normalized
