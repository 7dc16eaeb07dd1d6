"""S²-MLP as a family."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from s2mlp_deploy.families.s2mlp.layout import S2MLPLayout
from s2mlp_deploy.families.s2mlp.spec import S2MLPSpec
from s2mlp_deploy.families.staged.family import StagedFamily

if TYPE_CHECKING:
    from s2mlp_deploy.families.s2mlp.emit import S2MLPEmitter
    from s2mlp_deploy.families.s2mlp.reference import S2MLP


class S2MLPFamily(StagedFamily[S2MLPSpec]):
    """S²-MLP (arXiv 2106.07477)."""

    name, title = S2MLPSpec.family, "S²-MLP"
    spec_type = S2MLPSpec
    layout = S2MLPLayout
    activations: ClassVar[Mapping[str, str]] = {"fc1": "norm1", "fc2": "gelu1", "fc3": "norm2", "fc4": "gelu2"}

    def model_type(self) -> type[S2MLP]:
        from s2mlp_deploy.families.s2mlp.reference import S2MLP

        return S2MLP

    def emitter_type(self) -> type[S2MLPEmitter]:
        from s2mlp_deploy.families.s2mlp.emit import S2MLPEmitter

        return S2MLPEmitter
