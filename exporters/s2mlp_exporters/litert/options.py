"""The options of ``--format litert``."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from s2mlp_deploy.formats.options import Metavar, Options

Npu: TypeAlias = Literal[
    "ethos-u55-32",
    "ethos-u55-64",
    "ethos-u55-128",
    "ethos-u55-256",
    "ethos-u65-256",
    "ethos-u65-512",
    "ethos-u85-128",
    "ethos-u85-256",
    "ethos-u85-512",
    "ethos-u85-1024",
    "ethos-u85-2048",
]
"""The accelerators that Arm's compiler Vela knows, with their multipliers."""


class LiteRtOptions(Options):
    """The NPU that a file of int8 alone is compiled for, too."""

    npu: Annotated[
        Npu | None,
        Metavar("NPU"),
        Field(description="Also compile for an NPU of Arm's with Vela: with --target litert-micro and --batch 1."),
    ] = None


OPTIONS = {"litert": LiteRtOptions}
