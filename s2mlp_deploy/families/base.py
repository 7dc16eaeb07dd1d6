"""The base class of families: everything that the toolkit needs to know about a kind of network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from s2mlp_deploy.errors import LayoutError
from s2mlp_deploy.graph.layer import Layer
from s2mlp_deploy.schema.shift import Shift
from s2mlp_deploy.schema.size import Size, format_size
from s2mlp_deploy.schema.spec import Spec

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir
    from torch import Tensor

    from s2mlp_deploy.families.forms import Form
    from s2mlp_deploy.families.layouts import Layout
    from s2mlp_deploy.families.recognition import Match, Shapes
    from s2mlp_deploy.families.reference import ReferenceModel
    from s2mlp_deploy.families.structure import Structure
    from s2mlp_deploy.graph.lowered import Axes
    from s2mlp_deploy.graph.spatial_shift import Lowering

S = TypeVar("S", bound=Spec)

DEFAULT_IMAGE_SIZE: Size = (224, 224)


class Family(ABC, Generic[S]):
    """A kind of network, whose specs are of the class ``spec_type``."""

    name: ClassVar[str]
    """The family's name in manifests and layout files."""

    title: ClassVar[str]
    """The family's name in prose."""

    spec_type: type[S]

    @abstractmethod
    def build(self, spec: S, weights: Mapping[str, Tensor]) -> ReferenceModel:
        """The PyTorch module of ``spec`` around ``weights`` (canonical names), which are shared, not copied."""

    @abstractmethod
    def emit(self, spec: S, weights: Mapping[str, np.ndarray], lowering: Lowering, axes: Axes) -> ir.Model:
        """The graph of ``spec`` with ``weights`` (canonical names; shared, not copied, where float32).

        Input ``input`` (batch, channels, height, width) float32, output ``logits`` (batch, classes).
        """

    def layout_type(self) -> type[Layout] | None:
        """The class of layouts; None where no checkpoint of the family is exported."""
        return None

    def infer_spec(self, match: Match[Any], shapes: Shapes, *, image_size: Size, shift: Shift) -> S:
        """The architecture that the ``shapes`` of a checkpoint imply, whose keys ``match`` explains.

        Raises:
            LayoutError: where a parameter is missing, unexpected or misshapen.
            SpecError: where the numbers cannot be a network of the family.
        """
        raise LayoutError(f"checkpoints of {self.title} are not exported")

    def default_image_size(self, match: Match[Any], shapes: Shapes) -> Size:
        """The size of images where the user states none and the checkpoint records none.

        Raises:
            LayoutError: where the weights are for one size, and do not show which.
        """
        return DEFAULT_IMAGE_SIZE

    def form_of(self, match: Match[Any], name: str, shapes: Shapes) -> Form | None:
        """The form in which the checkpoint keeps the weight with this canonical name; None where it is the usual one.

        Raises:
            LayoutError: where the layout states a form that the weight's shape does not have.
        """
        return None

    def taken_on_trust(self, layout: Any, spec: S) -> tuple[str, ...]:
        """The facts about ``spec`` that ``layout``, the user's own file, states and weights do not show, in words."""
        return ()

    def alternatives(self, spec: S) -> Iterator[Iterator[Structure]]:
        """Other structures that the same weights could be of, in the order in which to try them: where one of the
        first group fits, the next is not tried."""
        return iter(())

    def stage_lines(self, spec: S) -> tuple[str, ...]:
        """Each stage in words, for people who inspect a checkpoint."""
        return tuple(f"{format_size(e.kernel)} convolution, stride {format_size(e.stride)}" for e in spec.embeddings)

    def peculiarities(self, spec: S) -> tuple[str, ...]:
        """Differences of the structure from the paper's, except those of the shift."""
        return ()

    @abstractmethod
    def block_layers(self, spec: S) -> tuple[Layer, ...]:
        """The matrix products of the blocks that int8 quantizes, in the order of computation."""

    @abstractmethod
    def end_layers(self, spec: S) -> tuple[Layer, ...]:
        """The stages' first convolutions and the classifier, which int8 leaves in float unless the user wants them."""
