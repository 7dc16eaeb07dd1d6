"""Checkpoints of every kind that the toolkit reads, drawn at random, and what belongs to each.

Weights are random but for the classifier's, which are fitted so that the classes of the model's own images lie apart. A
classifier that is random, too, has near ties everywhere: its classes change with every rounding, and say nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from helpers.mixers import randomised
from helpers.support import random_model
from s2mlp_deploy.families.mixer.reference import Mixer
from s2mlp_deploy.families.mixer.spec import MixerSpec
from s2mlp_deploy.families.reference import activations
from s2mlp_deploy.families.s2mlp.spec import LAYERS, S2MLPSpec, Stage
from s2mlp_deploy.families.s2mlp_v2.spec import AttentionStage, S2MLPv2Spec
from s2mlp_deploy.families.staged.reference import StagedModel
from s2mlp_deploy.families.staged.spec import StagedSpec
from s2mlp_deploy.graph.spatial_shift import LOWERINGS
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.shift import DIRECTIONS, Shift
from s2mlp_deploy.schema.spec import Embedding, Spec

DTYPES = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
}

KINDS = 8
"""How many kinds of images a model tells apart, at most."""

IMAGES = 96
"""Images for calibration, a quarter of which judges instead."""


@dataclass(frozen=True)
class Case:
    """A model to export: its architecture, the type of its weights, and a lowering that is exact for it."""

    index: int
    spec: StagedSpec | MixerSpec
    dtype: str
    lowering: str

    @property
    def layout(self) -> tuple[str, ...]:
        """The lines of a layout file that say what the weights do not show, where it is not as this project's own layout has it."""
        spec = self.spec
        if isinstance(spec, MixerSpec):
            return ("norm_after_mean = true",) if spec.norm_after_mean else ()
        padded = any(stage.embedding.padding != (0, 0) for stage in spec.stages)
        return (
            *([f'border = "{spec.shift.border}"'] if spec.shift.border != "keep" else []),
            *(["norm_after_mean = true"] if spec.norm_after_mean else []),
            *(["downsampling = { stride = 2, padding = 1 }"] if padded else []),
        )

    def __str__(self) -> str:
        s = self.spec
        if isinstance(s, MixerSpec):
            return (
                f"{self.index}: mixer {s.channels}x{s.blocks}, {s.token_hidden} and {s.hidden}, "
                f"{s.in_channels}x{s.image_size[0]}x{s.image_size[1]}→{s.classes} {self.dtype}"
            )
        widths = "-".join(f"{stage.channels}x{stage.depth}" for stage in s.stages)
        return (
            f"{self.index}: {widths} {s.in_channels}x{s.image_size[0]}x{s.image_size[1]}→{s.classes} "
            f"{s.shift.directions} {s.shift.semantics} {s.shift.border} {self.dtype} {self.lowering}"
        )


def cases(count: int) -> Iterator[Case]:
    """The first ``count`` of one sequence, whatever the count."""
    for index in range(count):
        rng = np.random.default_rng([5, index])
        spec = _spec(rng)
        exact = _exact(spec)
        yield Case(index, spec, str(rng.choice(list(DTYPES))), exact[index % len(exact)])


def cases_of_version_two(count: int) -> Iterator[Case]:
    """The first ``count`` of another sequence, of S²-MLPv2: as wide and deep, with split attention of any width."""
    for index in range(count):
        rng = np.random.default_rng([8, index])
        spec = _with_attention(_spec(rng), rng)
        exact = _exact(spec)
        yield Case(2000 + index, spec, str(rng.choice(list(DTYPES))), exact[index % len(exact)])


def _exact(spec: StagedSpec) -> list[str]:
    """The lowerings that are exact for every shift of ``spec``."""
    return [n for n, low in LOWERINGS.items() if not any(low.refusal(s, dynamic_size=False) for s in spec.shifts)]


def cases_of_mixers(count: int) -> Iterator[Case]:
    """The first ``count`` of another sequence, of MLP-Mixers."""
    for index in range(count):
        rng = np.random.default_rng([9, index])
        yield Case(3000 + index, _mixer_spec(rng), str(rng.choice(list(DTYPES))), "auto")


