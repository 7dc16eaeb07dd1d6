"""The options of ``--format executorch``."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from s2mlp_deploy.formats.options import Metavar, Options


class ExecuTorchOptions(Options):
    """The batches that a program is made for, and whether it also comes with test cases."""

    max_batch: Annotated[
        int | None,
        Metavar("N"),
        Field(ge=1, lt=2**16, description="The largest batch, where the graph takes any; else 8."),
    ] = None
    bundled_program: Annotated[
        bool,
        Field(
            description="Also write model.bpte, the program with the golden tensors, with which a runner on a device tests itself."
        ),
    ] = False


OPTIONS = {"executorch": ExecuTorchOptions}
