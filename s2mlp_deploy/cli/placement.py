"""The options that say where a bundle runs on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from s2mlp_deploy.cli.help import section
from s2mlp_deploy.errors import UsageError

if TYPE_CHECKING:
    from s2mlp_deploy.runtime.session import Placement

placement_option = section("Device")

ProviderOption = Annotated[
    str | None,
    placement_option(
        "--provider", metavar="NAME", help="ONNX Runtime's execution provider that runs an ONNX bundle; else cpu."
    ),
]
DeviceOption = Annotated[
    int | None,
    placement_option("--device", metavar="N", min=0, help="With cuda: the number of the GPU, from 0; else 0."),
]
Tf32Option = Annotated[
    bool,
    placement_option(
        "--tf32",
        help="With cuda: round float32 products to TF32, with 10 bits of fraction. Faster, and off at fp32's tolerance.",
    ),
]


def placement(provider: str | None, device: int | None, *, tf32: bool) -> Placement:
    """Where a session runs, from the options.

    Raises:
        UsageError: for a provider that ONNX Runtime does not have.
    """
    from s2mlp_deploy.runtime.providers import PROVIDERS
    from s2mlp_deploy.runtime.session import Placement

    if provider is not None and provider not in PROVIDERS:
        raise UsageError(f"--provider {provider!r}: expected one of {', '.join(PROVIDERS)}")
    return Placement(provider=provider, device=device, tf32=tf32 or None)
