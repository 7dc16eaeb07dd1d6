"""What the oracle says: golden logits in float64, and how far PyTorch's own float32 run is from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from s2mlp_deploy.golden import Golden, sample_map
from s2mlp_deploy.parity import Array, Distance, compare
from s2mlp_deploy.reference import S2MLP, activations, logits

BATCH = 8


@dataclass(frozen=True)
class Judgement:
    """Golden tensors, and the distance of PyTorch's float32 logits from them by case."""

    golden: Golden
    torch_float32: Mapping[str, Distance]


def consult(model: S2MLP, inputs: Mapping[str, Array]) -> Judgement:
    """Run the oracle over ``inputs``, by case (samples, channels, height, width) float32."""
    wide = {case: run(model, x, torch.float64) for case, x in inputs.items()}
    narrow = {case: run(model, x, torch.float32) for case, x in inputs.items()}
    golden = Golden(inputs, wide, _trace(model, inputs["noise"][:1]))
    return Judgement(golden, {case: compare(narrow[case], wide[case]) for case in inputs})


def run(model: S2MLP, images: Array, dtype: torch.dtype = torch.float32) -> Array:
    """Logits (samples, classes) of ``images`` (samples, channels, height, width), computed in ``dtype``."""
    return np.concatenate(list(_batches(model, images, dtype)))


def _batches(model: S2MLP, images: Array, dtype: torch.dtype) -> Iterator[Array]:
    for start in range(0, len(images), BATCH):
        yield logits(model, torch.from_numpy(images[start : start + BATCH]).to(dtype)).numpy()


def _trace(model: S2MLP, image: Array) -> dict[str, Array]:
    return {
        name: (sample_map(x[0].numpy()) if x.ndim == 4 else x.numpy()).astype(np.float32)
        for name, x in activations(model, torch.from_numpy(image).double())
    }