def _with_attention(spec: S2MLPSpec, rng: np.random.Generator) -> S2MLPv2Spec:
    """An S²-MLPv2 of the same stages; the first one has blocks, as every network has."""
    stages = []
    for stage in spec.stages:
        attention = int(rng.integers(1, 2 * stage.channels)) if stage.depth else 0
        stages.append(AttentionStage(**vars(stage), attention=attention))
    return S2MLPv2Spec(
        tuple(stages),
        shift=spec.shift,
        biases=spec.biases,
        final_norm=spec.final_norm,
        norm_after_mean=spec.norm_after_mean,
        classes=spec.classes,
        image_size=spec.image_size,
        in_channels=spec.in_channels,
    )


def large_cases(count: int) -> Iterator[Case]:
    """The first ``count`` of another sequence, of models with maps of 1,024 to 65,536 positions, the largest second."""
    for index in range(count):
        rng = np.random.default_rng([7, index])
        exponent = (0.3, 1.0)[index] if index < 2 else rng.random()
        height = round(32 * 8**exponent)
        width = height if index < 2 or rng.random() < 0.5 else round(height * rng.uniform(0.8, 1))
        patch = int(rng.integers(1, 3))
        channels = int(rng.integers(8, 17))
        embedding = Embedding((patch, patch), (patch, patch))
        spec = S2MLPSpec(
            (Stage(embedding, channels, channels * int(rng.integers(1, 4)), int(rng.integers(1, 3))),),
            classes=round(2 * 500 ** rng.random()),
            image_size=(height * patch, width * patch),
            in_channels=int(rng.choice([1, 3])),
            shift=Shift(DIRECTIONS[str(rng.choice(list(DIRECTIONS)))], "paper" if rng.random() < 0.5 else "inplace"),
            final_norm=bool(rng.random() < 0.3),
        )
        yield Case(1000 + index, spec, str(rng.choice(list(DTYPES))), "gather")


