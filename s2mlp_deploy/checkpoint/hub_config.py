"""Read the config.json that lies beside weights: image size, normalization and labels of published models.

The Hugging Face Hub keeps a model in a folder: the weights under a fixed name, and a config.json. timm's has an
``architecture`` and, under ``pretrained_cfg``, how images are prepared. Others hold the arguments that the model is made with:
of these, image size and labels have names that mean the same everywhere.
"""

from __future__ import annotations

import re
from dataclasses import fields, replace
from pathlib import Path

from s2mlp_deploy.checkpoint.training_metadata import Recorded, read_recorded
from s2mlp_deploy.system import strict_json
from s2mlp_deploy.system.untrusted_input import check_regular, read_text

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""The names of weights in a folder of the hub. Beside files of other names a config.json may be another model's."""

CONFIG = "config.json"

EVERYWHERE = ("image_size", "img_size", "id2label", "label2id")
"""Names that mean the same in every library's config.json."""

MOST_CONFIG = 4 << 20
"""Bytes of a config.json: those with the names of 21,843 classes and their descriptions have some 2 MB."""


def read_config(weights: Path) -> Recorded:
    """The facts in the config.json beside ``weights``; none where there is no such file."""
    if weights.name not in WEIGHTS:
        return Recorded()
    try:
        check_regular(weights.parent / CONFIG)
        content = strict_json.loads(read_text(weights.parent / CONFIG, MOST_CONFIG))
    except (OSError, ValueError, RecursionError):  # another program's file
        return Recorded()
    if not isinstance(content, dict):
        return Recorded()
    is_timms = "architecture" in content and isinstance(content.get("pretrained_cfg"), dict)
    recorded = read_recorded(content if is_timms else {name: content[name] for name in EVERYWHERE if name in content})
    invented = recorded.labels and all(re.fullmatch(r"LABEL_\d+", label) for label in recorded.labels)
    return replace(recorded, labels=None) if invented else recorded  # Transformers numbers classes that have no names


def completed(recorded: Recorded, config: Recorded) -> tuple[Recorded, tuple[str, ...]]:
    """``recorded`` with what only ``config`` has, and the names of those facts."""
    added = {
        field.name: value
        for field in fields(Recorded)
        if (value := getattr(config, field.name)) and not getattr(recorded, field.name)
    }
    return replace(recorded, **added), tuple(name for name in added if name != "conflicts")
