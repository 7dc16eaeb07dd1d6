"""The directory where finished candidates are kept, each under a key of everything that it follows from.

A candidate that is there under its key is not made again: a tune that was killed goes on where it was, and one with other
limits takes over whatever these do not change.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from s2mlp_deploy.bundle.contents import Bundle
from s2mlp_deploy.bundle.read import read_bundle, read_report
from s2mlp_deploy.errors import BundleError, Error, OutputError
from s2mlp_deploy.pipeline.request import OutputOptions
from s2mlp_deploy.pipeline.tune.candidates import Build, export_request
from s2mlp_deploy.pipeline.tune.request import TuneRequest
from s2mlp_deploy.schema.report import Report
from s2mlp_deploy.system import atomic_write, machine
from s2mlp_deploy.system.hashing import fingerprint
from s2mlp_deploy.system.version import __version__

KEY_DIGITS = 12


@dataclass(frozen=True)
class Made:
    """An artifact that passed the gate, as a bundle in the workspace, with its figures."""

    build: Build
    bundle: Bundle
    report: Report


@dataclass(frozen=True)
class Refused:
    """An artifact that could not be made, or did not pass the gate: the error's class and message."""

    build: Build
    kind: str
    reason: str


class Workspace:
    """The candidates of ``request``, whose source has the hash ``source``."""

    def __init__(self, request: TuneRequest, source: str) -> None:
        self.directory = request.work
        self._request, self._source = request, source
        self._facts = {
            "source": source,
            "tool": __version__,
            "packages": machine.installed(),
            "machine": machine.describe(),
            "evidence": {str(path): fingerprint(path) for path in _files_of(request) if path.exists()},
        }

    def place(self, build: Build) -> Path:
        """The directory of the bundle of ``build``."""
        wanted = asdict(export_request(build, self._request, OutputOptions()))
        text = json.dumps({**self._facts, "request": wanted}, sort_keys=True, default=str)
        key = hashlib.sha256(text.encode()).hexdigest()
        return self.directory / f"{build.name.replace(' ', '-')}-{key[:KEY_DIGITS]}"

    def find(self, build: Build) -> Made | Refused | None:
        """The outcome of ``build`` in an earlier run; None where there is none, or its files were damaged since."""
        place = self.place(build)
        with suppress(BundleError):
            bundle = read_bundle(place)
            if self.is_of_another_source(bundle):
                return None
            return Made(build, bundle, read_report(bundle) or Report())
        with suppress(OSError, ValueError, TypeError):
            return Refused(build, **json.loads(_refusal(place).read_bytes()))
        return None

    def is_of_another_source(self, bundle: Bundle) -> bool:
        """Whether the checkpoint that ``bundle`` was made of is not the one that the tune began with."""
        return not self._request.source.is_bundle and bundle.manifest.source.sha256 != self._source

    def refuse(self, build: Build, error: Error) -> Refused:
        """Keep the fact that ``build`` ended with ``error``."""
        refused = Refused(build, type(error).__name__, str(error))
        content = json.dumps({"kind": refused.kind, "reason": refused.reason}, indent=2)
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as failure:
            raise OutputError(
                f"cannot write to {self.directory}: {failure.strerror}. Choose another place with -o"
            ) from failure
        atomic_write.write(_refusal(self.place(build)), content.encode(), option="-o")
        return refused

    def remove(self) -> None:
        """Remove all candidates; the directory stays where it holds anything else."""
        for place in self.directory.glob("*"):
            if place.is_dir() and not place.is_symlink() and (place / "manifest.json").is_file():
                shutil.rmtree(place, ignore_errors=True)
            elif place.suffix == ".refused":
                place.unlink(missing_ok=True)
        with suppress(OSError):
            self.directory.rmdir()


def _refusal(place: Path) -> Path:
    return place.with_name(place.name + ".refused")


def _files_of(request: TuneRequest) -> list[Path]:
    """The files and folders of evidence that artifacts follow from."""
    evidence, calibration = request.evidence, request.int8.calibration
    named: list[Any] = [evidence.reference, evidence.data, evidence.golden_images, request.source.labels, calibration]
    return [Path(path) for path in named if path is not None]
