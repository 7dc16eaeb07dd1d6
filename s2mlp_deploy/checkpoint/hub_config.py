"""Read the config.json that timm writes beside weights: image size, normalization and labels of published models.

The Hugging Face Hub keeps a model in a folder: the weights under a fixed name, and a config.json. timm's has an
``architecture`` and, under ``pretrained_cfg``, how images are prepared.
"""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

from s2mlp_deploy.checkpoint.training_metadata import Recorded, read_recorded
from s2mlp_deploy.system import strict_json
from s2mlp_deploy.system.untrusted_input import check_regular, read_text

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""The names of weights in a folder of the hub. Beside files of other names a config.json may be another model's."""

CONFIG = "config.json"

MOST_CONFIG = 4 << 20
"""Bytes of a config.json: those with the names of 21,843 classes and their descriptions have some 2 MB."""


def read_config(weights: Path) -> Recorded:
    """The facts in timm's config.json beside ``weights``; none where there is no such file."""
    if weights.name not in WEIGHTS:
        return Recorded()
    try:
        check_regular(weights.parent / CONFIG)
        content = strict_json.loads(read_text(weights.parent / CONFIG, MOST_CONFIG))
    except (OSError, ValueError, RecursionError):  # another program's file, which need not be timm's
        return Recorded()
    is_timms = (
        isinstance(content, dict) and "architecture" in content and isinstance(content.get("pretrained_cfg"), dict)
    )
    return read_recorded(content) if is_timms else Recorded()


def completed(recorded: Recorded, config: Recorded) -> tuple[Recorded, tuple[str, ...]]:
    """``recorded`` with what only ``config`` has, and the names of those facts."""
    added = {
        field.name: value
        for field in fields(Recorded)
        if (value := getattr(config, field.name)) and not getattr(recorded, field.name)
    }
    return replace(recorded, **added), tuple(name for name in added if name != "conflicts")
