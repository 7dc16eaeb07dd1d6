"""The layers of a graph by name: its input and output, and what can be quantized between them."""

from __future__ import annotations

from dataclasses import dataclass

INPUT, OUTPUT = "input", "logits"


@dataclass(frozen=True)
class Layer:
    """A matrix product or convolution: the name of its node, and of the value that it (or the shift before it) reads."""

    name: str
    activation: str
