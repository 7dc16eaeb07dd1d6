"""s2mlp-deploy: from a trained checkpoint of S²-MLP, S²-MLPv2 or MLP-Mixer to verified artifacts.

    from s2mlp_deploy import ExportRequest, Source, deploy

    export = deploy(ExportRequest(Source("ckpt.pt")))

The public names are those of ``__all__``. They are loaded when first used, so that importing the
package needs none of the optional runtimes.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from s2mlp_deploy.system.version import __version__ as __version__

if TYPE_CHECKING:
    from s2mlp_deploy.bundle.contents import Bundle
    from s2mlp_deploy.bundle.signature import SigningKey, TrustedKey
    from s2mlp_deploy.checkpoint.load import Checkpoint
    from s2mlp_deploy.errors import Error
    from s2mlp_deploy.families.s2mlp.spec import PRESETS
    from s2mlp_deploy.pipeline.api import deploy, load_checkpoint, read_bundle, tune, verify
    from s2mlp_deploy.pipeline.request import (
        EvidenceOptions,
        Export,
        ExportRequest,
        FormatOptions,
        GraphOptions,
        OutputOptions,
        Source,
    )
    from s2mlp_deploy.pipeline.tune.request import Limits, Space, TuneRequest
    from s2mlp_deploy.pipeline.tune.tune import TuneResult
    from s2mlp_deploy.pipeline.verify import Verification
    from s2mlp_deploy.quantization.settings import BFloat16, Float16, Float32, Int8
    from s2mlp_deploy.runtime.session import Placement
    from s2mlp_deploy.schema.shift import DIRECTIONS, Shift
    from s2mlp_deploy.schema.spec import Spec

# From 1.29 on, the official builds of ONNX Runtime give the machine an identity and report each model to their maker (its file's
# name, its hashes, how long it ran), unless switched off before they are loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_NAMES = {
    **{
        name: ("pipeline.request", name)
        for name in (
            "EvidenceOptions",
            "Export",
            "ExportRequest",
            "FormatOptions",
            "GraphOptions",
            "OutputOptions",
            "Source",
        )
    },
    **{name: ("bundle.signature", name) for name in ("SigningKey", "TrustedKey")},
    **{name: ("quantization.settings", name) for name in ("BFloat16", "Float16", "Float32", "Int8")},
    "Bundle": ("bundle.contents", "Bundle"),
    "Checkpoint": ("checkpoint.load", "Checkpoint"),
    "DIRECTIONS": ("schema.shift", "DIRECTIONS"),
    "Error": ("errors", "Error"),
    "Placement": ("runtime.session", "Placement"),
    "PRESETS": ("families.s2mlp.spec", "PRESETS"),
    "Shift": ("schema.shift", "Shift"),
    "Spec": ("schema.spec", "Spec"),
    **{name: ("pipeline.tune.request", name) for name in ("Limits", "Space", "TuneRequest")},
    "TuneResult": ("pipeline.tune.tune", "TuneResult"),
    "Verification": ("pipeline.verify", "Verification"),
    "deploy": ("pipeline.api", "deploy"),
    "load_checkpoint": ("pipeline.api", "load_checkpoint"),
    "read_bundle": ("pipeline.api", "read_bundle"),
    "tune": ("pipeline.api", "tune"),
    "verify": ("pipeline.api", "verify"),
}

__all__ = [  # noqa: RUF022 - the order of the story
    "deploy",
    "ExportRequest",
    "Source",
    "GraphOptions",
    "Float32",
    "Float16",
    "BFloat16",
    "Int8",
    "FormatOptions",
    "EvidenceOptions",
    "OutputOptions",
    "SigningKey",
    "Export",
    "tune",
    "TuneRequest",
    "Limits",
    "Space",
    "TuneResult",
    "verify",
    "Placement",
    "Verification",
    "read_bundle",
    "Bundle",
    "TrustedKey",
    "load_checkpoint",
    "Checkpoint",
    "Spec",
    "Shift",
    "PRESETS",
    "DIRECTIONS",
    "Error",
]


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _NAMES[name]
    return getattr(import_module(f"{__name__}.{module}"), attribute)
