"""Checkpoints beyond protobuf's 2 GB are exported like any other.

Their float32 weights lie in a file beside the model, `model.onnx.data`, which is hashed and checked as every file of a bundle
is. What cannot hold so much says so, and what to do instead: a browser, an `.ort` file, an entry for Triton. float16 and int8
weights of the same checkpoint fit into one file.

Peak memory is that of the whole process, checkpoint and model files included as far as they are mapped into memory, which
the system takes back when it is short.

Not covered: engines of TensorRT, which need a GPU.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from helpers.formats import manifest_of, promised
from helpers.reliability.record import Trials
from helpers.support import command, run, save_checkpoint, small_spec
from s2mlp_deploy.families.s2mlp.reference import S2MLP
from s2mlp_deploy.families.s2mlp.spec import S2MLPSpec, single_stage
from s2mlp_deploy.graph import writer
from s2mlp_deploy.system.process_cost import measure

DISK_BYTES, MEMORY_BYTES = 25e9, 15e9
"""What the large checkpoint and everything made of it take at most."""

DATA = "model.onnx.data"


# Every format, with a small model and a lowered limit


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """``small.pt`` and ``onnx``, a bundle of it with its weights beside the model."""
    place = tmp_path_factory.mktemp("beside")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "LIMIT_BYTES", 1)
        ran = run("export", save_checkpoint(place / "small.pt", small_spec()), "-o", place / "onnx")
        assert ran.code == 0 and (place / "onnx" / DATA).exists(), ran.err
        yield place


CANNOT = {
    "triton": "Triton wants laid out otherwise",
    "web": "more than a browser can hold",
}
"""The formats that take no weights beside the model, and what they say."""

KINDS = (
    "ort",
    "ort --ort-style onnx",
    "openvino",
    "triton",
    pytest.param("web", marks=pytest.mark.npm("onnxruntime-web")),
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("source", ["onnx", "small.pt"])
def test_weights_beside_the_model(trials: Trials, beside: Path, tmp_path: Path, source: str, kind: str) -> None:
    """Lower the limit, so that a small model's weights lie beside it, and compile it for every format, from the bundle and
    from the checkpoint: the bundle moves and verifies, and is the same, byte for byte, when made again; or the format says
    that it cannot hold such a model, and nothing is published."""
    format = kind.split()[0]
    if source == "small.pt" and kind != "ort" and not trials.thorough:
        pytest.skip("the others start from the bundle without --thorough")
    made = [tmp_path / name for name in ("first", "second")]
    for output in made:
        ran = run("export", beside / source, "--format", *kind.split(), "-o", output)
        if format in CANNOT:
            assert (ran.code, output.exists()) == (2, False) and CANNOT[format] in ran.err
            return
        assert ran.code == 0, ran.err
        trials.tried("bundles")
    assert promised(made[0]) == promised(made[1])
    made[0].rename(tmp_path / "elsewhere")
    assert run("verify", tmp_path / "elsewhere").code == 0


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_narrow_weights_beside_the_model(trials: Trials, beside: Path, tmp_path: Path, precision: str) -> None:
    """The same for float16 and int8 weights of a model that is larger still."""
    options = ["--precision", precision]
    if precision == "int8":
        np.save(tmp_path / "images.npy", np.random.default_rng(0).standard_normal((64, 3, 20, 28)).astype(np.float32))
        options += ["--calibration", str(tmp_path / "images.npy"), "--min-agreement", "0.5"]
    ran = run("export", beside / "small.pt", *options, "-o", tmp_path / "graph")
    assert ran.code == 0 and (tmp_path / "graph" / DATA).exists(), ran.err
    assert run("verify", tmp_path / "graph", "--per-block").code == 0
    trials.tried("bundles")


@pytest.mark.parametrize("change", ["missing", "cut short", "changed", "unlisted"])
def test_damaged_weights_beside_the_model(trials: Trials, beside: Path, tmp_path: Path, change: str) -> None:
    """Remove, cut short or change the file with the weights, or its entry in the manifest: s2mlp-verify and s2mlp-export
    refuse the bundle and name the file."""
    bundle = Path(shutil.copytree(beside / "onnx", tmp_path / "bundle"))
    data = bundle / DATA
    if change == "missing":
        data.unlink()
    elif change == "cut short":
        data.write_bytes(data.read_bytes()[:-4])
    elif change == "changed":
        data.write_bytes(bytes([data.read_bytes()[0] ^ 1]) + data.read_bytes()[1:])
    else:
        text = (bundle / "manifest.json").read_text()
        (bundle / "manifest.json").write_text(text.replace(f'"{DATA}"', '"other.data"'))
    for ran in (run("verify", bundle), run("export", bundle, "--format", "openvino", "-o", tmp_path / "out")):
        assert ran.code == 3 and ("other.data" if change == "unlisted" else DATA) in ran.err, ran.err
        trials.tried("refusals")


@pytest.mark.thorough
def test_races_with_weights_beside_the_model(trials: Trials, beside: Path, tmp_path: Path) -> None:
    """Benchmark such a bundle, with the matrix products alone and the weights in the hands of PyTorch and OpenVINO: all of
    them find the weights."""
    names = ("openvino", "torch-eager") if trials.thorough else ("openvino",)
    rivals = [word for name in names for word in ("--baseline", name)]
    ran = command(
        "s2mlp-bench",
        "s2mlp_bench.cli",
        "main",
        beside / "onnx",
        *rivals,
        "--min-seconds",
        0,
        "--min-rounds",
        10,
        "--no-cold",
        "--no-energy",
        "--json-file",
        tmp_path / "race.json",
    )
    assert ran.code == 0, ran.err
    found = (tmp_path / "race.json").read_text()
    assert all(name in found for name in ("onnx, products alone", *names))
    trials.tried("races")


# The real thing


@dataclass(frozen=True)
class Large:
    """A checkpoint in ``place``, and what was made of it."""

    place: Path

    @property
    def checkpoint(self) -> Path:
        return self.place / "large.pt"

    @property
    def size_bytes(self) -> int:
        return self.checkpoint.stat().st_size

    def does(self, trials: Trials, program: str, *arguments: object, says: str = "") -> None:
        """Run ``s2mlp-PROGRAM ARGUMENTS`` in ``place``; it ends well, or, where it ``says`` why not, with an error."""
        code = (
            "import os, sys; from s2mlp_deploy.cli import entry_points; "
            "os.chdir(sys.argv.pop(1)); program = sys.argv.pop(1); sys.argv[0] = f's2mlp-{program}'; "
            "getattr(entry_points, program)()"
        )
        told = [str(argument) for argument in arguments]
        whole = [sys.executable, "-c", code, str(self.place), program, *told]
        if says:
            with pytest.raises(RuntimeError, match=f"error: .*{says}"):
                measure(whole)
            trials.note(f"refused: {program} {' '.join(told)}")
        else:
            cost = measure(whole)
            memory = f"{cost.peak_rss_bytes / 1e9:.1f} GB, {cost.peak_rss_bytes / self.size_bytes:.1f}× the checkpoint"
            trials.note(f"{program} {' '.join(told)}: {memory}")
            assert cost.peak_rss_bytes < MEMORY_BYTES
        trials.tried("commands")

    def drop(self, *names: str) -> None:
        """Make room on the disk."""
        for name in names:
            shutil.rmtree(self.place / name)


@pytest.fixture(scope="module")
def large(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Large]:
    """3.4 GB of float32 weights for images of 32 by 32, which are gone afterwards."""
    if not request.config.getoption("--thorough"):
        pytest.skip("takes minutes, 25 GB on the disk and 15 GB of memory: tried with --thorough")
    place = tmp_path_factory.mktemp("large")
    try:
        if (free := shutil.disk_usage(place).free) < DISK_BYTES:
            pytest.skip(f"needs {DISK_BYTES / 1e9:.0f} GB on the disk, and {free / 1e9:.0f} GB are free")
        if (free := _available_bytes()) < MEMORY_BYTES:
            pytest.skip(f"needs {MEMORY_BYTES / 1e9:.0f} GB of memory, and {free / 1e9:.0f} GB are free")
        torch.save(weights(single_stage(channels=4096, depth=5, classes=10, image_size=(32, 32))), place / "large.pt")
        yield Large(place)
    finally:
        shutil.rmtree(place)


def weights(spec: S2MLPSpec) -> dict[str, torch.Tensor]:
    """A state dict with weights of the size that training gives."""
    with torch.device("meta"):
        shapes = S2MLP(spec).state_dict()
    generator = torch.Generator().manual_seed(0)
    found = {}
    for name, shape in shapes.items():
        if "norm" in name:
            found[name] = torch.full(shape.shape, float(name.endswith("weight")))
        else:
            found[name] = torch.empty(shape.shape).normal_(0, shape.shape[-1] ** -0.5, generator=generator)
    return found


def _available_bytes() -> int:
    lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))


SIZE = ("--image-size", 32)


def test_a_checkpoint_of_3_gb(trials: Trials, large: Large) -> None:
    """Take a checkpoint of 3.4 GB (5 blocks of 4096 channels) through all commands: inspected, exported twice with the same
    bytes, verified in another place, benchmarked; compiled for ONNX Runtime and OpenVINO, and refused for what cannot hold it."""
    large.does(trials, "inspect", "large.pt")
    large.does(trials, "export", "large.pt", *SIZE, "-o", "onnx")
    assert set(manifest_of(large.place / "onnx")["files"]) == {"model.onnx", DATA, "golden.safetensors"}
    assert (large.place / "onnx" / DATA).stat().st_size > 2**31
    large.does(trials, "verify", "onnx", "--per-block")
    large.does(trials, "export", "large.pt", *SIZE, "-o", "again")
    assert manifest_of(large.place / "onnx") == manifest_of(
        large.place / "again"
    )  # which holds the hashes of all files
    large.drop("again")
    (large.place / "elsewhere").mkdir()
    (large.place / "onnx").rename(large.place / "elsewhere" / "onnx")
    large.does(trials, "verify", "elsewhere/onnx")
    large.does(trials, "bench", "elsewhere/onnx", "--min-seconds", 1, "--min-rounds", 10)
    large.does(trials, "export", "elsewhere/onnx", "--format", "ort", "-o", "ort", says="an .ort file can hold 2.1 GB")
    large.does(trials, "export", "elsewhere/onnx", "--format", "web", "-o", "web", says="more than a browser can hold")
    large.does(trials, "export", "elsewhere/onnx", "--format", "triton", "-o", "triton", says="Triton wants")
    large.does(trials, "export", "elsewhere/onnx", "--format", "ort", "--ort-style", "onnx", "-o", "ort")
    large.does(trials, "verify", "ort")
    large.drop("ort")
    large.does(trials, "export", "elsewhere/onnx", "--format", "openvino", "-o", "openvino")
    large.does(trials, "verify", "openvino")
    large.drop("openvino", "elsewhere")


def test_narrow_weights_of_a_checkpoint_of_3_gb(trials: Trials, large: Large) -> None:
    """Export the same checkpoint in float16 and int8, whose weights fit into one file, and compile what is refused in float32."""
    images = np.random.default_rng(0).standard_normal((64, 3, 32, 32)).astype(np.float32)
    np.save(large.place / "images.npy", images)
    calibration = ("--calibration", "images.npy", "--min-agreement", 0.5)
    for precision, options in (("fp16", ()), ("int8", calibration)):
        large.does(trials, "export", "large.pt", *SIZE, "--precision", precision, *options, "-o", precision)
        assert set(manifest_of(large.place / precision)["files"]) == {"model.onnx", "golden.safetensors"}
        large.does(trials, "verify", precision)
        for format in ("ort", "triton", "openvino", *(["web"] if precision == "int8" else [])):
            large.does(trials, "export", precision, "--format", format, "-o", "engine")
            large.drop("engine")
    large.does(trials, "export", "fp16", "--format", "web", "-o", "web", says="GB to load, and a browser has")
    large.drop("fp16", "int8")


@pytest.mark.parametrize("kind", ["safetensors", "float16"])
def test_other_checkpoints_of_3_gb(trials: Trials, large: Large, kind: str) -> None:
    """The same weights as safetensors, and as a float16 checkpoint, which widens to as much."""
    state = torch.load(large.checkpoint, mmap=True, weights_only=True)
    if kind == "safetensors":
        path = large.place / "other.safetensors"
        save_file(state, path)
    else:
        path = large.place / "other.pt"
        torch.save({name: tensor.half() for name, tensor in state.items()}, path)
    large.does(trials, "export", path.name, *SIZE, "-o", "other")
    assert (large.place / "other" / DATA).stat().st_size > 2**31
    path.unlink()
    large.drop("other")
