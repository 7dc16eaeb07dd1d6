"""Damaged, incomplete and foreign bundles are refused in one paragraph, before anything in them is loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from helpers.support import run
from s2mlp_deploy.bundle.contents import GOLDEN, MANIFEST, REPORT
from s2mlp_deploy.bundle.read import read_bundle
from s2mlp_deploy.errors import BundleError
from s2mlp_deploy.system.hashing import sha256

MODEL = "model.onnx"


def refused(directory: Path, *words: str) -> str:
    """What s2mlp-verify says about a bundle that it refuses as bad input, in one paragraph with these ``words``."""
    ran = run("verify", directory)
    *progress, message = ran.err.splitlines()
    assert (ran.code, ran.out) == (3, "")
    assert all(line.endswith("…") for line in progress)
    assert message.startswith("error: ")
    for word in words:
        assert word in message
    return message


def edit(directory: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest's content."""
    path = directory / MANIFEST
    content = json.loads(path.read_bytes())
    change(content)
    path.write_text(json.dumps(content))


def edit_golden(directory: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    """Change the golden tensors, and their hash in the manifest with them."""
    tensors = load_file(directory / GOLDEN)
    change(tensors)
    save_file(tensors, directory / GOLDEN)
    edit(directory, lambda m: m["files"].update({GOLDEN: sha256(directory / GOLDEN)}))


# Whole bundles


def test_a_whole_bundle_is_read_with_its_artifact_and_golden_tensors(bundle: Path) -> None:
    found = read_bundle(bundle)
    assert found.artifact.path == bundle / MODEL and found.artifact.files == (MODEL,)
    assert found.golden == bundle / GOLDEN
    assert found.size_bytes == (bundle / MODEL).stat().st_size


def test_every_file_but_the_manifest_and_the_report_is_hashed(bundle: Path) -> None:
    listed = read_bundle(bundle).manifest.files
    assert listed.keys() == {p.name for p in bundle.iterdir()} - {MANIFEST, REPORT}
    assert all(digest == sha256(bundle / name) for name, digest in listed.items())


def test_the_report_may_be_absent_or_annotated(bundle: Path) -> None:
    (bundle / REPORT).write_text("my notes")
    assert run("verify", bundle).code == 0
    (bundle / REPORT).unlink()
    assert run("verify", bundle).code == 0


# Changed and missing files


@pytest.mark.parametrize("name", [MODEL, GOLDEN])
def test_a_changed_byte_anywhere_is_noticed(bundle: Path, name: str) -> None:
    path = bundle / name
    original = path.read_bytes()
    last = len(original) - 1
    offsets = {0, 8, last, *np.random.default_rng(3).integers(0, last, 9).tolist()}
    for offset in offsets:
        changed = bytearray(original)
        changed[offset] ^= 1
        path.write_bytes(changed)
        refused(bundle, str(path), "SHA-256", "copy the bundle again")


@pytest.mark.parametrize("name", [MODEL, GOLDEN])
@pytest.mark.parametrize("change", [lambda b: b[:-1], lambda b: b + b"\0", lambda b: b""])
def test_a_file_cut_short_or_grown_is_noticed(bundle: Path, name: str, change: Callable[[bytes], bytes]) -> None:
    path = bundle / name
    path.write_bytes(change(path.read_bytes()))
    refused(bundle, str(path), "SHA-256")


@pytest.mark.parametrize("name", [MODEL, GOLDEN])
def test_nothing_is_loaded_before_the_hashes_are_checked(bundle: Path, name: str) -> None:
    path = bundle / name
    path.write_bytes(b"\xff" * path.stat().st_size)
    edit(bundle, lambda m: m.update(format="nobody-offers-this"))
    message = refused(bundle, str(path), "SHA-256")
    assert not any(word in message for word in ("ONNX", "safetensors file", "protobuf", "nobody-offers-this"))


@pytest.mark.parametrize("name", [MODEL, GOLDEN, MANIFEST])
def test_a_missing_file_is_named(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    refused(bundle, str(bundle), name)


@pytest.mark.parametrize("name", [MODEL, GOLDEN, MANIFEST])
def test_a_link_is_not_followed_even_to_the_right_content(bundle: Path, tmp_path: Path, name: str) -> None:
    (bundle / name).rename(tmp_path / "elsewhere")
    (bundle / name).symlink_to(tmp_path / "elsewhere")
    refused(bundle, str(bundle / name), "not a plain file")


@pytest.mark.parametrize("name", [MODEL, GOLDEN, MANIFEST])
def test_a_directory_in_the_place_of_a_file_is_refused(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    (bundle / name).mkdir()
    refused(bundle, str(bundle / name), "not a plain file")


def test_a_file_that_cannot_be_read_is_named(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: Path) -> str:
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr("s2mlp_deploy.bundle.read.sha256", broken)
    refused(bundle, str(bundle), "Input/output error")


# What is no bundle at all


def test_an_empty_directory_is_no_bundle(tmp_path: Path) -> None:
    refused(tmp_path, f"{tmp_path} has no manifest.json", "s2mlp-export")


def test_a_directory_that_does_not_exist_is_no_bundle(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "nowhere does not exist")


def test_a_file_is_no_bundle(bundle: Path) -> None:
    refused(bundle / MODEL, "is a file of a bundle", "give the bundle's directory")


def test_a_name_that_no_file_can_have_is_no_bundle(tmp_path: Path) -> None:
    refused(tmp_path / ("n" * 300), "File name too long")


# Manifests


@pytest.mark.parametrize(
    "name",
    [
        "../bundle/model.onnx",
        "/etc/hostname",
        "sub/model.onnx",
        "..",
        ".",
        "",
        "C:\\model.onnx",
        "model.onnx\n",
        ".hidden",
        "1/",
        "1/..",
        "1/../model.onnx",
        "1/2/model.onnx",
        "1//model.onnx",
        "/1/model.onnx",
        "0/model.onnx",
        "01/model.onnx",
        "-1/model.onnx",
        "1/.hidden",
        "1\n/model.onnx",
        "１/model.onnx",
        "1" * 10 + "/model.onnx",
        "1\\model.onnx",
        "model.mlpackage/../model.onnx",
        "model.mlpackage//model.onnx",
        "model.mlpackage/a/b/c/d/model.onnx",
        "model.mlpackage/.hidden/model.onnx",
        "model.mlpackage/con/model.onnx",
        "model.package/model.onnx",
        ".mlpackage/model.onnx",
        "1/model.mlpackage/model.onnx",
    ],
)
def test_a_manifest_cannot_name_a_file_outside(bundle: Path, name: str) -> None:
    digest = sha256(bundle / MODEL)
    edit(bundle, lambda m: m["files"].update({name: digest}))
    refused(bundle, MANIFEST, "files", "not a plain file name")


@pytest.mark.parametrize("name", ["../model.onnx", "/etc/hostname", "sub/model.onnx", "1/../../model.onnx"])
def test_the_artifact_cannot_be_outside(bundle: Path, name: str) -> None:
    edit(bundle, lambda m: m.update(artifact=name))
    refused(bundle, MANIFEST, "artifact", "not a plain file name")


def in_version(directory: Path) -> Path:
    """The model of the bundle at ``directory``, moved to the directory of a version."""
    moved = directory / "1" / MODEL
    moved.parent.mkdir()
    (directory / MODEL).rename(moved)
    edit(directory, lambda m: m.update(artifact=f"1/{MODEL}"))
    edit(directory, lambda m: m["files"].update({f"1/{MODEL}": m["files"].pop(MODEL)}))
    return moved


def test_a_file_may_lie_in_the_directory_of_a_version(bundle: Path) -> None:
    moved = in_version(bundle)
    assert read_bundle(bundle).artifact.path == moved
    assert run("verify", bundle).code == 0
    moved.write_bytes(moved.read_bytes()[:-1])
    refused(bundle, str(moved), "SHA-256")
    moved.unlink()
    refused(bundle, str(moved), "is missing")


@pytest.mark.parametrize("what", ["the file", "the directory"])
def test_neither_a_version_nor_what_is_in_it_may_lead_elsewhere(bundle: Path, tmp_path: Path, what: str) -> None:
    place = in_version(bundle)
    place = place if what == "the file" else place.parent
    elsewhere = place.rename(tmp_path / "elsewhere")
    place.symlink_to(elsewhere)
    refused(bundle, str(bundle / "1" / MODEL), "not a plain file")


def test_a_bundle_may_be_reached_through_a_link(bundle: Path, tmp_path: Path) -> None:
    in_version(bundle)
    (tmp_path / "link").symlink_to(bundle)
    assert run("verify", tmp_path / "link").code == 0


@pytest.mark.parametrize("verdict", ["passed", "pending a device", "not judged"])
@pytest.mark.parametrize("name", [MODEL, GOLDEN])
def test_a_file_without_a_hash_is_not_used(bundle: Path, name: str, verdict: str) -> None:
    """Whatever the verdict: with a tolerance there are golden tensors, or an engine would be compiled unchecked."""
    edit(bundle, lambda m: (m["files"].pop(name), m.update(verdict=verdict)))
    refused(bundle, "lists no hash", name)


@pytest.mark.parametrize("digest", ["0" * 63, "Z" * 64, "", "0" * 65, "sha256:" + "0" * 64])
def test_a_hash_is_64_hexadecimal_digits(bundle: Path, digest: str) -> None:
    edit(bundle, lambda m: m["files"].update({MODEL: digest}))
    refused(bundle, "files.model.onnx")


def test_a_key_that_occurs_twice_is_refused(bundle: Path) -> None:
    path = bundle / MANIFEST
    text = path.read_text()
    path.write_text(text.replace('"precision":', '"precision": "int8",\n  "precision":', 1))
    refused(bundle, "not valid JSON", "twice")


@pytest.mark.parametrize("version", [0, 2, "1", None, True, 1.0, [1], {"deep": [[1]]}, "x" * 100_000])
def test_another_schema_version_is_not_guessed_at(bundle: Path, version: object) -> None:
    edit(bundle, lambda m: m.update(schema_version=version))
    assert len(refused(bundle, "schema version", "this tool reads 1")) < 1000


@pytest.mark.parametrize("field", ["provider", "a\nb", "\x1b[31m", "x" * 100_000])
def test_an_unknown_field_is_refused_and_named_on_one_line(bundle: Path, field: str) -> None:
    edit(bundle, lambda m: m.update({field: 1}))
    message = refused(bundle, "not permitted")
    assert "\x1b" not in message and len(message) < 1000


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"not JSON",
        b"\xff\xfe\x00",
        b'{"schema_version": 1',
        b"\0" * 100,
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b'{"schema_version": ' + b"9" * 10_000 + b"}",
    ],
    ids=["empty", "brace", "list", "null", "words", "bytes", "cut", "zeros", "deep lists", "deep objects", "huge"],
)
def test_a_manifest_that_is_no_manifest_is_refused(bundle: Path, text: bytes) -> None:
    (bundle / MANIFEST).write_bytes(text)
    refused(bundle, MANIFEST)


def test_a_changed_byte_of_the_manifest_never_leads_to_more_than_a_refusal(bundle: Path) -> None:
    path = bundle / MANIFEST
    original = path.read_bytes()
    rng = np.random.default_rng(4)
    refusals = []
    for offset in rng.integers(0, len(original), 200):
        changed = bytearray(original)
        changed[offset] ^= int(rng.integers(1, 256))
        path.write_bytes(changed)
        try:
            read_bundle(bundle)
        except BundleError as error:
            refusals.append(str(error))
    assert len(refusals) > 100 and all(str(bundle) in message for message in refusals)


NO_NUMBERS = {
    "huge": 10**4000,
    "2^31": 2**31,
    "2^64": 2**64,
    "negative": -1,
    "zero": 0,
    "nan": float("nan"),
    "infinite": float("inf"),
    "list": [3],
    "null": None,
}


@pytest.mark.parametrize("value", NO_NUMBERS.values(), ids=list(NO_NUMBERS))
@pytest.mark.parametrize(
    "place",
    [
        ("spec", "classes"),
        ("spec", "in_channels"),
        ("spec", "stages", 0, "channels"),
        ("spec", "image_size", 1),
        ("spec", "stages", 0, "stride", 0),
        ("spec", "stages", 0, "kernel", 1),
        ("input", "shape", 2),
    ],
    ids=lambda place: ".".join(map(str, place)),
)
def test_a_number_that_no_model_has_is_refused(bundle: Path, place: tuple[str | int, ...], value: object) -> None:
    def change(content: Any) -> None:
        for key in place[:-1]:
            content = content[key]
        content[place[-1]] = value

    edit(bundle, change)
    refused(bundle, MANIFEST)


@pytest.mark.parametrize("depth", [2**16, 10**12, -1])
def test_a_depth_that_no_model_has_is_refused(bundle: Path, depth: int) -> None:
    edit(bundle, lambda m: m["spec"]["stages"][0].update(depth=depth))
    refused(bundle, "spec.stages.0.depth")


def test_a_spec_that_is_no_s2mlp_is_refused_with_the_reason(bundle: Path) -> None:
    edit(bundle, lambda m: m["spec"].update(image_size=[21, 28]))
    refused(bundle, "21x28", "not a multiple")


def test_a_tolerance_that_everything_keeps_is_refused(bundle: Path) -> None:
    edit(bundle, lambda m: m["tolerance"].update(relative_l2=float("inf")))
    refused(bundle, "tolerance.relative_l2")


def test_a_bundle_without_a_tolerance_cannot_be_judged(bundle: Path) -> None:
    edit(bundle, lambda m: m.update(tolerance=None))
    refused(bundle, "holds no golden tensors to check against")


# Golden tensors whose hash fits, and which fit nothing else


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.clear(), "an input and logits for each case"),
        (lambda t: t.pop("logits/faint"), "an input and logits for each case"),
        (lambda t: t.pop("input/faint"), "an input and logits for each case"),
        (lambda t: t.update({"secret": np.zeros(3, np.float32)}), "'secret'"),
        (lambda t: t.update({"trace/later": np.zeros((3, 4), np.float32)}), "'trace/later'"),
        (lambda t: t.update({"input/noise": t["input/noise"].astype(np.float64)}), "float64"),
        (lambda t: t.update({"logits/loud": t["logits/loud"].astype(np.int64)}), "int64"),
        (lambda t: t.update({"input/loud": t["input/loud"][0]}), "(samples, channels, height, width)"),
        (lambda t: t.update({"input/loud": np.array(1, np.float32)}), "(samples, channels, height, width)"),
        (lambda t: t.update({"logits/border": t["logits/border"][:1]}), "(samples, classes)"),
        (lambda t: t.update({"quantized/border": t["logits/border"][:1]}), "quantized logits like the reference's"),
        (lambda t: t.update({"quantized/images": t["logits/border"]}), "quantized logits like the reference's"),
        (
            lambda t: t.update({"input/loud": t["input/loud"][:0], "logits/loud": t["logits/loud"][:0]}),
            "[0, 3, 20, 28]",
        ),
        (lambda t: t.update({"input/loud": t["input/loud"][:, :2].copy()}), "input of [1, 2, 20, 28]"),
        (lambda t: t.update({"input/loud": t["input/loud"][:, :, :12].copy()}), "input of [1, 3, 12, 28]"),
    ],
)
def test_golden_tensors_of_the_wrong_form_are_refused(
    bundle: Path, change: Callable[[dict[str, np.ndarray]], object], words: str
) -> None:
    edit_golden(bundle, change)
    refused(bundle, words)


