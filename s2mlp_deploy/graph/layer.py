"""The layers of a graph by name: its input and output, and the layers between them that can be quantized."""

from __future__ import annotations

from dataclasses import dataclass

INPUT, OUTPUT = "input", "logits"


@dataclass(frozen=True)
class Layer:
    """A matrix product or convolution: the names of its node and of the value read by it or the shift before it."""

    name: str
    activation: str
