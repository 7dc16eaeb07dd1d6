"""Nothing healthy is refused.

Whatever architecture, weight type and image size a sound checkpoint has, it can be exported at every precision. What is
tried are random models: one to three stages, 8 to 69 channels (odd widths, too), up to 8 blocks, square and oblong
patches and images, 1 to 4 input channels, 2 to 1,000 classes, all direction sets, both shift semantics, with and without
biases and final norm, weights in float16, bfloat16, float32 and float64. Each goes through the whole export at fp32,
fp16 and int8, in formats and lowerings dealt in turn.

The weights are random but for the classifier's, which are fitted to tell eight kinds of images apart. int8 promises that
classes are kept, and a classifier that is random, too, decides between near ties, whose classes no rounding keeps: such
a model is refused at int8 for a reason. Calibration images are noise around those eight kinds. Not covered: bf16, which
nothing here can run.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import pytest

from helpers.reliability.random_checkpoints import (
    Case,
    cases,
    cases_of_mixers,
    cases_of_version_two,
    large_cases,
    write,
)
from helpers.reliability.record import Trials
from s2mlp_deploy.errors import Error
from s2mlp_deploy.pipeline.deploy import Export, deploy
from s2mlp_deploy.pipeline.request import ExportRequest, FormatOptions, GraphOptions, OutputOptions, Source
from s2mlp_deploy.pipeline.verify import verify
from s2mlp_deploy.quantization.settings import OPTIONS, Int8

PRECISIONS = ("fp32", "fp16", "int8")
FORMATS = ("onnx", "ort", "openvino")
TARGETS = ("x86", "arm", "trt")
PARTS = 3


def request(case: Case, precision: str, directory: Path) -> ExportRequest:
    """The export of ``case`` at ``precision``; over the cases each format meets each precision and each target."""
    written = write(case, directory)
    turn = case.index + PRECISIONS.index(precision)
    shift = case.spec.shifts[0] if case.spec.shifts else None
    return ExportRequest(
        Source(
            written.checkpoint,
            layout=written.layout,
            semantics=shift.semantics if shift else None,
            offsets=shift.offsets if shift else None,
        ),
        graph=GraphOptions(lowering=case.lowering),
        precision=Int8(written.calibration, target=TARGETS[case.index // len(FORMATS) % len(TARGETS)])
        if precision == "int8"
        else OPTIONS[precision](),
        format=FormatOptions(FORMATS[turn % len(FORMATS)]),
        output=OutputOptions(directory / precision),
    )


@pytest.mark.parametrize("part", range(PARTS))
def test_healthy_checkpoints_are_exported_at_every_precision(part: int, trials: Trials, tmp_path: Path) -> None:
    """Random sound checkpoints are exported as fp32, fp16 and int8, as ONNX files and engines of ONNX Runtime and OpenVINO,
    and checked again by s2mlp-verify. Ratios are of a distance from the reference and its limit.
    """
    export_all(islice(cases(trials.times(PARTS, 200)), part, None, PARTS), trials, tmp_path)


def test_models_with_split_attention_are_exported_at_every_precision(trials: Trials, tmp_path: Path) -> None:
    """The same for random models of S²-MLPv2, of one to three stages, whose split attention has 1 to 138 channels."""
    export_all(cases_of_version_two(trials.times(1, 40)), trials, tmp_path)


def test_mixers_are_exported_at_every_precision(trials: Trials, tmp_path: Path) -> None:
    """The same for random MLP-Mixers of up to 81 positions, which they mix through 4 to 69 values."""
    export_all(cases_of_mixers(trials.times(1, 40)), trials, tmp_path)


def test_maps_of_up_to_65536_positions_are_exported_at_every_precision(trials: Trials, tmp_path: Path) -> None:
    """The same for models of 8 to 16 channels on maps of 1,024 to 65,536 positions, over which the classifier's mean is taken."""
    export_all(large_cases(trials.times(1, 24)), trials, tmp_path)


def export_all(models: Iterable[Case], trials: Trials, place: Path) -> None:
    refused: dict[str, str] = {}
    ratios: dict[str, list[float]] = defaultdict(list)
    for case in models:
        trials.tried("models")
        for precision in PRECISIONS:
            directory = place / f"{case.index}-{precision}"
            directory.mkdir()
            wanted = request(case, precision, directory)
            trials.tried(f"exports at {precision}")
            try:
                made = deploy(wanted)
                assert verify(made.bundle.directory).passed
            except (Error, AssertionError) as error:
                refused[f"{case} {wanted.format} {precision} {wanted.target or ''}"] = (
                    f"{type(error).__name__}: {error}"
                )
            else:
                ratios[precision].append(worst(made))
    for precision, found in ratios.items():
        trials.most(f"{precision}: largest distance / limit", max(found), f"{max(found):.2g}")
        trials.ended(f"at {precision} within half of the limit", sum(ratio < 0.5 for ratio in found))
    if refused:
        pytest.fail(f"{len(refused)} refused:\n" + "\n".join(f"{name}: {why}" for name, why in refused.items()))


def worst(made: Export) -> float:
    """The largest distance of any golden case, in units of its limit."""
    tolerance = made.bundle.manifest.tolerance
    assert made.verdict and tolerance
    distances = made.report.distances
    return max(d.relative_l2 for d in distances.values()) / tolerance.relative_l2
