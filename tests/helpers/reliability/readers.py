"""Everything that reads files, each with files to change, ways to change them, and what a result must be like."""

from __future__ import annotations

import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from random import Random

import numpy as np
import safetensors.numpy
import safetensors.torch
import torch
from PIL import Image

from helpers.reliability import mutate
from helpers.support import random_model, run, save_checkpoint, small_spec
from s2mlp_deploy.bundle import golden_tensors
from s2mlp_deploy.bundle.read import read_bundle
from s2mlp_deploy.checkpoint.load import checkpoint_warnings, load_checkpoint
from s2mlp_deploy.data import image_folders, images
from s2mlp_deploy.data.labels import read_labels
from s2mlp_deploy.errors import LayoutError
from s2mlp_deploy.families import s2mlp
from s2mlp_deploy.families.recognition import recognise
from s2mlp_deploy.families.registry import find_layout, read_spec
from s2mlp_deploy.families.s2mlp.family import S2MLPFamily
from s2mlp_deploy.gate import golden_images, shift_evidence
from s2mlp_deploy.schema.manifest import Preprocessing, parse_manifest

SPEC = small_spec(channels=5, depth=1, classes=3)
PREPARED = Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))

LITERT = find_spec("ai_edge_litert") is not None
COREML = find_spec("coremltools") is not None

Change = Callable[[Random, bytes, Sequence[bytes]], bytes]
Read = Callable[[Path], object]


@dataclass(frozen=True)
class Reader:
    """``read`` is given a change of one of ``seeds``, which are names of files; it refuses, or checks what it got."""

    seeds: tuple[str, ...]
    changes: tuple[Change, ...]
    read: Callable[[Path], object]


