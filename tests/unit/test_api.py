"""The Python API: paths as strings, and messages in the words of its fields and parameters."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import s2mlp_deploy
from helpers.support import random_model, small_spec
from s2mlp_deploy import (
    Error,
    EvidenceOptions,
    ExportRequest,
    Float16,
    FormatOptions,
    GraphOptions,
    Int8,
    OutputOptions,
    Source,
    deploy,
    load_checkpoint,
    read_bundle,
    verify,
)
from s2mlp_deploy.pipeline.api import in_fields
from s2mlp_deploy.schema.manifest import Interface
from s2mlp_deploy.system.progress import Listener


def text_request(checkpoint: str, output: str, **parts: Any) -> ExportRequest:
    return ExportRequest(
        parts.pop("source", Source(checkpoint)),  # type: ignore[arg-type]
        output=OutputOptions(output),  # type: ignore[arg-type]
        **parts,
    )


def test_paths_may_be_strings(checkpoint: Path, tmp_path: Path) -> None:
    made = deploy(text_request(str(checkpoint), str(tmp_path / "bundle")))
    assert made.bundle.directory == tmp_path / "bundle"
    assert read_bundle(str(tmp_path / "bundle")).manifest == made.bundle.manifest
    assert verify(str(tmp_path / "bundle"), per_block=True).passed
    assert load_checkpoint(str(checkpoint)).sha256 == made.bundle.manifest.source.sha256
    assert Source("c.pt", labels="l") == Source(Path("c.pt"), labels=Path("l"))  # type: ignore[arg-type]
    files = {"golden_images": "g", "reference": "r", "data": "d"}
    paths = {name: Path(value) for name, value in files.items()}
    assert EvidenceOptions(**files) == EvidenceOptions(**paths)  # type: ignore[arg-type]
    assert replace(OutputOptions(Path("a")), directory="b").directory == Path("b")  # type: ignore[arg-type]


def of_small(**fields: Any) -> Any:
    return lambda checkpoint: Source(checkpoint, **fields)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"precision": Int8()}, "calibration"),
        (
            {"precision": Float16("fp16"), "graph": GraphOptions(interface=Interface(output="top5"))},
            "precision.io_dtype fp16 is for prepared images and logits: leave out graph.interface.input",
        ),
        ({"format": FormatOptions("tflite")}, "no exporter for format 'tflite'"),
        ({"format": FormatOptions("onnx", {"workspace_mib": 1})}, "workspace_mib: not for format.name onnx"),
        ({"source": of_small(mean=(0.5, 0.5))}, "mean has 2 values"),
        ({"graph": GraphOptions(batch=2, interface=Interface(input="image"))}, "graph.interface.input image takes one"),
        ({"graph": GraphOptions("gather", dynamic_size=True)}, "lowering"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else None,
)
def test_errors_name_fields(checkpoint: Path, tmp_path: Path, parts: dict[str, Any], said: str) -> None:
    if "source" in parts:
        parts = {**parts, "source": parts["source"](checkpoint)}
    with pytest.raises(Error) as caught:
        deploy(text_request(str(checkpoint), str(tmp_path / "bundle"), **parts))
    assert said in str(caught.value) and "--" not in str(caught.value), caught.value
    assert not (tmp_path / "bundle").exists()


def test_a_bundle_that_is_there_and_an_ambiguous_checkpoint_are_told_in_parameters(
    bundle: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        Error, match=r"choose another place with output.directory, or replace it with output.force=True"
    ):
        deploy(text_request(str(tmp_path / "small.pt"), str(bundle)))
    torch.save({n: random_model(small_spec()).state_dict() for n in ("model", "net")}, tmp_path / "two.pt")
    with pytest.raises(Error, match="wrapper"):
        load_checkpoint(tmp_path / "two.pt")


def test_warnings_name_fields(checkpoint: Path, tmp_path: Path) -> None:
    class Listening(Listener):
        warned: list[str] = []  # noqa: RUF012
        steps: list[str] = []  # noqa: RUF012

        def step(self, what: str) -> AbstractContextManager[object]:
            self.steps.append(what)
            return contextlib.nullcontext()

        def warn(self, text: str) -> None:
            self.warned.append(text)

    bare = tmp_path / "bare.pt"
    torch.save(torch.load(checkpoint, weights_only=True)["model"], bare)
    deploy(text_request("", str(tmp_path / "bundle"), source=Source(bare, image_size=(20, 28))), Listening())
    assert (
        any("source.mean and source.std" in text for text in Listening.warned)
        and "reading the checkpoint" in Listening.steps
    )
    assert not any("--" in text for text in Listening.warned)


def test_commands_to_type_stay_as_they_are() -> None:
    told = "--format trt cannot be built here. Run there: s2mlp-export b --format trt --force. Or pass --format trt-rtx; --no-gate"
    assert in_fields(told) == (
        "format.name trt cannot be built here. Run there: s2mlp-export b --format trt --force. Or pass format.name trt-rtx; evidence.gate=False"
    )


def test_every_public_function_is_one_of_the_api() -> None:
    for name in ("deploy", "tune", "verify", "read_bundle", "load_checkpoint"):
        assert getattr(s2mlp_deploy, name).__module__ == "s2mlp_deploy.pipeline.api"


def test_a_tune_names_the_fields_of_its_request(checkpoint: Path, tmp_path: Path) -> None:
    request = s2mlp_deploy.TuneRequest(
        Source(checkpoint),
        limits=s2mlp_deploy.Limits(size_bytes=10),
        space=s2mlp_deploy.Space(("onnx",), ("fp32",), ("auto",)),
        output=OutputOptions(tmp_path / "best"),
    )
    with pytest.raises(Error, match=r"The nearest: onnx fp32 \(limits.size_bytes: "):
        s2mlp_deploy.tune(request)
    found = s2mlp_deploy.tune(replace(request, limits=s2mlp_deploy.Limits()))
    assert found.bundle == read_bundle(tmp_path / "best") and found.report.taken
