"""Checkpoints to measure with: latency and export cost do not depend on what a network has learnt.

    python -m s2mlp_studies.random_weights wide|deep CKPT

writes one.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from s2mlp_deploy.families.s2mlp.reference import S2MLP
from s2mlp_deploy.families.s2mlp.spec import PRESETS

SEED = 20210614


def save_random(preset: str, path: Path, seed: int = SEED) -> Path:
    """A checkpoint of ``preset`` with PyTorch's initial weights for ``seed``, at ``path``."""
    torch.manual_seed(seed)
    torch.save(S2MLP(PRESETS[preset]).state_dict(), path)
    return path


def main() -> None:
    if len(sys.argv) != 3 or sys.argv[1] not in PRESETS:
        sys.exit(f"usage: python -m s2mlp_studies.random_weights {'|'.join(PRESETS)} CKPT")
    save_random(sys.argv[1], Path(sys.argv[2]))


if __name__ == "__main__":
    main()
