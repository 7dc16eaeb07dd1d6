"""Options that the commands of s2mlp-bench share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from s2mlp_bench.interleaved_timing import FEWEST_ROUNDS
from s2mlp_deploy.cli.help import section
from s2mlp_deploy.cli.options import output_option

load_option = section("Load")
measurement_option = section("Measurement")

RoundsOption = Annotated[
    int,
    measurement_option(
        metavar="N", min=FEWEST_ROUNDS, help=f"Measure at least so many rounds, {FEWEST_ROUNDS} or more."
    ),
]
SecondsOption = Annotated[float, measurement_option(metavar="SECONDS", min=0.0, help="Measure for at least so long.")]
SamplesOption = Annotated[
    bool,
    output_option("--json", help="Print everything, raw samples included, as one JSON document; errors are JSON, too."),
]
JsonFileOption = Annotated[
    Path | None,
    output_option("--json-file", metavar="FILE", help="Write everything, raw samples included, to FILE."),
]
ForceOption = Annotated[bool, output_option("--force", help="Replace files that are there.")]
