"""Engines of repaired networks, which have any inputs and outputs: their profiles, sessions and builds."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from helpers.fake_tensorrt import FakeCuda, FakeEngine
from helpers.shift_nets import EXAMPLE, NETS
from helpers.support import run
from s2mlp_deploy.bundle.read import read_bundle
from s2mlp_deploy.errors import UsageError
from s2mlp_deploy.gate import network_gate
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.onnx_network import OnnxNetwork
from s2mlp_deploy.schema.tensor_entry import TensorEntry
from s2mlp_exporters.tensorrt.network_profile import profiles_for
from s2mlp_exporters.tensorrt.options import EngineOptions
from s2mlp_exporters.tensorrt.profile import Profile
from s2mlp_exporters.tensorrt.runtime import find_gpu
from s2mlp_exporters.tensorrt.session import EngineSession

without_gpu = pytest.mark.skipif(not isinstance(find_gpu(), str), reason="this is about machines without a GPU")

IMAGE = TensorEntry(name="image", dtype="float32", shape=("batch", 3, "height", 12))
STEP = TensorEntry(name="step", dtype="int64", shape=())
BOXES = TensorEntry(name="boxes", dtype="float32", shape=("batch", 4))
NETWORK = OnnxNetwork(inputs=(IMAGE, STEP), outputs=(BOXES,), parameters=0)


def golden(*shapes: tuple[int, ...]) -> dict[str, Mapping[str, Array]]:
    """Inputs of ``NETWORK`` with images of ``shapes``."""
    return {f"noise-{n}": {"image": np.zeros(s, np.float32), "step": np.array(2)} for n, s in enumerate(shapes)}


# Profiles


def test_each_input_has_a_profile_of_its_fixed_sizes_the_batch_and_the_sizes_recorded() -> None:
    found = profiles_for(NETWORK, golden((2, 3, 8, 12), (1, 3, 16, 12), (3, 3, 4, 12)), EngineOptions())
    assert found == {"image": Profile((1, 3, 4, 12), (1, 3, 8, 12), (8, 3, 16, 12)), "step": Profile((), (), ())}


def test_the_batch_reaches_as_far_as_the_golden_inputs_or_as_given() -> None:
    many = golden((20, 3, 8, 12))
    assert profiles_for(NETWORK, many, EngineOptions())["image"].largest == (20, 3, 8, 12)
    assert profiles_for(NETWORK, many, EngineOptions(batch="2:4:32"))["image"] == Profile(
        (2, 3, 8, 12), (4, 3, 8, 12), (32, 3, 8, 12)
    )


@pytest.mark.parametrize(
    ("change", "shapes", "options", "complaint"),
    [
        ({}, [(2, 3, 8, 12)], {"batch": "1:1:1"}, r"--batch leaves out image of 2x3x8x12.*widen it to reach 2$"),
        ({}, [(2, 3, 8, 12)], {"batch": "3:2:1"}, "expected MIN:OPT:MAX"),
        ({}, [(2, 3, 8, 12)], {"size_profile": "4:8:16"}, "--size-profile 4:8:16: for image classifiers"),
        ({}, [], {}, "image has the free size height, and the bundle has no golden inputs"),
        ({"inputs": (STEP,)}, [], {"batch": "1:2:3"}, "--batch 1:2:3: no input of the network has a free batch"),
        (
            {"outputs": (BOXES.model_copy(update={"dtype": "float64"}),)},
            [(2, 3, 8, 12)],
            {},
            "boxes is float64, and engines take and give float32, .*--format ort or openvino",
        ),
    ],
)
def test_ranges_and_types_that_do_not_fit_are_refused_by_name(
    change: dict[str, Any], shapes: list[tuple[int, ...]], options: dict[str, str], complaint: str
) -> None:
    with pytest.raises(UsageError, match=complaint):
        profiles_for(NETWORK.model_copy(update=change), golden(*shapes), EngineOptions(**options))


# Sessions


def detect(image: Array, step: Array) -> tuple[Array, ...]:
    """Three outputs of three types and ranks: a map, numbers of the samples, and one number of the whole call."""
    total = (image.sum() > 0).reshape(())
    return image[:, :, ::2].astype(np.float16), image.max((1, 2, 3)).astype(np.int64) + step, total


class Detector:
    """A session of ``detect`` with the fakes behind it."""

    def __init__(self, *, rtx: bool) -> None:
        self.cuda = FakeCuda()
        profiles = {"image": ((1, 3, 4, 12), (1, 3, 8, 12), (4, 3, 16, 12)), "step": ((), (), ())}
        dtypes = {"image": "float32", "step": "int64", "maps": "float16", "numbers": "int64", "bright": "bool"}
        self.engine = FakeEngine(self.cuda, profiles, dtypes, detect)
        self.trt: Any = SimpleNamespace(nptype=np.dtype)
        if rtx:
            self.trt.CudaGraphStrategy = SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole")
            self.trt.DynamicShapesKernelSpecializationStrategy = SimpleNamespace(EAGER="eager")

    def session(self) -> EngineSession:
        return EngineSession(self.trt, self.engine, object(), self.cuda)  # type: ignore[arg-type]


def calls(samples: int, height: int = 8, step: int = 3, seed: int = 0) -> dict[str, Array]:
    image = 5 * np.random.default_rng(seed).standard_normal((samples, 3, height, 12)).astype(np.float32)
    return {"image": image, "step": np.array(step)}


@pytest.mark.parametrize("rtx", [False, True])
def test_all_inputs_and_outputs_are_bound_and_each_run_gives_its_own(rtx: bool) -> None:
    fake = Detector(rtx=rtx)
    session = network_gate.tensors_of(fake.session())
    kept = []
    for call in (calls(2), calls(2, step=7, seed=1), calls(4, 16), calls(1, 4, seed=2), calls(2)):
        kept.append((session.compute(dict(reversed(call.items()))), detect(**call)))
    for found, expected in kept:  # at the end: no run changed what another gave
        assert list(found) == ["maps", "numbers", "bright"]
        for one, other in zip(found.values(), expected, strict=True):
            assert (one.dtype, one.shape) == (other.dtype, other.shape) and np.array_equal(one, other)
    assert fake.cuda.count("Malloc") == fake.cuda.count("MallocHost") == 5
    assert fake.cuda.count("GraphLaunch") == (0 if rtx else 5) and fake.cuda.count("GraphInstantiate") == 4 * (not rtx)


def test_closing_a_session_of_many_tensors_gives_all_memory_back() -> None:
    fake = Detector(rtx=False)
    session = fake.session()
    session.compute(calls(2))
    session.close()
    assert fake.cuda.memory == {} and fake.cuda.count("Free", "FreeHost") == 10


def test_calls_that_the_engine_was_not_built_for_are_refused_and_it_runs_on() -> None:
    session = Detector(rtx=True).session()
    for call, complaint in (
        (calls(5), r"5x3x8x12: the engine was built for 1x3x4x12 to 4x3x16x12"),
        ({**calls(2), "step": np.zeros(2, np.int64)}, "an input of 2: the engine was built for no axes to no axes"),
        ({"image": calls(2)["image"]}, "inputs called image: the engine's are image, step"),
    ):
        with pytest.raises(UsageError, match=complaint):
            session.compute(call)
    assert session.compute(calls(2))["maps"].shape == (2, 3, 4, 12)


def test_an_output_whose_size_only_the_run_shows_is_refused() -> None:
    fake = Detector(rtx=True)
    fake.engine.knows_sizes = False
    with pytest.raises(UsageError, match="the size of maps does not follow from the inputs' sizes"):
        fake.session()


# Builds


@pytest.fixture(scope="module")
def repaired(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of the example, a detector with three outputs whose batch is free."""
    place = tmp_path_factory.mktemp("repaired") / "detector"
    ran = run("repair", EXAMPLE, "--reference", EXAMPLE.with_suffix(".safetensors"), "-o", place)
    assert ran.code == 0, ran.err
    return place


