"""The names of S²-MLP's layers in the graph, in traces and in reports."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from s2mlp_deploy.graph.layer import INPUT, OUTPUT, Layer

if TYPE_CHECKING:
    from s2mlp_deploy.families.s2mlp.spec import S2MLPSpec

ACTIVATIONS = {"fc1": "norm1", "fc2": "gelu1", "fc3": "norm2", "fc4": "gelu2"}
"""The matrix products of a block, in the order of computation, and the layer whose output each reads."""

HEAD_MEAN, HEAD_NORM = "head/mean", "head/norm"


def stage_name(stage: int) -> str:
    """The prefix of the names of a stage's layers."""
    return f"stage{stage}"


def embedding_name(stage: int) -> str:
    """A stage's embedding, with the norm behind it where there is one."""
    return f"{stage_name(stage)}/embedding"


def block_name(stage: int, block: int) -> str:
    """A block of a stage."""
    return f"{stage_name(stage)}/block{block:02d}"


def map_name(stage: int) -> str:
    """The map (batch, channels, height, width) that the next stage reads."""
    return f"{stage_name(stage)}/nchw"


def initializer_name(parameter: str) -> str:
    """The name in the graph of the parameter with this canonical name."""
    return parameter.replace("stages.", "stage")


def layer_maps(spec: S2MLPSpec) -> Iterator[tuple[str, int | None]]:
    """Each layer that is compared by itself, and its stage; None for the logits."""
    for s, stage in enumerate(spec.stages):
        yield embedding_name(s), s
        yield from ((block_name(s, b), s) for b in range(stage.depth))
    yield OUTPUT, None


def block_layers(spec: S2MLPSpec) -> tuple[Layer, ...]:
    """The four matrix products of every block, in the order of computation."""
    blocks = (block_name(s, b) for s, stage in enumerate(spec.stages) for b in range(stage.depth))
    return tuple(Layer(f"{block}/{fc}", f"{block}/{source}") for block in blocks for fc, source in ACTIVATIONS.items())


def end_layers(spec: S2MLPSpec) -> tuple[Layer, ...]:
    """The convolutions that open stages, and the classifier."""
    sources = [INPUT, *(map_name(s) for s in range(len(spec.stages) - 1))]
    embeddings = (Layer(f"{embedding_name(s)}/conv", source) for s, source in enumerate(sources))
    return (*embeddings, Layer(OUTPUT, HEAD_NORM if spec.norm_after_mean else HEAD_MEAN))
