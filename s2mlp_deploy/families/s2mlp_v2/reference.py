"""S²-MLPv2 as a PyTorch module that reads like the paper: the reference that every artifact is compared with."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from s2mlp_deploy.families.s2mlp_v2.spec import PARTS, AttentionStage, S2MLPv2Spec
from s2mlp_deploy.families.shift_reference import ShiftFunction
from s2mlp_deploy.families.staged import reference
from s2mlp_deploy.families.staged.reference import StagedModel
from s2mlp_deploy.families.staged.spec import Stage, StagedSpec


class Block(reference.Block):
    """x ← x + FC₂(SA(shift(FC₁(LN(x))))); x ← x + FC₄(GELU(FC₃(LN(x)))) (paper, section 3.2).

    FC₁ gives three parts of c channels: one is shifted, one is shifted along the other axes, one stays. Split
    attention (SA) weights them by channel:

        a = Σ parts over parts and positions;  w = softmax over parts of W₂·GELU(W₁·a);  SA = Σₖ wₖ ⊙ partₖ
    """

    parts = PARTS

    def __init__(self, spec: StagedSpec, stage: Stage, shift: ShiftFunction) -> None:
        super().__init__(spec, stage, shift)
        assert isinstance(spec, S2MLPv2Spec) and isinstance(stage, AttentionStage)
        self.attention1 = nn.Linear(stage.channels, stage.attention, bias=False)
        self.attention2 = nn.Linear(stage.attention, PARTS * stage.channels, bias=False)
        self.spec = spec

    def mix(self, y: Tensor) -> Tensor:
        """Shift and split attention: (batch, height, width, 3·c) to (batch, height, width, c)."""
        c = y.shape[-1] // PARTS
        parts = [
            y[..., p * c : (p + 1) * c] for p in range(PARTS)
        ]  # slices, which code that shifts in place may change
        moved = [part if s is None else self.shift(part, s) for part, s in zip(parts, self.spec.parts, strict=True)]
        return self.split_attention(torch.stack(moved, 1))

    def split_attention(self, parts: Tensor) -> Tensor:
        """(batch, 3, height, width, c) to (batch, height, width, c)."""
        a = self.attention2(self.activation(self.attention1(parts.sum((1, 2, 3)))))
        weights = a.unflatten(1, (PARTS, -1)).softmax(1)
        weighted: Tensor = weights[:, :, None, None] * parts
        return weighted.sum(1)


class S2MLPv2(StagedModel):
    """S²-MLPv2: images (batch, 3, height, width) to logits (batch, classes)."""

    block_type = Block
