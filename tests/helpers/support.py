"""Small models and ways to call the commands, for all tests."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from s2mlp_deploy.families.registry import family_of
from s2mlp_deploy.families.s2mlp.spec import S2MLPSpec, Stage, single_stage
from s2mlp_deploy.families.s2mlp_v2.spec import AttentionStage, S2MLPv2Spec
from s2mlp_deploy.families.staged.family import StagedFamily
from s2mlp_deploy.families.staged.reference import StagedModel
from s2mlp_deploy.families.staged.spec import StagedSpec
from s2mlp_deploy.schema.shift import Shift
from s2mlp_deploy.schema.size import Size
from s2mlp_deploy.schema.spec import Embedding

ROOT = Path(__file__).parents[2]

SOURCES = {"s2mlp_deploy": ".", "s2mlp_exporters": "exporters", "s2mlp_bench": "bench"}
"""Each package, and the folder that it lies in."""
EXAMPLES = ROOT / "examples"
PAPER_CHECKPOINT = EXAMPLES / "fashion_mnist.pt"
INPLACE_CHECKPOINT = EXAMPLES / "fashion_mnist_inplace.pt"
V2_CHECKPOINT = EXAMPLES / "fashion_mnist_v2_inplace.pt"
TEST_IMAGES = EXAMPLES / "test_images"


def small_spec(
    *,
    channels: int = 13,
    depth: int = 2,
    patch: int = 4,
    expansion: int = 3,
    classes: int = 7,
    image_size: Size = (20, 28),
    shift: Shift | None = None,
) -> S2MLPSpec:
    """One stage with odd numbers and a map of 5 by 7, which expose swapped axes."""
    spec = single_stage(
        channels=channels, depth=depth, patch=patch, expansion=expansion, classes=classes, image_size=image_size
    )
    return spec.with_shift(shift) if shift else spec


def with_stem_norms(spec: S2MLPSpec) -> S2MLPSpec:
    """``spec`` with a LayerNorm behind each embedding."""
    return replace(spec, stages=tuple(replace(stage, stem_norm=True) for stage in spec.stages))


def pyramid_spec() -> S2MLPSpec:
    """Two stages with blocks and a last one without, as the layout model-p has them."""
    down = Embedding((3, 3), (2, 2), (1, 1))
    stages = (Stage(Embedding((4, 4), (4, 4)), 8, 16, 1), Stage(down, 12, 24, 2), Stage(down, 16, 0, 0))
    return S2MLPSpec(stages, classes=5, image_size=(36, 28))


V2_SPECS: dict[str, S2MLPv2Spec] = {
    "two stages": S2MLPv2Spec(
        (
            AttentionStage(Embedding((4, 4), (4, 4)), 8, 16, 2, attention=5),
            AttentionStage(Embedding((2, 2), (2, 2)), 12, 36, 1, attention=12),
        ),
        classes=7,
        image_size=(24, 40),
    ),
    "one stage": S2MLPv2Spec(
        (AttentionStage(Embedding((4, 4), (4, 4)), 12, 36, 2, attention=3),), classes=7, image_size=(20, 28)
    ),
    "pyramid": S2MLPv2Spec(
        (
            AttentionStage(Embedding((4, 4), (4, 4)), 8, 16, 1, attention=8),
            AttentionStage(Embedding((3, 3), (2, 2), (1, 1)), 12, 24, 2, attention=3),
            AttentionStage(Embedding((3, 3), (2, 2), (1, 1)), 16, 0, 0),
        ),
        classes=5,
        image_size=(36, 28),
    ),
    "odd": S2MLPv2Spec(
        (
            AttentionStage(Embedding((4, 4), (4, 4)), 13, 26, 1, True, attention=4),
            AttentionStage(Embedding((2, 2), (2, 2)), 11, 22, 1, True, attention=7),
        ),
        classes=7,
        image_size=(40, 56),
        final_norm=True,
        norm_after_mean=True,
    ),
}


def v2_spec(name: str = "two stages") -> S2MLPv2Spec:
    """An S²-MLPv2 with maps that are not square."""
    return V2_SPECS[name]


def random_model(spec: StagedSpec, seed: int = 0) -> StagedModel:
    """A module with weights of the size that training gives; norms and biases are not the identity."""
    torch.manual_seed(seed)
    family: StagedFamily[Any] = family_of(spec)  # type: ignore[assignment]
    model = family.model_type()(spec)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
            elif name.endswith("bias"):
                parameter.copy_(0.1 * torch.randn_like(parameter))
    return model.eval().requires_grad_(False)


def weights_of(model: StagedModel) -> dict[str, np.ndarray]:
    """The model's parameters as NumPy arrays under canonical names."""
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def save_checkpoint(path: Path, spec: StagedSpec, *, seed: int = 0, rename: Callable[[str], str] = str) -> Path:
    """A checkpoint of a random model; image size and normalization are recorded as training scripts do."""
    channels = spec.in_channels
    args = {"img_size": list(spec.image_size), "mean": [0.5] * channels, "std": [0.25] * channels}
    state = {rename(k): v for k, v in random_model(spec, seed).state_dict().items()}
    torch.save({"model": state, "args": args}, path)
    return path


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def run(name: str, *arguments: object) -> Ran:
    """Call ``s2mlp-NAME`` in this process, as its entry point would."""
    return command(f"s2mlp-{name}", f"s2mlp_deploy.cli.{name}", "main", *arguments)


def command(program: str, module: str, function: str, *arguments: object) -> Ran:
    """Call the entry point ``module:function`` in this process as ``program`` with ``arguments``."""
    out, err = io.StringIO(), io.StringIO()
    argv = [program, *map(str, arguments)]
    code = 0
    with mock.patch.object(sys, "argv", argv), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            getattr(import_module(module), function)()
        except SystemExit as stop:
            code = int(stop.code or 0)
    return Ran(code, out.getvalue(), err.getvalue())


def with_biases(spec: S2MLPSpec, biases: frozenset[str]) -> S2MLPSpec:
    """``spec`` with biases in these layers only."""
    return replace(spec, biases=biases)
