"""Several artifacts of one checkpoint: each of its own graph, and one that fails keeps no other from being made."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.support import save_checkpoint, small_spec
from s2mlp_deploy import Error, ExportRequest, FormatOptions, GraphOptions, OutputOptions, Source
from s2mlp_deploy.errors import LoweringError
from s2mlp_deploy.pipeline.deploy import deploy_all, deploy_each
from s2mlp_deploy.schema.shift import parse_directions


def requests(checkpoint: Path, place: Path, *pairs: tuple[str, str], directions: str = "4") -> list[ExportRequest]:
    """A request for each pair of a format and a lowering."""
    return [
        ExportRequest(
            Source(checkpoint, offsets=parse_directions(directions)),
            GraphOptions(lowering=lowering),
            format=FormatOptions(format),
            output=OutputOptions(place / f"{format}-{lowering}"),
        )
        for format, lowering in pairs
    ]


def test_an_engine_has_the_lowering_of_its_own_request(tmp_path: Path) -> None:
    checkpoint = save_checkpoint(tmp_path / "small.pt", small_spec(depth=1))
    pairs = [("onnx", "gather"), ("ort", "slice"), ("ort", "gather")]
    made = list(deploy_all(requests(checkpoint, tmp_path, *pairs)))
    assert [(one.bundle.manifest.format, one.bundle.manifest.lowering) for one in made] == pairs


def test_where_one_fails_the_others_go_on(tmp_path: Path) -> None:
    checkpoint = save_checkpoint(tmp_path / "small.pt", small_spec(depth=1))
    asked = requests(checkpoint, tmp_path, ("onnx", "conv"), ("onnx", "gather"), directions="8")
    failed, made = deploy_each(asked)
    assert isinstance(failed, LoweringError) and not isinstance(made, Error)
    assert not (tmp_path / "onnx-conv").exists() and made.bundle.manifest.lowering == "gather"
    with pytest.raises(LoweringError):
        list(deploy_all(requests(checkpoint, tmp_path, ("onnx", "conv"), directions="8")))
