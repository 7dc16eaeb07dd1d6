"""The health of a bundle on this machine: one verification in a few figures, for probes and for Prometheus (docs/fleet.md)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from s2mlp_deploy.bundle.contents import MANIFEST
from s2mlp_deploy.formats import registry
from s2mlp_deploy.pipeline.verify import Verification
from s2mlp_deploy.system import machine
from s2mlp_deploy.system.hashing import sha256

SCHEMA_VERSION = 1
"""Of ``s2mlp-verify --json`` and of the metrics: it grows where a field changes its meaning or goes, not where one comes."""


@dataclass(frozen=True)
class Health:
    """The figures of one check.

    ``distance_ratio`` is the largest distance from the reference, in units of its limit; above 1 the check has failed. ``latency_ms`` is
    that of the golden batch, ``seconds`` the whole check's duration. ``manifest_sha256`` identifies the bundle: the manifest holds the
    hash of every other file. Figures are None where the check ended before them.
    """

    bundle: str
    passed: bool
    exit_code: int
    seconds: float
    distance_ratio: float | None = None
    latency_ms: float | None = None
    format: str = ""
    precision: str = ""
    manifest_sha256: str = ""
    runtime: Mapping[str, str] = field(default_factory=dict)

    def prometheus(self) -> str:
        """The figures in the text format of Prometheus, for the textfile collector of its node exporter."""
        label = f'bundle="{_escaped(self.bundle)}"'
        about = {
            "format": self.format,
            "precision": self.precision,
            "manifest_sha256": self.manifest_sha256,
            "runtime": ", ".join(f"{name} {version}" for name, version in self.runtime.items()),
        }
        info = ",".join([label, *(f'{name}="{_escaped(value)}"' for name, value in about.items())])
        lines = []
        for name, meaning, labels, value in (
            ("passed", "Whether the bundle passed its last check on this machine.", label, float(self.passed)),
            ("exit_code", "Exit code of the last check: 0 passed, 1 numbers are off.", label, float(self.exit_code)),
            ("distance_ratio", "Largest distance from the reference over its limit.", label, self.distance_ratio),
            ("latency_seconds", "Latency of the golden batch.", label, _seconds(self.latency_ms)),
            ("duration_seconds", "Duration of the last check.", label, self.seconds),
            ("timestamp_seconds", "When the last check ended, in Unix time.", label, time.time()),
            ("bundle_info", "The bundle and its runtime.", info, 1.0 if self.manifest_sha256 else None),
        ):
            if value is not None:
                metric = f"s2mlp_verify_{name}"
                lines += [f"# HELP {metric} {meaning}", f"# TYPE {metric} gauge", f"{metric}{{{labels}}} {value!r}"]
        return "\n".join(lines) + "\n"


def of_verification(given: Path, result: Verification, seconds: float) -> Health:
    """The health of the bundle at ``given`` after a verification."""
    manifest = result.bundle.manifest
    ratios = [c.measured / c.limit for c in result.verdict.checks if c.quantity == "relative L2" and c.limit > 0]
    return Health(
        bundle=str(given),
        passed=result.passed,
        exit_code=0 if result.passed else 1,
        seconds=seconds,
        distance_ratio=max(ratios, default=None),
        latency_ms=result.latency_ms,
        format=manifest.format,
        precision=manifest.precision,
        manifest_sha256=sha256(result.bundle.directory / MANIFEST),
        runtime=_runtime(manifest.format),
    )


def _runtime(format: str) -> dict[str, str]:
    """The installed packages that run ``format``, and their versions."""
    modules = tuple(name.replace("_", "-") for name in registry.find(format).modules)
    return {name: version for name, version in machine.installed().items() if name.startswith(modules)}


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1e3


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