def make_seeds(place: Path) -> None:
    """Write every file that is changed into ``place``."""
    state = dict(random_model(SPEC).state_dict())
    args = {"img_size": [20, 28], "mean": [0.5] * 3, "std": (np.float32(0.25),) * 3}
    content = {"model": state, "args": args, "epoch": np.int64(3), "class_names": ["a", "b", "c"]}
    torch.save(content, place / "wrapped.pt")
    torch.save({key: torch.nn.Parameter(value.half()) for key, value in state.items()}, place / "half.pt")
    for name in ("wrapped", "half"):
        old = torch.load(place / f"{name}.pt", weights_only=False)
        torch.save(old, place / f"{name}-old.pt", _use_new_zipfile_serialization=False)
    with zipfile.ZipFile(place / "wrapped.pt") as old_archive, zipfile.ZipFile(place / "packed.pt", "w", 8) as packed:
        for entry in old_archive.infolist():
            packed.writestr(entry.filename, old_archive.read(entry))
    safetensors.torch.save_file(state, place / "model.safetensors", metadata={"format": "pt", "img_size": "20"})
    safetensors.torch.save_file({k: v.bfloat16() for k, v in state.items()}, place / "half.safetensors")

    pixels = np.random.default_rng(0).integers(0, 256, (24, 30, 3)).astype(np.uint8)
    picture = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(place / "plain.png")
    picture.save(place / "turned.jpg", exif=exif, quality=80)
    picture.save(place / "progressive.jpg", progressive=True)
    picture.convert("P").save(place / "palette.png", transparency=0)
    picture.convert("LA").save(place / "interlaced.png", optimize=True)
    for suffix in ("bmp", "gif", "webp", "tif", "ppm"):
        picture.save(place / f"plain.{suffix}")

    (place / "pictures" / "0").mkdir(parents=True)
    picture.save(place / "pictures" / "0" / "a.png")
    save_checkpoint(place / "model.pt", SPEC)
    out = place / "bundle"
    ran = run("export", place / "model.pt", "--golden-images", place / "pictures", "-o", out)
    assert ran.code == 0, ran.err
    if LITERT:
        assert run("export", out, "--format", "litert", "-o", place / "litert").code == 0
        shutil.copy(place / "litert" / "model.tflite", place / "model.tflite")
        np.save(place / "noise.npy", np.random.default_rng(0).standard_normal((64, 3, 20, 28)).astype(np.float32))
        (place / "named.json").write_text(json.dumps([f"class {i}" for i in range(SPEC.classes)]), "utf-8")
        int8 = ("--precision", "int8", "--calibration", place / "noise.npy", "--min-agreement", 0.8)
        named = ("--labels", place / "named.json", "-o", place / "litert-int8")
        ran = run("export", place / "model.pt", "--format", "litert", *int8, *named)
        assert ran.code == 0, ran.err
        shutil.copy(place / "litert-int8" / "model.tflite", place / "int8.tflite")
        micro = (*int8, "--target", "litert-micro", "-o", place / "litert-micro")
        ran = run("export", place / "model.pt", "--format", "litert", *micro)
        assert ran.code == 0, ran.err
        shutil.copy(place / "litert-micro" / "model.tflite", place / "micro.tflite")
    if COREML:
        ran = run("export", out, "--format", "coreml", "--allow-unverified-engine", "-o", place / "coreml")
        assert ran.code == 0, ran.err
        package = place / "coreml" / "model.mlpackage" / "Data" / "com.apple.CoreML"
        program, weights = (package / "model.mlmodel").read_bytes(), (package / "weights" / "weight.bin").read_bytes()
        (place / "model.coreml").write_bytes(len(program).to_bytes(8, "little") + program + weights)
    shutil.copy(out / "manifest.json", place / "manifest.json")
    shutil.copy(out / "golden.safetensors", place / "golden.safetensors")

    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((4, 3, 20, 28)).astype(np.float32)
    logits = rng.standard_normal((4, 3)).astype(np.float32)
    np.save(place / "inputs.npy", inputs)
    np.savez(place / "recorded.npz", input=inputs, logits=logits)
    np.savez_compressed(place / "packed.npz", input=inputs, logits=logits.astype(np.float64))
    safetensors.numpy.save_file({"input": inputs, "logits": logits}, place / "recorded.safetensors")
    (place / "labels.txt").write_text("cat\ndog\nbird\n", "utf-8")
    (place / "list.json").write_text('["cat", "dog", "bird"]')
    (place / "index.json").write_text('{"cat": 0, "dog": 1, "bird": 2}')
    (place / "names.json").write_text('{"0": ["n01", "cat"], "1": ["n02", "dog"], "2": ["n03", "bird"]}')
    for file in (Path(s2mlp.__path__[0]) / "layouts").glob("*.toml"):
        shutil.copy(file, place / file.name)


# How results are checked


def _checkpoint(path: Path) -> None:
    source = load_checkpoint(path)
    checkpoint_warnings(source)
    assert {k: tuple(v.shape) for k, v in source.weights.items()} == source.spec.parameter_shapes()
    for weight in source.weights.values():
        assert weight.dtype in (torch.float32, torch.float64) and np.isfinite(weight.numpy()).all()
    for values in (source.recorded.mean, source.recorded.std):
        assert values is None or all(0 <= v <= 1 for v in values)
    assert source.recorded.labels is None or all(isinstance(label, str) for label in source.recorded.labels)
    assert min(min(size) for size in source.spec.map_sizes(source.spec.image_size)) > 0


def _manifest(path: Path) -> None:
    manifest = parse_manifest(path.read_bytes(), str(path), read_spec)
    assert parse_manifest(manifest.to_json(), "again", read_spec) == manifest
    manifest.spec.map_sizes(manifest.spec.image_size)


def _golden(path: Path) -> None:
    found = golden_tensors.load(path)
    assert found.inputs.keys() == found.logits.keys()
    for case, values in found.inputs.items():
        assert values.ndim == 4 and len(values) == len(found.logits[case]) > 0
        assert values.dtype in (np.float32, np.uint8) and found.logits[case].dtype == np.float32


