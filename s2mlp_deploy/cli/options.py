"""Options that several commands share, and the sections of ``--help`` that they stand in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from s2mlp_deploy.cli.help import section

checkpoint_option = section("Checkpoint")
check_option = section("Checks")
output_option = section("Output")

CheckpointArgument = Annotated[
    Path, typer.Argument(metavar="CKPT", readable=False, help="The checkpoint: .pt, .pth, .bin or .safetensors.")
]
LayoutOption = Annotated[
    str | None,
    checkpoint_option(metavar="NAME|FILE.toml", help="How the checkpoint names its keys; found by itself if known."),
]
WeightsOption = Annotated[
    str | None,
    checkpoint_option(metavar="NAME", help="The entry of the checkpoint that holds the weights, if there are several."),
]
SizeOption = Annotated[
    str | None, checkpoint_option(metavar="N|HxW", help="Image size; else as the checkpoint records, else 224.")
]
DirectionsOption = Annotated[
    str | None,
    checkpoint_option(
        metavar="SET|h+,h-,…",
        help="The direction set that the model was trained with (4, 8, horizontal or vertical), or the direction of each "
        "channel group in order, h being the height; else as the layout declares, else 4.",
    ),
]
JsonOption = Annotated[
    bool, output_option("--json", help="Print one JSON document, whatever happens: errors are JSON, too.")
]
SignOption = Annotated[
    Path | None,
    output_option(
        metavar="KEY.pem",
        help="Sign the bundle with this private key; S2MLP_SIGN_PASSWORD holds the password of an encrypted one.",
    ),
]
SignCertificateOption = Annotated[
    Path | None,
    output_option(
        "--sign-certificate",
        metavar="CERT.pem",
        help="The key's certificate, followed by those that lead to its authority.",
    ),
]
KeyOption = Annotated[
    Path | None,
    check_option(
        "--key", metavar="PUB.pem", help="Refuse a bundle that was not signed with this public key's private one."
    ),
]
CertificateOption = Annotated[
    Path | None,
    check_option(
        "--certificate",
        metavar="CA.pem",
        help="Refuse a bundle that was not signed with a certificate of this authority.",
    ),
]
RequireSignatureOption = Annotated[
    bool,
    check_option(
        "--require-signature", help="Fail unless --key or --certificate is given, for scripts that might lose it."
    ),
]
PlotOption = Annotated[
    Path | None,
    output_option(metavar="FILE.png", help="Draw error against depth, one line a bundle; or .svg, or .pdf."),
]
