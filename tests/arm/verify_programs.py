"""verify_programs.py ROOT CPU BUNDLE…: as verify.py, of bundles for ExecuTorch: this machine verifies, and the emulated processor runs the programs.

ExecuTorch's runtime in Python is linked to PyTorch, whose wheel for ARM needs CUDA's libraries; run_program.cpp needs neither.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import verify

from s2mlp_deploy.bundle.contents import Artifact
from s2mlp_deploy.schema.array import Array
from s2mlp_exporters.executorch.exporter import ExecuTorchProgram

RUN = Path(__file__).with_name("run.sh")


class EmulatedSession:
    """The program at ``path``, run by ``command``."""

    def __init__(self, command: list[str], path: Path) -> None:
        self._command, self._path = command, path

    def run(self, images: Array) -> Array:
        shape = map(str, images.shape)
        done = subprocess.run(
            [*self._command, str(self._path), images.dtype.name, *shape],
            input=np.ascontiguousarray(images).tobytes(),
            capture_output=True,
        )
        if done.returncode:
            raise RuntimeError(done.stderr.decode())
        return np.frombuffer(done.stdout, np.float32).reshape(len(images), -1)


def main(root: str, cpu: str, *bundles: str) -> None:
    command = ["bash", str(RUN), root, cpu, "usr/bin/run_program"]

    def open_emulated(self: ExecuTorchProgram, artifact: Artifact) -> EmulatedSession:
        return EmulatedSession(command, artifact.path)

    with mock.patch.object(ExecuTorchProgram, "open", open_emulated):
        verify.main(list(bundles))


if __name__ == "__main__":
    main(*sys.argv[1:])
