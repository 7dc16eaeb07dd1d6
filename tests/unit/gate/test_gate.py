"""The gate is tested, too: every fault of the catalogue is caught, and no healthy export is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from helpers import mixers
from helpers.faults import FAULTS, FAULTS_OF_MIXER, FAULTS_OF_V2, Fault, Weights, healthy
from helpers.support import (
    INPLACE_CHECKPOINT,
    PAPER_CHECKPOINT,
    pyramid_spec,
    random_model,
    save_checkpoint,
    small_spec,
    v2_spec,
    weights_of,
)
from s2mlp_deploy.bundle import golden_tensors
from s2mlp_deploy.checkpoint.load import load_checkpoint
from s2mlp_deploy.errors import ParityError
from s2mlp_deploy.families.mixer.reference import Mixer
from s2mlp_deploy.families.mixer.spec import MixerSpec
from s2mlp_deploy.families.s2mlp.family import S2MLPFamily
from s2mlp_deploy.families.s2mlp.reference import S2MLP
from s2mlp_deploy.families.s2mlp.spec import S2MLPSpec, single_stage
from s2mlp_deploy.families.staged.reference import StagedModel
from s2mlp_deploy.families.staged.spec import StagedSpec
from s2mlp_deploy.formats import registry
from s2mlp_deploy.gate import gate as gates
from s2mlp_deploy.gate import golden, reference_logits
from s2mlp_deploy.gate.checks import Verdict
from s2mlp_deploy.gate.golden import GoldenReference
from s2mlp_deploy.gate.io_adapter import ArtifactIo
from s2mlp_deploy.gate.rules import tolerance_for
from s2mlp_deploy.graph.lowered import Axes, Lowered
from s2mlp_deploy.graph.spatial_shift import LOWERINGS
from s2mlp_deploy.pipeline.deploy import deploy
from s2mlp_deploy.pipeline.request import ExportRequest, GraphOptions, OutputOptions, Source
from s2mlp_deploy.schema.shift import DIRECTIONS, Border, Semantics, Shift
from s2mlp_deploy.schema.spec import Embedding
from s2mlp_deploy.schema.tolerance import Tolerance


@dataclass(frozen=True)
class Truth:
    """A checkpoint, and what the default gate expects of its export."""

    spec: StagedSpec
    weights: Weights
    golden_reference: GoldenReference

    @classmethod
    def of(cls, spec: StagedSpec, model: StagedModel) -> Truth:
        inputs = golden.make_inputs(spec, Axes(None, spec.image_size))
        return cls(spec, weights_of(model), reference_logits.compute_reference(model, inputs))

    def verdict(self, fault: Fault, directory: Path) -> Verdict:
        lowered = Lowered(fault(self.spec, self.weights), self.spec, Axes(None, self.spec.image_size), "gather", "fp32")
        target = registry.find("onnx")
        session = target.open(target.export(lowered, directory))
        return gates.gate(
            session, self.golden_reference.golden, tolerance_for("fp32", self.golden_reference), ArtifactIo()
        )


@pytest.fixture(scope="module")
def bundled() -> Truth:
    source = load_checkpoint(PAPER_CHECKPOINT)
    return Truth.of(source.spec, S2MLP.of(source.spec, source.weights))


@pytest.mark.parametrize("fault", FAULTS)
def test_the_gate_catches(fault: str, bundled: Truth, tmp_path: Path) -> None:
    verdict = bundled.verdict(FAULTS[fault], tmp_path)
    assert not verdict.passed, {case: d.relative_l2 for case, d in verdict.distances.items()}


@pytest.fixture(scope="module")
def of_v2() -> Truth:
    return Truth.of(v2_spec(), random_model(v2_spec()))


@pytest.mark.parametrize("fault", FAULTS_OF_V2)
def test_the_gate_catches_in_blocks_of_version_two(fault: str, of_v2: Truth, tmp_path: Path) -> None:
    verdict = of_v2.verdict(FAULTS_OF_V2[fault], tmp_path)
    assert not verdict.passed, {case: d.relative_l2 for case, d in verdict.distances.items()}


@pytest.fixture(scope="module")
def of_mixer() -> Truth:
    patch = Embedding((4, 4), (4, 4))
    spec = MixerSpec(patch, 14, 9, 20, 2, classes=7, image_size=mixers.SIZE)
    return Truth.of(spec, mixers.randomised(Mixer(spec)))  # type: ignore[arg-type]


def test_the_gate_passes_a_mixer(of_mixer: Truth, tmp_path: Path) -> None:
    verdict = of_mixer.verdict(healthy, tmp_path)
    assert verdict.passed, verdict.failures


@pytest.mark.parametrize("fault", FAULTS_OF_MIXER)
def test_the_gate_catches_in_a_mixer(fault: str, of_mixer: Truth, tmp_path: Path) -> None:
    verdict = of_mixer.verdict(FAULTS_OF_MIXER[fault], tmp_path)
    assert not verdict.passed, {case: d.relative_l2 for case, d in verdict.distances.items()}


@pytest.mark.parametrize("lowering", LOWERINGS)
def test_the_gate_passes_version_two_by_every_lowering(lowering: str, of_v2: Truth, tmp_path: Path) -> None:
    verdict = of_v2.verdict(lambda spec, weights: healthy(spec, weights, lowering), tmp_path)
    assert verdict.passed, verdict.failures


@pytest.mark.parametrize("lowering", LOWERINGS)
def test_the_gate_passes_every_healthy_lowering(lowering: str, bundled: Truth, tmp_path: Path) -> None:
    verdict = bundled.verdict(lambda spec, weights: healthy(spec, weights, lowering), tmp_path)
    assert verdict.passed, verdict.failures


KINDS: list[tuple[Semantics, Border]] = [("paper", "keep"), ("inplace", "keep"), ("paper", "zero"), ("paper", "wrap")]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids="-".join)
@pytest.mark.parametrize("norm_after_mean", [False, True], ids=["norm before the mean", "norm after the mean"])
def test_every_border_and_place_of_the_norm_passes_as_itself_and_is_caught_as_another(
    kind: tuple[Semantics, Border], norm_after_mean: bool, tmp_path: Path
) -> None:
    def structure(kind: tuple[Semantics, Border], behind: bool, spec: S2MLPSpec) -> S2MLPSpec:
        return replace(spec, shift=Shift(DIRECTIONS["4"], *kind), final_norm=True, norm_after_mean=behind)

    spec = structure(kind, norm_after_mean, small_spec(channels=24, depth=3))
    truth = Truth.of(spec, random_model(spec, seed=2))
    for name, lowering in LOWERINGS.items():
        if lowering.refusal(spec.shift, dynamic_size=False) is None:
            verdict = truth.verdict(lambda s, w, n=name: healthy(s, w, n), tmp_path)  # type: ignore[misc]
            assert verdict.passed, (name, verdict.failures)
    others = [structure(other, norm_after_mean, spec) for other in KINDS if other != kind]
    for other in (*others, structure(kind, not norm_after_mean, spec)):
        assert not truth.verdict(lambda _, w, o=other: healthy(o, w, "slice"), tmp_path).passed  # type: ignore[misc]


def random_specs(count: int) -> Iterator[S2MLPSpec]:
    rng = np.random.default_rng(5)
    yield pyramid_spec()
    for _ in range(count):
        patch = int(rng.integers(1, 6))
        spec = single_stage(
            channels=int(rng.integers(8, 70)),
            depth=int(rng.integers(1, 9)),
            patch=patch,
            expansion=int(rng.integers(1, 5)),
            classes=int(rng.integers(2, 40)),
            image_size=(patch * int(rng.integers(1, 9)), patch * int(rng.integers(1, 9))),
            in_channels=int(rng.integers(1, 5)),
        )
        directions = rng.choice(list(DIRECTIONS))
        semantics, border = KINDS[int(rng.integers(0, len(KINDS)))]
        biases = frozenset(layer for layer in sorted(spec.biases) if rng.random() < 0.8)
        final_norm = bool(rng.random() < 0.5)
        yield replace(
            spec,
            shift=Shift(DIRECTIONS[directions], semantics, border),
            biases=biases,
            final_norm=final_norm,
            norm_after_mean=final_norm and bool(rng.random() < 0.5),
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    "spec",
    list(random_specs(24)),
    ids=lambda s: f"{s.stages[0].channels}x{s.depth}-{s.shift.semantics}-{s.shift.border}",
)
def test_the_gate_passes_healthy_models_of_any_shape(spec: S2MLPSpec, tmp_path: Path) -> None:
    truth = Truth.of(spec, random_model(spec, seed=3))
    for name, lowering in LOWERINGS.items():
        if lowering.refusal(spec.shift, dynamic_size=False) is None:
            (tmp_path / name).mkdir()
            verdict = truth.verdict(lambda s, w, n=name: healthy(s, w, n), tmp_path / name)  # type: ignore[misc]
            assert verdict.passed, (name, verdict.failures)


@pytest.mark.slow
@pytest.mark.parametrize("semantics", ["paper", "inplace"])
def test_a_checkpoint_exported_under_the_wrong_semantics_is_not_the_gates_to_find_but_evidences(
    semantics: str, tmp_path: Path
) -> None:
    # Parity holds under either semantics; only evidence tells which one the model was trained with.
    source = INPLACE_CHECKPOINT
    export = deploy(ExportRequest(Source(source, semantics=semantics), output=OutputOptions(tmp_path / "out")))  # type: ignore[arg-type]
    assert export.verdict is not None
    assert export.verdict.passed


def test_a_failed_gate_publishes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_checkpoint(tmp_path / "small.pt", small_spec())
    emit = S2MLPFamily.emit
    monkeypatch.setattr(
        S2MLPFamily, "emit", lambda self, spec, *rest: emit(self, spec.with_shift(Shift(semantics="inplace")), *rest)
    )
    with pytest.raises(ParityError, match="does not compute what the checkpoint computes"):
        deploy(
            ExportRequest(Source(path), graph=GraphOptions(lowering="gather"), output=OutputOptions(tmp_path / "out"))
        )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["small.pt"]


@dataclass
class PlansMemory:
    """A session that is wrong from the second run of a shape on, as ONNX Runtime's fp16 graphs were up to 1.18.1."""

    right: dict[bytes, np.ndarray]
    seen: set[tuple[int, ...]]

    def run(self, images: np.ndarray) -> np.ndarray:
        """The logits; NaN where the shape was seen before."""
        again = images.shape in self.seen
        self.seen.add(images.shape)
        logits = np.stack([self.right[image.tobytes()] for image in images])
        return np.full_like(logits, np.nan) if again else logits


