"""Networks of stages as PyTorch modules that read like the papers: the references that artifacts are compared with."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import Self

from s2mlp_deploy.families.reference import Head, ReferenceModel, StageEmbedding
from s2mlp_deploy.families.shift_reference import ShiftFunction, spatial_shift
from s2mlp_deploy.families.staged import layers
from s2mlp_deploy.families.staged.spec import Stage, StagedSpec
from s2mlp_deploy.graph.layer import OUTPUT


class Block(nn.Module):
    """x ← x + FC₂(mix(FC₁(LN(x)))); x ← x + FC₄(GELU(FC₃(LN(x)))), where ``mix`` is the family's own.

    Input and output are (batch, height, width, channels).
    """

    parts: ClassVar[int] = 1
    """How many times c channels FC₁ gives."""

    def __init__(self, spec: StagedSpec, stage: Stage, shift: ShiftFunction) -> None:
        super().__init__()
        c, hidden = stage.channels, stage.hidden
        self.norm1 = nn.LayerNorm(c, spec.norm_epsilon, bias="norm1" in spec.biases)
        self.fc1 = nn.Linear(c, self.parts * c, "fc1" in spec.biases)
        self.fc2 = nn.Linear(c, c, "fc2" in spec.biases)
        self.norm2 = nn.LayerNorm(c, spec.norm_epsilon, bias="norm2" in spec.biases)
        self.fc3 = nn.Linear(c, hidden, "fc3" in spec.biases)
        self.fc4 = nn.Linear(hidden, c, "fc4" in spec.biases)
        self.shift = shift
        self.activation: Callable[[Tensor], Tensor] = F.gelu

    @abstractmethod
    def mix(self, y: Tensor) -> Tensor:
        """(batch, height, width, parts · c) to (batch, height, width, c): the only step that moves values."""

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.fc2(self.mix(self.fc1(self.norm1(x))))
        x = x + self.fc4(self.activation(self.fc3(self.norm2(x))))
        return x


class StageModule(nn.Module):
    """One stage: its embedding, perhaps with a norm behind it, and its blocks."""

    def __init__(self, spec: StagedSpec, index: int, blocks: Iterator[Block]) -> None:
        super().__init__()
        stage = spec.stages[index]
        width = spec.stages[index - 1].channels if index else spec.in_channels
        e = stage.embedding
        self.embedding = StageEmbedding(
            width, stage.channels, e.kernel, e.stride, e.padding, bias="embedding" in spec.biases
        )
        if stage.stem_norm:
            self.stem_norm = nn.LayerNorm(stage.channels, spec.norm_epsilon, bias="stem_norm" in spec.biases)
        self.blocks = nn.ModuleList(blocks)


class StagedModel(ReferenceModel):
    """A network of stages: images (batch, 3, height, width) to logits (batch, classes).

    ``shift`` replaces the definition of the spatial shift, for training with other code.
    """

    block_type: ClassVar[type[Block]]

    def __init__(self, spec: StagedSpec, shift: ShiftFunction = spatial_shift) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            StageModule(spec, i, (self.block_type(spec, stage, shift) for _ in range(stage.depth)))
            for i, stage in enumerate(spec.stages)
        )
        c = spec.stages[-1].channels
        norm = nn.LayerNorm(c, spec.norm_epsilon, bias="norm" in spec.biases) if spec.final_norm else None
        self.head = Head(norm, nn.Linear(c, spec.classes, "fc" in spec.biases), norm_after_mean=spec.norm_after_mean)

    def layers(self) -> Iterator[tuple[str, nn.Module]]:
        """(name, module) in the order of computation; the last one gives the logits."""
        for s, stage in enumerate(self.stages):
            opening = [m for name, m in stage.named_children() if name != "blocks"]
            yield layers.embedding_name(s), opening[0] if len(opening) == 1 else nn.Sequential(*opening)
            for b, block in enumerate(stage.get_submodule("blocks").children()):
                yield layers.block_name(s, b), block
        yield OUTPUT, self.head

    @classmethod
    def of(cls, spec: StagedSpec, weights: Mapping[str, Tensor]) -> Self:
        """The module of ``spec`` around ``weights`` (canonical names), which are shared, not copied."""
        with torch.device("meta"):
            model = cls(spec)
        model.load_state_dict(dict(weights), strict=True, assign=True)
        return model.eval().requires_grad_(False)