@without_gpu
def test_a_repaired_detector_is_built_and_pending_a_device(repaired: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
    arguments = ("export", repaired, "--format", "trt-rtx", "-o", tmp_path / "engine")
    refused = run(*arguments)
    assert refused.code == 1 and "--allow-unverified-engine" in refused.err and not (tmp_path / "engine").exists()
    made = run(*arguments, "--allow-unverified-engine", "--batch", "1:2:4")
    assert made.code == 0 and "PENDING A DEVICE" in made.out, made.err
    manifest = read_bundle(tmp_path / "engine").manifest
    assert manifest.verdict == "pending a device" and manifest.engine is not None
    assert [manifest.engine[name] for name in ("smallest", "usual", "largest")] == [
        (f"input={batch}x3x80x48",) for batch in (1, 2, 4)
    ]
    verified = run("verify", tmp_path / "engine")
    assert verified.code == 4 and "needs an NVIDIA GPU" in verified.err
    narrow = run(*arguments, "--allow-unverified-engine", "--batch", "1:1:1", "--force")
    assert narrow.code == 2 and "--batch leaves out input of 2x3x80x48" in narrow.err


def test_a_device_without_tensorrt_is_told_the_way_on(
    repaired: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    ran = run("export", repaired, "--format", "trt", "-o", tmp_path / "engine")
    assert ran.code == 4 and "TensorRT cannot be loaded" in ran.err and list(tmp_path.iterdir()) == []


def test_triton_refuses_repaired_networks_by_name(repaired: Path, tmp_path: Path) -> None:
    classifier = tmp_path / "classifier"
    assert run("repair", NETS["s2mlp"].file("dynamo", "free"), "-o", classifier).code == 0
    for bundle, outputs in ((repaired, "3 outputs"), (classifier, "1 output")):
        ran = run("export", bundle, "--format", "triton", "-o", tmp_path / "entry")
        assert ran.code == 2 and ran.err.count(". ") <= 1 and not (tmp_path / "entry").exists()
        assert (
            f"--format triton is for image classifiers, and {bundle} holds a repaired network of 1 input and {outputs}"
            in ran.err
        )
