"""Checkpoints to measure with: latency and export cost do not depend on what a network has learnt."""

from __future__ import annotations

from pathlib import Path

import torch

from s2mlp_deploy.reference import S2MLP
from s2mlp_deploy.spec import PRESETS


def save_random(preset: str, path: Path, seed: int) -> Path:
    """A checkpoint of ``preset`` with PyTorch's initial weights for ``seed``, at ``path``."""
    torch.manual_seed(seed)
    torch.save(S2MLP(PRESETS[preset]).state_dict(), path)
    return path
