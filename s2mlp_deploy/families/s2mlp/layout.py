"""Layouts of S²-MLP."""

from __future__ import annotations

import re
from typing import ClassVar

from s2mlp_deploy.families.s2mlp.spec import S2MLPSpec
from s2mlp_deploy.families.staged.layout import StagedLayout, layer_pattern


class S2MLPLayout(StagedLayout):
    """A layout of S²-MLP."""

    family: ClassVar[str] = S2MLPSpec.family
    layers: ClassVar[re.Pattern[str]] = layer_pattern("norm1", "fc1", "fc2", "norm2", "fc3", "fc4")