def _spec(rng: np.random.Generator) -> S2MLPSpec:
    directions = str(rng.choice(list(DIRECTIONS)))
    shift = Shift(DIRECTIONS[directions], "paper" if rng.random() < 0.5 else "inplace")
    patch = tuple(int(n) for n in ([rng.integers(1, 6)] * 2 if rng.random() < 0.7 else rng.integers(1, 6, 2)))
    stages = []
    size = np.array(patch)
    count = int(rng.integers(1, 4))
    padded = rng.random() < 0.5
    for index in range(count):
        if index == 0:
            embedding = Embedding((patch[0], patch[1]), (patch[0], patch[1]))
        elif padded:
            embedding = Embedding((3, 3), (2, 2), (1, 1))
        else:
            embedding = Embedding((2, 2), (2, 2))
        size = size * (1 if index == 0 else 2)
        channels = int(rng.integers(8, 70))
        # As in a published pyramid, the last of several stages may be such a convolution alone.
        depth = 0 if index == count - 1 > 0 and rng.random() < 0.2 else int(rng.integers(1, 9 // count + 1))
        stages.append(Stage(embedding, channels, channels * int(rng.integers(1, 5)) if depth else 0, depth))
    rows, columns = rng.integers(1, 8 // count + 2, 2) if rng.random() < 0.6 else [rng.integers(1, 8 // count + 2)] * 2
    spec = S2MLPSpec(
        tuple(stages),
        classes=round(2 * 500 ** rng.random()),
        image_size=(int(size[0] * rows), int(size[1] * columns)),
        in_channels=int(rng.integers(1, 5)),
        shift=shift,
        biases=frozenset(layer for layer in LAYERS if rng.random() < 0.8),
        final_norm=bool(rng.random() < 0.3),
    )
    if spec.final_norm and rng.random() < 0.5:
        spec = replace(spec, norm_after_mean=True)
    if spec.shift.semantics == "paper" and rng.random() < 0.5:
        spec = spec.with_shift(replace(spec.shift, border="zero" if rng.random() < 0.5 else "wrap"))
    return spec


def _mixer_spec(rng: np.random.Generator) -> MixerSpec:
    patch = tuple(int(n) for n in ([rng.integers(1, 6)] * 2 if rng.random() < 0.7 else rng.integers(1, 6, 2)))
    rows, columns = rng.integers(1, 10, 2) if rng.random() < 0.6 else [rng.integers(1, 10)] * 2
    channels = int(rng.integers(8, 70))
    return MixerSpec(
        Embedding((patch[0], patch[1]), (patch[0], patch[1])),
        channels,
        token_hidden=int(rng.integers(4, 70)),
        hidden=channels * int(rng.integers(1, 5)),
        blocks=int(rng.integers(1, 9)),
        norm_after_mean=bool(rng.random() < 0.3),
        classes=round(2 * 500 ** rng.random()),
        image_size=(int(patch[0] * rows), int(patch[1] * columns)),
        in_channels=int(rng.integers(1, 5)),
    )


def _random_model(spec: StagedSpec | MixerSpec, seed: int) -> StagedModel | Mixer:
    if not isinstance(spec, MixerSpec):
        return random_model(spec, seed)
    model = Mixer(spec)
    randomised(model, seed)
    return model


@dataclass(frozen=True)
class Written:
    """Files in a directory: the checkpoint, prepared images for calibration, and a layout where it needs one."""

    checkpoint: Path
    calibration: Path
    layout: str | None


def write(case: Case, directory: Path) -> Written:
    """The checkpoint of ``case``, and its calibration images, in ``directory``."""
    rng = np.random.default_rng([6, case.index])
    kinds = _images(case.spec, KINDS, rng)
    noisy = kinds[np.arange(IMAGES) % KINDS] + 0.1 * _images(case.spec, IMAGES, rng)
    dtype = DTYPES[case.dtype]
    model = _random_model(case.spec, seed=case.index)
    model.load_state_dict({name: tensor.to(dtype).float() for name, tensor in model.state_dict().items()})
    _fit_classifier(model, noisy, np.arange(IMAGES) % KINDS, rng)
    args = {
        "img_size": list(case.spec.image_size),
        "mean": [0.5] * case.spec.in_channels,
        "std": [0.25] * case.spec.in_channels,
    }
    torch.save({"model": {n: t.to(dtype) for n, t in model.state_dict().items()}, "args": args}, directory / "model.pt")
    np.save(directory / "calibration.npy", noisy[rng.permutation(IMAGES)].astype(np.float32))
    layout = directory / "own.toml"
    base = "canonical" if isinstance(case.spec, S2MLPSpec) else "canonical-v2"
    base = MixerSpec.family if isinstance(case.spec, MixerSpec) else base
    layout.write_text("\n".join([f'extends = "{base}"', *case.layout]))
    return Written(directory / "model.pt", directory / "calibration.npy", str(layout) if case.layout else None)


def _images(spec: Spec, count: int, rng: np.random.Generator) -> Array:
    return rng.standard_normal((count, spec.in_channels, *spec.image_size))


def _fit_classifier(model: StagedModel | Mixer, images: Array, kinds: Array, rng: np.random.Generator) -> None:
    """Least squares on what comes before the classifier; classes without images get small random weights."""
    weight, bias = model.head.fc.weight, model.head.fc.bias
    features = _features(model, images)
    known = min(KINDS, len(weight))
    targets = np.where(kinds[:, None] % known == np.arange(known), 4.0, -1.0)
    design = np.hstack([features, np.ones((len(features), 1))]) if bias is not None else features
    ridge = 1e-2 * np.trace(design.T @ design) / len(design.T)
    solved = np.linalg.solve(design.T @ design + ridge * np.eye(len(design.T)), design.T @ targets).T
    width = features.shape[1]
    rows = 0.1 * rng.standard_normal(tuple(weight.shape)) * np.abs(solved[:, :width]).mean()
    rows[:known] = solved[:, :width]
    with torch.no_grad():
        weight.copy_(torch.from_numpy(rows))
        if bias is not None:
            offsets = np.full(len(weight), -1.0)
            offsets[:known] = solved[:, width]
            bias.copy_(torch.from_numpy(offsets))


def _features(model: StagedModel | Mixer, images: Array) -> Array:
    """What the classifier reads: means over positions (images, channels)."""
    found = []
    hook = model.head.fc.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0].double().numpy()))
    for start in range(0, len(images), 8):
        for _ in activations(model, torch.from_numpy(images[start : start + 8]).float()):
            pass
    hook.remove()
    return np.concatenate(found)


__all__ = ["Case", "Written", "cases", "cases_of_mixers", "cases_of_version_two", "large_cases", "replace", "write"]