def _image(path: Path) -> None:
    images.pixel_count(path)
    golden_images.small_ones([path])
    prepared = images.prepare(path, PREPARED, SPEC.image_size)
    assert prepared.shape == (3, *SPEC.image_size) and prepared.dtype == np.float32 and np.isfinite(prepared).all()


def _labels(path: Path) -> None:
    labels = read_labels(path, 3)
    assert len(labels) == 3 and all(isinstance(label, str) and label for label in labels)


def _recording(path: Path) -> None:
    inputs, logits = shift_evidence.read_reference(path, SPEC)
    assert inputs.dtype == np.float32 and inputs.shape[1:] == (3, 20, 28) and logits.shape == (len(inputs), 3)
    assert np.isfinite(inputs).all() and np.isfinite(logits).all()


def _inputs(path: Path) -> None:
    inputs = images.read_inputs(path, PREPARED, SPEC, 64)
    assert inputs.dtype == np.float32 and inputs.shape[1:] == (3, 20, 28) and np.isfinite(inputs).all()


_SHAPES = SPEC.parameter_shapes()


def _layout(path: Path) -> None:
    layout = find_layout(str(path))
    assert 0 < layout.norm_epsilon < 1
    for prefix, names in layout.translate(_SHAPES).items():
        assert all(key in _SHAPES and key.startswith(prefix) for key in names.values())
    spelled = (prefix.replace("{s}", "0").replace("{b}", "0") for prefix in layout.keys.values())
    shapes = {f"{prefix}.weight": (4, 4) for prefix in spelled}
    for known in (_SHAPES, shapes):
        try:
            match = recognise(known, [layout])
            S2MLPFamily().infer_spec(match, known, image_size=(224, 224), shift=SPEC.shift).map_sizes((224, 224))
        except LayoutError:
            continue


def _folder(path: Path) -> None:
    found = image_folders.find_labelled(path, 3, ("a", "b", "c"))
    assert all(0 <= label < 3 for label in found.labels) and len(found.paths) == len(found.labels) > 0
    image_folders.find_pictures(path, 3)
    images.read_inputs(path, PREPARED, SPEC, 4)


def _bundle(path: Path) -> None:
    read_bundle(path)


# How files are changed