@pytest.mark.parametrize("content", [b"", b"PK\3\4", b"\xff" * 4096, (8).to_bytes(8, "little") + b"not JSON"])
def test_golden_tensors_that_are_no_safetensors_are_refused(bundle: Path, content: bytes) -> None:
    (bundle / GOLDEN).write_bytes(content)
    edit(bundle, lambda m: m["files"].update({GOLDEN: sha256(bundle / GOLDEN)}))
    refused(bundle, str(bundle / GOLDEN), "not a whole safetensors file")


@pytest.mark.parametrize("content", [b"", b"not ONNX", b"\xff" * 4096])
def test_a_model_that_the_runtime_cannot_load_is_refused(bundle: Path, content: bytes) -> None:
    (bundle / MODEL).write_bytes(content)
    edit(bundle, lambda m: m["files"].update({MODEL: sha256(bundle / MODEL)}))
    refused(bundle, "cannot load the model")


@pytest.mark.parametrize(("name", "command"), [("model.onnx", "s2mlp-repair"), ("model.pt", "s2mlp-export")])
def test_a_file_in_place_of_a_bundle_is_refused_with_the_command_that_makes_one(
    tmp_path: Path, name: str, command: str
) -> None:
    (tmp_path / name).write_bytes(b"content")
    with pytest.raises(BundleError, match=f"is a file: expected a bundle, the directory that {command} makes of it"):
        read_bundle(tmp_path / name)
