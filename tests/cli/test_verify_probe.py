"""``s2mlp-verify`` as a health probe: figures, exit codes and a file for Prometheus, pass or fail."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from helpers import processes
from helpers.support import run
from s2mlp_deploy.bundle.contents import GOLDEN, MANIFEST
from s2mlp_deploy.pipeline.health import Health
from s2mlp_deploy.system.hashing import sha256


def metrics(file: Path) -> dict[str, float]:
    """The metrics in ``file``, by name without labels."""
    found = re.findall(r"^s2mlp_verify_(\w+)\{.*\} (\S+)$", file.read_text(), re.MULTILINE)
    return {name: float(value) for name, value in found}


def test_a_bundle_that_passes(pristine: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.prom"
    ran = run("verify", pristine, "--prometheus", file, "--max-seconds", 600, "--json")
    assert ran.code == 0, ran.err
    found = metrics(file)
    assert found["passed"] == found["bundle_info"] == 1 and found["exit_code"] == 0
    assert 0 < found["distance_ratio"] < 1 and 0 < found["latency_seconds"] < found["duration_seconds"]
    assert ran.json["schema_version"] == 1 and ran.json["passed"] is True and ran.json["exit_code"] == 0
    assert ran.json["distance_ratio"] == found["distance_ratio"]
    assert ran.json["latency_ms"] / 1e3 == pytest.approx(found["latency_seconds"])
    assert ran.json["manifest_sha256"] == sha256(pristine / MANIFEST)
    assert ran.json["manifest_sha256"] in file.read_text() and "onnxruntime" in ran.json["runtime"]


def test_a_bundle_whose_numbers_are_off(bundle: Path, tmp_path: Path) -> None:
    golden = load_file(bundle / GOLDEN)
    golden["logits/noise"] = golden["logits/noise"] * 1.5
    save_file(golden, bundle / GOLDEN)
    before = sha256(bundle / GOLDEN)
    manifest = (bundle / MANIFEST).read_text()
    (bundle / MANIFEST).write_text(re.sub(rf'("{re.escape(GOLDEN)}": ")[0-9a-f]+', rf"\g<1>{before}", manifest))
    ran = run("verify", bundle, "--prometheus", tmp_path / "model.prom", "--json")
    found = metrics(tmp_path / "model.prom")
    assert ran.code == ran.json["exit_code"] == found["exit_code"] == 1
    assert found["passed"] == 0 and found["distance_ratio"] == ran.json["distance_ratio"] > 1


def test_a_bundle_that_is_damaged_replaces_the_last_result(bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.prom"
    assert run("verify", bundle, "--prometheus", file).code == 0 and metrics(file)["passed"] == 1
    (bundle / "model.onnx").write_bytes(b"damaged")
    assert run("verify", bundle, "--prometheus", file).code == 3
    found = metrics(file)
    assert (found["passed"], found["exit_code"]) == (0, 3) and "latency_seconds" not in found


def test_a_check_that_takes_too_long_ends(pristine: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.prom"
    running = processes.start(
        "verify", tmp_path / "log", pristine, "--max-seconds", 0.001, "--prometheus", file, "--json"
    )
    assert running.wait() == 124
    assert "took longer than --max-seconds 0.001" in running.text and '"exit_code": 124' in running.text
    assert (metrics(file)["passed"], metrics(file)["exit_code"]) == (0, 124)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "model.prom"]


def test_a_file_that_cannot_be_written_is_refused_before_the_check(pristine: Path, tmp_path: Path) -> None:
    ran = run("verify", pristine, "--prometheus", tmp_path / "nowhere" / "model.prom")
    assert ran.code == 3 and "--prometheus" in ran.err


def test_labels_are_escaped() -> None:
    text = Health('a"b\\c\nd', passed=True, exit_code=0, seconds=0.1).prometheus()
    assert r's2mlp_verify_passed{bundle="a\"b\\c\nd"} 1.0' in text.splitlines()
