"""The names of layers in the graph, in traces and in reports, of networks of stages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from s2mlp_deploy.graph.layer import INPUT, OUTPUT, Layer

if TYPE_CHECKING:
    from s2mlp_deploy.families.staged.spec import StagedSpec

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


def block_names(spec: StagedSpec) -> Iterator[str]:
    """Every block, in the order of computation."""
    for s, stage in enumerate(spec.stages):
        yield from (block_name(s, b) for b in range(stage.depth))


def layer_maps(spec: StagedSpec) -> Iterator[tuple[str, int | None]]:
    """Each layer that is compared by itself, and its stage; None for the logits."""
    for s, stage in enumerate(spec.stages):
        yield embedding_name(s), s
        yield from ((block_name(s, b), s) for b in range(stage.depth))
    yield OUTPUT, None


def end_layers(spec: StagedSpec) -> tuple[Layer, ...]:
    """The convolutions that open stages, and the classifier."""
    sources = [INPUT, *(map_name(s) for s in range(len(spec.stages) - 1))]
    embeddings = (Layer(f"{embedding_name(s)}/conv", source) for s, source in enumerate(sources))
    return (*embeddings, Layer(OUTPUT, HEAD_NORM if spec.norm_after_mean else HEAD_MEAN))
