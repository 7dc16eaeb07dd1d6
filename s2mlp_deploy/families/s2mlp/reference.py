"""S²-MLP as a PyTorch module that reads like the paper: the reference that every artifact is compared with."""

from __future__ import annotations

from torch import Tensor

from s2mlp_deploy.families.shift_reference import ShiftFunction
from s2mlp_deploy.families.staged import reference
from s2mlp_deploy.families.staged.reference import StagedModel
from s2mlp_deploy.families.staged.spec import Stage, StagedSpec


class Block(reference.Block):
    """x ← x + FC₂(shift(GELU(FC₁(LN(x))))); x ← x + FC₄(GELU(FC₃(LN(x)))) (paper, equation 5)."""

    def __init__(self, spec: StagedSpec, stage: Stage, shift: ShiftFunction) -> None:
        super().__init__(spec, stage, shift)
        self.spec = spec

    def mix(self, y: Tensor) -> Tensor:
        """shift(GELU(y)) of (batch, height, width, c)."""
        return self.shift(self.activation(y), self.spec.shift)


class S2MLP(StagedModel):
    """S²-MLP: images (batch, 3, height, width) to logits (batch, classes)."""

    block_type = Block
