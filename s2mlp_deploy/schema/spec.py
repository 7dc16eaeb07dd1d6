"""The architecture of a network as data: the base class of every family's spec.

A :class:`Spec` holds everything that decides what a network computes, apart from the weights. It is checked when it is
made, and never changed. Counting parameters or computing the size of a feature map needs no runtime.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar, get_args

from s2mlp_deploy.errors import SpecError
from s2mlp_deploy.schema.shift import Semantics, Shift
from s2mlp_deploy.schema.size import Size, format_size

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class Embedding:
    """The first convolution of a stage: patch embedding, or down-sampling between stages."""

    kernel: Size
    stride: Size
    padding: Size = (0, 0)

    def output_size(self, size: Size) -> Size:
        """Height and width after the convolution of a ``size`` map."""
        h, w = ((n + 2 * p - k) // s + 1 for n, k, s, p in zip(size, *self._axes(), strict=True))
        return h, w

    def divides(self, size: Size) -> bool:
        """Whether the convolution sees every pixel of a ``size`` map."""
        return all((n + 2 * p - k) % s == 0 or p for n, k, s, p in zip(size, *self._axes(), strict=True))

    def _axes(self) -> tuple[Size, Size, Size]:
        return self.kernel, self.stride, self.padding


@dataclass(frozen=True)
class Product:
    """A matrix product of a block for one image, (rows, inputs) by (inputs, outputs); ``name`` is that of its node."""

    name: str
    rows: int
    inputs: int
    outputs: int

    @property
    def macs(self) -> int:
        """Multiply-adds."""
        return self.rows * self.inputs * self.outputs


def categories(classes: int) -> int:
    """The number of classes that a model with ``classes`` logits distinguishes.

    One logit, as torch's BCEWithLogitsLoss trains it, distinguishes two: class 1 where it is positive, else class 0.
    """
    return max(classes, 2)


class Network(ABC):
    """A network as data: of a family whose architecture is known (:class:`Spec`), or any that an ONNX file holds
    (:class:`s2mlp_deploy.schema.onnx_network.OnnxNetwork`)."""

    family: ClassVar[str]
    """The name of the family, as in :data:`s2mlp_deploy.families.registry.FAMILIES`, or ``onnx``."""

    @property
    @abstractmethod
    def semantics(self) -> Semantics | None:
        """The semantics of the shifts; None where there is no shift."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """The network as a JSON object, as it stands in manifests and models; for all families but the first, with the key
        ``family``."""

    @classmethod
    @abstractmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """The network that :meth:`to_json` wrote.

        Raises:
            pydantic.ValidationError: where ``content`` is not such an object.
            SpecError: where the numbers cannot be a network of the family.
        """


@dataclass(frozen=True, kw_only=True)
class Spec(Network):
    """An image classifier: ``classes`` logits of images (``in_channels``, *``image_size``).

    Raises:
        SpecError: where the numbers cannot be a network of the family.
    """

    has_one_size: ClassVar[bool] = False
    """Whether the weights are tied to the number of positions, and so to one image size."""

    positions_first: ClassVar[bool] = False
    """Whether tokens in the graph are (height · width · batch, channels), not (batch · height · width, channels)."""

    classes: int
    image_size: Size = (224, 224)
    in_channels: int = 3

    @property
    @abstractmethod
    def embeddings(self) -> tuple[Embedding, ...]:
        """The convolution that opens each stage."""

    @property
    @abstractmethod
    def depth(self) -> int:
        """Blocks over all stages."""

    @property
    def shifts(self) -> tuple[Shift, ...]:
        """The different shifts that the network computes; none where its spatial operation is another."""
        return ()

    @property
    def possible_semantics(self) -> tuple[Semantics, ...]:
        """The semantics that the shifts' borders allow."""
        if not self.shifts:
            return ("paper",)
        return tuple(s for s in get_args(Semantics) if all(s in shift.possible_semantics for shift in self.shifts))

    @property
    def semantics(self) -> Semantics | None:
        """The semantics of the shifts; None where there is no shift."""
        return self.shifts[0].semantics if self.shifts else None

    def with_semantics(self, semantics: Semantics) -> Self:
        """This spec with the same shifts under other ``semantics``."""
        return self

    def map_sizes(self, image_size: Size) -> tuple[Size, ...]:
        """(height, width) of each stage's feature map for an image of ``image_size``.

        Raises:
            SpecError: where the image is smaller than the patch, or not a multiple of it.
        """
        sizes = []
        size = image_size
        for index, e in enumerate(self.embeddings):
            where = f"image size {format_size(image_size)}" + (
                f", {format_size(size)} at stage {index}" if index else ""
            )
            if min(out := e.output_size(size)) < 1:
                raise SpecError(
                    f"{where} is smaller than the {format_size(e.kernel)} patch: give a larger --image-size"
                )
            if not e.divides(size):
                raise SpecError(
                    f"{where} is not a multiple of the {format_size(e.stride)} patch, so the last rows or columns would "
                    "be ignored: give an --image-size that is"
                )
            size = out
            sizes.append(size)
        return tuple(sizes)

    @property
    def patch(self) -> Size:
        """Height and width of the patches that the first convolution sees."""
        return self.embeddings[0].kernel

    @property
    def reduction(self) -> Size:
        """Rows and columns of the image for each of the last feature map."""
        return prod(e.stride[0] for e in self.embeddings), prod(e.stride[1] for e in self.embeddings)

    @abstractmethod
    def layer_maps(self) -> dict[str, int | None]:
        """The layers that are compared one by one, in the order of computation: the name of each (and of its value in
        the graph), and the index of its feature map in :meth:`map_sizes`; None for the logits, which are last."""

    @abstractmethod
    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Every parameter's canonical name and shape, in the order of computation."""

    def parameters(self) -> int:
        """Number of learnt values."""
        return sum(prod(shape) for shape in self.parameter_shapes().values())

    @abstractmethod
    def products(self, image_size: Size | None = None) -> tuple[Product, ...]:
        """The matrix products of all blocks, in the order of computation."""

    @abstractmethod
    def macs(self, image_size: Size | None = None) -> int:
        """Multiply-adds of one image's matrix products and convolutions."""
