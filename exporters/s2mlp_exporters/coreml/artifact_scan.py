"""Scan a package before Core ML loads it: the three files that one has, and a program of operators that this project writes."""

from __future__ import annotations

import struct
from pathlib import Path

from google.protobuf.message import DecodeError

from s2mlp_deploy.formats.artifact_scan import Unexpected, inspecting
from s2mlp_exporters.coreml.package import CONTENTS, PACKAGE, PROGRAM, WEIGHTS, contents, others
from s2mlp_exporters.coreml.program import Program, read


def inspect(directory: Path) -> Program:
    """The program of the package in ``directory``, after refusing one that could do more than compute.

    Raises:
        BundleError: with the reason.
        RuntimeMissingError: where coremltools, whose classes read the program, is not installed.
    """
    with inspecting(directory / PACKAGE, OSError):
        if found := others(directory):
            raise Unexpected(f"it holds {found[0]}, which no package has")
        if (directory / CONTENTS).read_bytes() != contents():
            raise Unexpected("its table of contents is another than every package has")
    return inspect_program(directory / PROGRAM, directory / WEIGHTS)


def inspect_program(program: Path, weights: Path) -> Program:
    """The program in the file ``program``, whose weights are in the file ``weights``.

    Raises:
        BundleError, RuntimeMissingError: as :func:`inspect`.
    """
    with inspecting(program, OSError, DecodeError, struct.error, ValueError, OverflowError):
        return read(program, weights)
