"""MLP-Mixers of public code, and timm itself, whose own module this project's is held to."""

from __future__ import annotations

import sys
from functools import cache
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from s2mlp_deploy.schema.size import Size

SIZE: Size = (20, 28)
"""Of images; 35 patches of 4 by 4."""


@cache
def timm() -> Any:
    """timm; the test is skipped where it is not installed.

    It imports torchvision, whose build for GPUs, which pip brings, cannot load its operators beside PyTorch's build
    for CPUs, and fails where it describes them. No Mixer uses them, so that module is left empty then.
    """
    try:
        import torchvision  # noqa: F401
    except ImportError:
        pytest.skip("no torchvision, which timm imports")
    except RuntimeError:
        name = "torchvision._meta_registrations"
        sys.modules[name] = ModuleType(name)
    return pytest.importorskip("timm")


def timm_mixer(**changes: Any) -> nn.Module:
    """timm's MlpMixer with two blocks of 14 channels."""
    sizes: dict[str, Any] = {"num_classes": 7, "img_size": SIZE, "patch_size": 4, "num_blocks": 2, "embed_dim": 14}
    return randomised(timm().models.mlp_mixer.MlpMixer(**sizes | changes))


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """``model`` with weights of the size that training gives; norms, biases and classifier are not trivial."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim > 1:
            parameter.data = noise / max(parameter[0].numel(), 1) ** 0.5
        else:
            parameter.data = 0.2 * noise + (parameter.data.mean() > 0.5 and name.endswith("weight"))
    return model.eval().requires_grad_(False)


class Patches(nn.Module):
    """Images to flattened patches (batch, positions, rows · columns · channels), as lucidrains's Rearrange does."""

    def __init__(self, patch: Size) -> None:
        super().__init__()
        self.patch = patch

    def forward(self, x: Tensor) -> Tensor:
        (p, q), (n, c, h, w) = self.patch, x.shape
        return x.reshape(n, c, h // p, p, w // q, q).permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)


class PreNormResidual(nn.Module):
    def __init__(self, dim: int, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fn(self.norm(x)) + x
        return out


def over_positions(positions: int, hidden: int) -> nn.Sequential:
    """Token mixing as a convolution of one position; position 2 is dropout."""
    first, second = nn.Conv1d(positions, hidden, 1), nn.Conv1d(hidden, positions, 1)
    return nn.Sequential(first, nn.GELU(), nn.Identity(), second, nn.Identity())


def over_channels(channels: int, hidden: int) -> nn.Sequential:
    first, second = nn.Linear(channels, hidden), nn.Linear(hidden, channels)
    return nn.Sequential(first, nn.GELU(), nn.Identity(), second, nn.Identity())


def lucidrains_mixer(patch: Size = (4, 4), *, size: Size = SIZE, channels: int = 3, blocks: int = 2) -> nn.Module:
    """lucidrains's MLPMixer: everything in one nn.Sequential."""
    positions = size[0] // patch[0] * (size[1] // patch[1])
    body = [
        nn.Sequential(PreNormResidual(14, over_positions(positions, 9)), PreNormResidual(14, over_channels(14, 30)))
        for _ in range(blocks)
    ]
    embedding = nn.Linear(patch[0] * patch[1] * channels, 14)
    return randomised(nn.Sequential(Patches(patch), embedding, *body, nn.LayerNorm(14), Mean(), nn.Linear(14, 7)))


class _Net(nn.Module):
    def __init__(self, net: nn.Sequential) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out


class JittorMixer(nn.Module):
    """Jittor-MLP's MLPMixerForImageClassification."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(
            *(
                nn.Sequential(
                    PreNormResidual(14, _Net(over_positions(35, 70))), PreNormResidual(14, _Net(over_channels(14, 28)))
                )
                for _ in range(2)
            )
        )
        self.patcher = nn.Sequential(nn.Conv2d(3, 14, 4, 4))
        self.active = nn.LayerNorm(14)
        self.mlp_head = nn.Sequential(nn.Linear(14, 7))

    def forward(self, x: Tensor) -> Tensor:
        x = self.patcher(x).permute(0, 2, 3, 1).flatten(1, 2)
        out: Tensor = self.mlp_head(self.active(self.model(x)).mean(1))
        return out


def jittor_mixer() -> nn.Module:
    return randomised(JittorMixer())
