"""The architecture of an MLP-Mixer (arXiv 2105.01601): blocks that mix positions, then channels.

The token-mixing weights depend on the number of positions, so a spec is for one image size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from s2mlp_deploy.graph.layer import OUTPUT
from s2mlp_deploy.schema.size import Size
from s2mlp_deploy.schema.spec import Embedding, Product, Spec
from s2mlp_deploy.schema.strict_model import Count, Extent, StrictModel

EMBEDDING = "embedding"
"""The name of the patch embedding, as a layer and before its parameters."""

HEAD_MEAN, HEAD_NORM = "head/mean", "head/norm"


def block_name(block: int) -> str:
    """The name of a block's output in the graph."""
    return f"block{block:02d}"


class _SpecJson(StrictModel):
    family: Literal["mixer"]
    kernel: tuple[Extent, Extent]
    stride: tuple[Extent, Extent]
    padding: tuple[Count, Count]
    channels: Extent
    token_hidden: Extent
    hidden: Extent
    depth: Annotated[int, Field(ge=0, lt=2**16)]
    classes: Extent
    image_size: tuple[Extent, Extent]
    in_channels: Extent
    norm_epsilon: float
    norm_after_mean: bool = False


@dataclass(frozen=True)
class MixerSpec(Spec):
    """An MLP-Mixer of ``blocks`` equal blocks.

    ``token_hidden`` is the width of the MLP over positions, ``hidden`` (c̄) of the one over channels. The head's norm
    stands before the mean over positions, or with ``norm_after_mean`` behind it, which the paper does not have.

    Raises:
        SpecError: where the patches do not fill the image.
    """

    family: ClassVar[str] = "mixer"
    has_one_size: ClassVar[bool] = True
    positions_first: ClassVar[bool] = True

    embedding: Embedding
    channels: int
    token_hidden: int
    hidden: int
    blocks: int
    norm_epsilon: float = 1e-6
    norm_after_mean: bool = False

    def __post_init__(self) -> None:
        self.map_sizes(self.image_size)

    @property
    def depth(self) -> int:
        """The number of blocks."""
        return self.blocks

    @property
    def embeddings(self) -> tuple[Embedding, ...]:
        """The patch embedding."""
        return (self.embedding,)

    @property
    def positions(self) -> int:
        """The number of positions of the feature map, to which the token-mixing weights are fixed."""
        return prod(self.map_sizes(self.image_size)[0])

    def layer_maps(self) -> dict[str, int | None]:
        """The embedding, the blocks and the logits."""
        return {EMBEDDING: 0, **{block_name(b): 0 for b in range(self.depth)}, OUTPUT: None}

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Every parameter's name and shape, in the order of computation."""
        return {
            name: shape
            for layer, weight in self._layers()
            for name, shape in ((f"{layer}.weight", weight), (f"{layer}.bias", weight[:1]))
        }

    def _layers(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        c, mixing, positions = self.channels, self.token_hidden, self.positions
        yield EMBEDDING, (c, self.in_channels, *self.embedding.kernel)
        for b in range(self.depth):
            yield f"block{b}.norm1", (c,)
            yield f"block{b}.token1", (mixing, positions)
            yield f"block{b}.token2", (positions, mixing)
            yield f"block{b}.norm2", (c,)
            yield f"block{b}.fc3", (self.hidden, c)
            yield f"block{b}.fc4", (c, self.hidden)
        yield "head.norm", (c,)
        yield "head.fc", (self.classes, c)

    def products(self, image_size: Size | None = None) -> tuple[Product, ...]:
        """Two products over positions and two over channels in every block."""
        c, mixing, hidden = self.channels, self.token_hidden, self.hidden
        m = prod(self.map_sizes(image_size or self.image_size)[0])
        layers = (("token1", c, m, mixing), ("token2", c, mixing, m), ("fc3", m, c, hidden), ("fc4", m, hidden, c))
        return tuple(
            Product(f"{block_name(b)}/{layer}", rows, inputs, outputs)
            for b in range(self.depth)
            for layer, rows, inputs, outputs in layers
        )

    def macs(self, image_size: Size | None = None) -> int:
        """Multiply-adds of one image's matrix products and convolution."""
        m = prod(self.map_sizes(image_size or self.image_size)[0])
        embedding = m * self.channels * self.in_channels * prod(self.embedding.kernel)
        return embedding + sum(p.macs for p in self.products(image_size)) + self.channels * self.classes

    def to_json(self) -> dict[str, Any]:
        """The spec as a flat JSON object."""
        e = self.embedding
        return _SpecJson(
            family="mixer",
            kernel=e.kernel,
            stride=e.stride,
            padding=e.padding,
            channels=self.channels,
            token_hidden=self.token_hidden,
            hidden=self.hidden,
            depth=self.depth,
            classes=self.classes,
            image_size=self.image_size,
            in_channels=self.in_channels,
            norm_epsilon=self.norm_epsilon,
            norm_after_mean=self.norm_after_mean,
        ).model_dump(mode="json")

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> MixerSpec:
        """The spec that :meth:`to_json` wrote.

        Raises:
            pydantic.ValidationError: where ``content`` is not such an object.
            SpecError: where the patches do not fill the image.
        """
        entry = _SpecJson.model_validate(content)
        return cls(
            Embedding(entry.kernel, entry.stride, entry.padding),
            entry.channels,
            entry.token_hidden,
            entry.hidden,
            entry.depth,
            entry.norm_epsilon,
            entry.norm_after_mean,
            classes=entry.classes,
            image_size=entry.image_size,
            in_channels=entry.in_channels,
        )