def _raw(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    return mutate.raw(rng, data, others)


def _tokens(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    return mutate.tokens(rng, data, others)


def _tree(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    return mutate.tree(rng, data)


def _headed(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    return mutate.headed(rng, data)


def _npy(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    return mutate.npy(rng, data)


def _entry(rng: Random, name: str, content: bytes) -> bytes:
    if name.endswith(".pkl") and rng.random() < 0.8:
        return mutate.instructions(rng, content)
    if name.endswith(".npy") and rng.random() < 0.8:
        return mutate.npy(rng, content)
    return mutate.raw(rng, content)


def _archived(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    return mutate.archived(rng, data, _entry)


def _instructions(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """One of the pickles of the older format."""
    stream, starts = io.BytesIO(data), []
    for _ in range(5):
        starts.append(stream.tell())
        for _ in mutate.pickletools.genops(stream):
            pass
    starts.append(stream.tell())
    which = rng.choice((3, 3, 3, 4, 2, 1, 0))
    a, b = starts[which], starts[which + 1]
    return data[:a] + mutate.instructions(rng, data[a:b]) + data[b:]


PICTURES = (
    "plain.png",
    "palette.png",
    "interlaced.png",
    "turned.jpg",
    "progressive.jpg",
    "plain.bmp",
    "plain.gif",
    "plain.webp",
    "plain.tif",
    "plain.ppm",
)
LAYOUTS = ("canonical.toml", "jittor-mlp.toml", "model-p.toml", "model-p-flat.toml", "post-norm.toml")


def _litert(path: Path) -> None:
    """What the scan lets pass is loaded and run: no file may end the process."""
    from s2mlp_exporters.litert import artifact_scan
    from s2mlp_exporters.litert.session import LiteRtSession

    artifact_scan.inspect(path)
    session = LiteRtSession(path, "", threads=1)
    session.describe()
    session.run(np.zeros((2, 3, 20, 28), np.float32))


def _coreml(path: Path) -> None:
    """The length of a program, the program, and its weights: the scan refuses them, or knows every operator and value."""
    from s2mlp_exporters.coreml import artifact_scan, recompute

    data, program, weights = path.read_bytes(), path.with_suffix(".mlmodel"), path.with_suffix(".bin")
    end = 8 + int.from_bytes(data[:8], "little")
    program.write_bytes(data[8:end])
    weights.write_bytes(data[end:])
    found = artifact_scan.inspect_program(program, weights)
    assert {operation.kind for operation in found.operations} <= recompute.OPERATORS.keys() and found.outputs


READERS: dict[str, Reader] = {
    "checkpoints in torch's archive": Reader(
        ("wrapped.pt", "half.pt", "packed.pt"), (_archived, _archived, _raw), _checkpoint
    ),
    "checkpoints in torch's older format": Reader(
        ("wrapped-old.pt", "half-old.pt"), (_instructions, _instructions, _raw), _checkpoint
    ),
    "checkpoints in safetensors": Reader(
        ("model.safetensors", "half.safetensors"), (_headed, _headed, _raw), _checkpoint
    ),
    "layouts": Reader(LAYOUTS, (_tokens, _tokens, _raw), _layout),
    "manifests": Reader(("manifest.json",), (_tree, _tree, _tokens, _raw), _manifest),
    "golden tensors": Reader(("golden.safetensors",), (_headed, _headed, _raw), _golden),
    "images": Reader(PICTURES, (_raw,), _image),
    "labels": Reader(("labels.txt", "list.json", "index.json", "names.json"), (_tokens, _raw), _labels),
    "recordings": Reader(("recorded.npz", "packed.npz"), (_archived, _archived, _raw), _recording),
    "recordings in safetensors": Reader(("recorded.safetensors",), (_headed, _headed, _raw), _recording),
    "calibration inputs": Reader(("inputs.npy",), (_npy, _npy, _raw), _inputs),
    **(
        {"models for LiteRT": Reader(("model.tflite", "int8.tflite", "micro.tflite"), (_raw, _raw), _litert)}
        if LITERT
        else {}
    ),
    **({"programs for Core ML": Reader(("model.coreml",), (_raw,), _coreml)} if COREML else {}),
}
"""By what they read."""


class Folders:
    """Folders of images with odd names and contents."""

    NAMES = (
        "0",
        "1",
        "2",
        "3",
        "00",
        "01",
        "a",
        "b",
        "c",
        "d",
        ".hidden",
        "٣",
        "²",
        "-1",
        "99999999999999999999",
        "é",
        " ",
        "a\nb",
        "\udce9",
        "x" * 200,
        "a.png",
        "[bold]",
    )

    def __init__(self, picture: Path) -> None:
        self._picture = picture

    def write(self, rng: Random, place: Path) -> None:
        place.mkdir()
        for name in rng.sample(self.NAMES, rng.randrange(6)):
            folder = place / name
            kind = rng.randrange(8)
            if kind == 0:
                folder.write_bytes(b"x")
            elif kind == 1:
                folder.symlink_to(rng.choice((place, Path("/nowhere"), Path(os.devnull))))
            else:
                folder.mkdir()
                for file in rng.sample(
                    ("a.png", "b.PNG", "c.jpg", "d.txt", "sub", "loop.png", "nul.gif"), rng.randrange(4)
                ):
                    target = folder / file
                    if file == "sub":
                        target.mkdir()
                        shutil.copy(self._picture, target / "e.png")
                    elif file == "loop.png":
                        target.symlink_to(target)
                    elif file == "nul.gif":
                        target.mkdir()
                    else:
                        shutil.copy(self._picture, target)
