"""An input or output of an artifact: its name, element type and shape."""

from __future__ import annotations

from typing import Literal

from s2mlp_deploy.schema.strict_model import Extent, StrictModel

Dimension = Extent | str
"""A size, or the name of one that is free."""

Layout = Literal["NCHW", "NHWC"]


class TensorEntry(StrictModel):
    """An input or output; ``layout`` names the axes of an image."""

    name: str
    dtype: str
    shape: tuple[Dimension, ...]
    layout: Layout | None = None
