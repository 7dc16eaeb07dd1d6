"""Checkpoints to measure with: latency and export cost do not depend on what a network has learnt.

    python -m s2mlp_studies.random_weights wide|deep|v2-small7 CKPT

writes one.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from math import prod
from pathlib import Path

from s2mlp_bench.baselines.families import code_of
from s2mlp_deploy.families.s2mlp import spec as s2mlp
from s2mlp_deploy.families.s2mlp_v2 import spec as s2mlp_v2
from s2mlp_deploy.families.s2mlp_v2.spec import PARTS
from s2mlp_deploy.schema.spec import Spec

SEED = 20210614

PRESETS: Mapping[str, Spec] = {**s2mlp.PRESETS, "v2-small7": s2mlp_v2.PRESETS["small/7"]}
"""The networks that are measured, by name."""


def save_random(preset: str, path: Path, seed: int = SEED) -> Path:
    """A checkpoint of ``preset`` with PyTorch's initial weights for ``seed``, at ``path``."""
    return save_random_of(PRESETS[preset], path, seed)


def save_random_of(spec: Spec, path: Path, seed: int = SEED) -> Path:
    """The same of any ``spec``.

    The split attention of S²-MLPv2 sums over parts and positions, and initial weights let its softmax saturate there:
    rounding then decides which part counts. Its first layer is divided by the number of summands, so that it is as soft as a trained one.
    """
    import torch

    from s2mlp_deploy.families.shift_reference import spatial_shift

    torch.manual_seed(seed)
    weights = code_of(spec).module(spec, spatial_shift).state_dict()
    for stage, size in enumerate(spec.map_sizes(spec.image_size)):
        for name in weights:
            if name.startswith(f"stages.{stage}.") and name.endswith(".attention1.weight"):
                weights[name] /= PARTS * prod(size)
    torch.save(weights, path)
    return path


def main() -> None:
    if len(sys.argv) != 3 or sys.argv[1] not in PRESETS:
        sys.exit(f"usage: python -m s2mlp_studies.random_weights {'|'.join(PRESETS)} CKPT")
    save_random(sys.argv[1], Path(sys.argv[2]))


if __name__ == "__main__":
    main()
