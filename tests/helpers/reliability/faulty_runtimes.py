"""Faults of runtimes, and a stand-in for one that needs a GPU."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from helpers.reliability.injections import (
    Answers,
    after,
    before,
)
from s2mlp_deploy.bundle.contents import Artifact, Bundle
from s2mlp_deploy.checkpoint.load import load_checkpoint
from s2mlp_deploy.families.s2mlp.reference import S2MLP
from s2mlp_deploy.formats.base import Compiler, refuse_other_files
from s2mlp_deploy.formats.options import Options
from s2mlp_deploy.gate import reference_logits
from s2mlp_deploy.runtime.onnxruntime import OnnxSession
from s2mlp_deploy.schema.array import Array


class StandIn(Compiler):
    """A stand-in for TensorRT for RTX, which needs a GPU: takes its graphs, and runs them in ONNX Runtime.

    bfloat16, which ONNX Runtime has not on CPUs, PyTorch computes in its place, from the checkpoint ``torch``.
    """

    name = "trt-rtx"
    precisions = ("fp32", "fp16", "bf16", "int8")
    targets = ("trt",)
    options = Options
    torch: Path

    def compile(self, bundle: Bundle, destination: Path, options: Options) -> Artifact:
        shutil.copyfile(bundle.artifact.path, destination / "model.plan")
        return Artifact(destination, "model.plan", ("model.plan",), {"precision": bundle.manifest.precision})

    def inspect(self, bundle: Bundle) -> None:
        refuse_other_files(bundle, "model.plan")

    def open(self, artifact: Artifact) -> Any:
        return InTorch(self.torch) if artifact.settings["precision"] == "bf16" else OnnxSession(artifact.path)

    def versions(self) -> Mapping[str, str]:
        return {}


class InTorch:
    """A checkpoint's model in bfloat16."""

    def __init__(self, path: Path) -> None:
        source = load_checkpoint(path)
        self._model = S2MLP.of(source.spec, source.weights)

    def run(self, images: Array) -> Array:
        import torch

        return reference_logits.run(self._model, images, torch.bfloat16)


def at_last(change: Callable[[Array], None]) -> Callable[[], Answers]:
    def changed_answers(answers: Array) -> Array:
        change(answers)
        return answers

    return after(changed_answers)


def from_sample(first: int) -> Callable[[], Answers]:
    """Wrong from one place in the batch on: as if only so much of it had been computed."""

    def change(answers: Array) -> None:
        answers[first:] = 0

    return at_last(change)


class Late:
    """Gives what the previous images of that batch gave."""

    def __init__(self) -> None:
        self.kept: dict[int, Array] = {}

    def __call__(self, images: Array, run: Callable[[Array], Array]) -> Array:
        answers = run(images)
        previous = self.kept.get(len(images), answers)
        self.kept[len(images)] = answers
        return previous


class Reused:
    """Gives one buffer all the time, and writes into it again."""

    def __init__(self) -> None:
        self.buffers: dict[int, Array] = {}

    def __call__(self, images: Array, run: Callable[[Array], Array]) -> Array:
        buffer = self.buffers.setdefault(len(images), run(images))
        buffer[:] = run(images)
        return buffer


class First:
    """Gives what the first images gave, for ever."""

    def __init__(self) -> None:
        self.kept: Array | None = None

    def __call__(self, images: Array, run: Callable[[Array], Array]) -> Array:
        if self.kept is None or len(self.kept) < len(images):
            self.kept = run(images)
        return self.kept[: len(images)]


def in_one(value: float) -> Callable[[], Answers]:
    def change(answers: Array) -> None:
        answers[-1, 2] = value

    return at_last(change)


def where_size(is_wrong: Callable[[int, int], bool]) -> Callable[[], Answers]:
    """Wrong for some image sizes alone."""
    return lambda: lambda images, run: run(images) * (0.9 if is_wrong(*images.shape[2:]) else np.float32(1))


SESSIONS: dict[str, Callable[[], Answers]] = {
    "NaN in one answer": in_one(np.nan),
    "infinity in one answer": in_one(np.inf),
    "one answer zero": in_one(0.0),
    "all answers zero": after(np.zeros_like),
    "answers in float16": after(lambda a: a.astype(np.float16)),
    "answers in float64": after(lambda a: a.astype(np.float64)),
    "answers as integers": after(lambda a: a.astype(np.int32)),
    "answers transposed": after(lambda a: a.T),
    "answers with an axis too many": after(lambda a: a[..., None]),
    "one class too few": after(lambda a: a[:, :-1]),
    "one class too many": after(lambda a: np.pad(a, ((0, 0), (0, 1)))),
    "one sample too few": after(lambda a: a[:-1]),
    "classes off by one": after(lambda a: np.roll(a, 1, axis=1)),
    "classes reversed": after(lambda a: a[:, ::-1]),
    "two leading classes exchanged": after(lambda a: _exchanged(a)),
    "sign flipped": after(np.negative),
    "probabilities for logits": after(lambda a: np.exp(a) / np.exp(a).sum(1, keepdims=True)),
    "softmax's logarithm for logits": after(lambda a: a - np.log(np.exp(a).sum(1, keepdims=True))),
    "half of the answers": after(lambda a: a / 2),
    "samples of a batch reversed": after(lambda a: a[::-1]),
    "samples of a batch rolled": after(lambda a: np.roll(a, 1, axis=0)),
    "wrong from the second sample on": from_sample(1),
    "the first sample for all": after(lambda a: np.repeat(a[:1], len(a), axis=0)),
    "the previous answer": Late,
    "one buffer for all answers": Reused,
    "the first answer for ever": First,
    "rows for columns": before(lambda x: x[:, :, ::-1]),
    "mirrored": before(lambda x: x[..., ::-1]),
    "BGR": before(lambda x: x[:, ::-1]),
    "NHWC for NCHW": before(lambda x: x.transpose(0, 2, 3, 1).reshape(x.shape)),
    "normalized twice": before(lambda x: (x - np.float32(0.5)) / np.float32(0.25)),
    "images clipped": before(lambda x: np.clip(x, -2, 2)),
    "images in bytes": before(lambda x: x.astype(np.int8).astype(np.float32)),
    "the last row of pixels lost": before(lambda x: _zeroed(x)),
}


def _exchanged(answers: Array) -> Array:
    order = answers.argsort(axis=1)
    first, second = order[:, -1:], order[:, -2:-1]
    a, b = np.take_along_axis(answers, first, 1), np.take_along_axis(answers, second, 1)
    np.put_along_axis(answers, first, b, 1)
    np.put_along_axis(answers, second, a, 1)
    return answers


def _zeroed(images: Array) -> Array:
    images[:, :, -1] = 0
    return images