@pytest.mark.parametrize("twice", [False, True], ids=["when it is made", "on a device"])
def test_no_shape_is_run_once_only(twice: bool) -> None:
    """Each image here has a size of its own, as those have that an artifact resizes itself."""
    rng = np.random.default_rng(1)
    inputs = {f"noise-{h}": rng.standard_normal((1, 3, h, 4)).astype(np.float32) for h in (4, 8, 12)}
    logits = {case: rng.standard_normal((1, 5)).astype(np.float32) for case in inputs}
    right = {inputs[case][0].tobytes(): logits[case][0] for case in inputs}
    expected = golden_tensors.Golden(inputs, logits, {})
    verdict = gates.gate(
        PlansMemory(right, set()), expected, Tolerance(relative_l2=1e-3, top1_agreement=1.0), ArtifactIo(), twice=twice
    )
    assert {check.case for check in verdict.failures} == set(inputs)
    assert {distance.samples for distance in verdict.distances.values()} == {1}  # though each ran twice


def test_a_device_runs_every_request_twice() -> None:
    rng = np.random.default_rng(1)
    inputs = {
        "noise": rng.standard_normal((3, 3, 4, 4)).astype(np.float32),
        "faint": np.zeros((1, 3, 4, 4), np.float32),
    }
    asked: list[int] = []

    class Counting:
        def run(self, images: np.ndarray) -> np.ndarray:
            asked.append(len(images))
            return np.zeros((len(images), 2), np.float32)

    expected = golden_tensors.Golden(inputs, {case: np.zeros((len(x), 2)) for case, x in inputs.items()}, {})
    gates.gate(Counting(), expected, Tolerance(relative_l2=1e-3, top1_agreement=1.0), ArtifactIo(), twice=True)
    assert asked == 2 * asked[: len(asked) // 2]
