"""The reference: S²-MLP as a PyTorch module that reads like the paper.

Its :func:`spatial_shift` is the definition that every lowering is tested against. The module holds
the checkpoint's own tensors; :func:`activations` runs it layer by layer in any floating-point type,
so that float64 logits need memory for one layer in float64, not for the whole model.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s2mlp_deploy.schema.spec import Offset, Shift, Spec, Stage, overlap

ShiftFunction: TypeAlias = Callable[[Tensor, Shift], Tensor]


def spatial_shift(x: Tensor, shift: Shift) -> Tensor:
    """Move each channel group of ``x`` (batch, height, width, channels) by its offset.

    Paper, section 3.2. A position whose source lies outside the map keeps its own value, or has what ``shift.border`` says.
    """
    out = torch.zeros_like(x) if shift.border == "zero" else x.clone()
    for group in shift.groups(x.shape[-1]):
        source, target = x[..., group.start : group.stop], out[..., group.start : group.stop]
        if shift.smears(group.offset):
            _smear(target, group.offset)
        elif shift.border == "wrap":
            target[:] = source.roll(group.offset, (1, 2))
        else:
            to, of = overlap(group.offset, (x.shape[1], x.shape[2]))
            target[:, to[0], to[1]] = source[:, of[0], of[1]]
    return out


def _smear(x: Tensor, offset: Offset) -> None:
    """The assignment ``x[to] = x[of]`` on one buffer, position after position in memory order.

    PyTorch leaves overlapping copies undefined; its CPU kernels run in this order on one thread.
    One row (or column) at a time does the same, since a row never reads from itself here.
    """
    dh, dw = offset
    _, height, width, _ = x.shape
    (to_h, to_w), (_, of_w) = overlap(offset, (height, width))
    if dh:
        for h in range(*to_h.indices(height)):
            x[:, h, to_w] = x[:, h - dh, of_w]
    else:
        for w in range(*to_w.indices(width)):
            x[:, :, w] = x[:, :, w - dw]


class Block(nn.Module):
    """x ← x + FC₂(shift(GELU(FC₁(LN(x))))); x ← x + FC₄(GELU(FC₃(LN(x)))) (paper, equation 5).

    Input and output are (batch, height, width, channels).
    """

    def __init__(self, spec: Spec, stage: Stage, shift: ShiftFunction) -> None:
        super().__init__()
        c, hidden = stage.channels, stage.hidden
        self.norm1 = nn.LayerNorm(c, spec.norm_epsilon, bias="norm1" in spec.biases)
        self.fc1 = nn.Linear(c, c, "fc1" in spec.biases)
        self.fc2 = nn.Linear(c, c, "fc2" in spec.biases)
        self.norm2 = nn.LayerNorm(c, spec.norm_epsilon, bias="norm2" in spec.biases)
        self.fc3 = nn.Linear(c, hidden, "fc3" in spec.biases)
        self.fc4 = nn.Linear(hidden, c, "fc4" in spec.biases)
        self.spec, self.shift = spec, shift
        self.activation: Callable[[Tensor], Tensor] = F.gelu

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.fc2(self.shift(self.activation(self.fc1(self.norm1(x))), self.spec.shift))
        x = x + self.fc4(self.activation(self.fc3(self.norm2(x))))
        return x


class StageEmbedding(nn.Conv2d):
    """The convolution that opens a stage, from and to (batch, height, width, channels)."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = super().forward(x.permute(0, 3, 1, 2))
        return out.permute(0, 2, 3, 1).contiguous()


class StageModule(nn.Module):
    """One stage: its embedding, perhaps with a norm behind it, and its blocks."""

    def __init__(self, spec: Spec, index: int, shift: ShiftFunction) -> None:
        super().__init__()
        stage = spec.stages[index]
        width = spec.stages[index - 1].channels if index else spec.in_channels
        e = stage.embedding
        self.embedding = StageEmbedding(
            width, stage.channels, e.kernel, e.stride, e.padding, bias="embedding" in spec.biases
        )
        if stage.stem_norm:
            self.stem_norm = nn.LayerNorm(stage.channels, spec.norm_epsilon, bias="stem_norm" in spec.biases)
        self.blocks = nn.ModuleList(Block(spec, stage, shift) for _ in range(stage.depth))


class Head(nn.Module):
    """Feature map (batch, height, width, channels) to logits: mean over positions, then linear; a norm before or between."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        c = spec.stages[-1].channels
        self.norm = nn.LayerNorm(c, spec.norm_epsilon, bias="norm" in spec.biases) if spec.final_norm else nn.Identity()
        self.fc = nn.Linear(c, spec.classes, "fc" in spec.biases)
        self.norm_after_mean = spec.norm_after_mean

    def forward(self, x: Tensor) -> Tensor:
        mean = self.norm(x.mean((1, 2))) if self.norm_after_mean else self.norm(x).mean((1, 2))
        logits: Tensor = self.fc(mean)
        return logits


class S2MLP(nn.Module):
    """S²-MLP: images (batch, 3, height, width) to logits (batch, classes).

    ``shift`` replaces the definition of the spatial shift, for training with other code.
    """

    def __init__(self, spec: Spec, shift: ShiftFunction = spatial_shift) -> None:
        super().__init__()
        self.stages = nn.ModuleList(StageModule(spec, i, shift) for i in range(len(spec.stages)))
        self.head = Head(spec)

    def layers(self) -> Iterator[tuple[str, nn.Module]]:
        """(name, module) in the order of computation; the last one gives the logits."""
        for s, stage in enumerate(self.stages):
            opening = [m for name, m in stage.named_children() if name != "blocks"]
            yield f"stage{s}/embedding", opening[0] if len(opening) == 1 else nn.Sequential(*opening)
            for b, block in enumerate(stage.get_submodule("blocks").children()):
                yield f"stage{s}/block{b:02d}", block
        yield "logits", self.head

    def forward(self, images: Tensor) -> Tensor:
        x = images.permute(0, 2, 3, 1)
        for _, layer in self.layers():
            x = layer(x)
        return x


def build(spec: Spec, weights: Mapping[str, Tensor]) -> S2MLP:
    """The module of ``spec`` around ``weights`` (canonical names), which are shared, not copied."""
    with torch.device("meta"):
        model = S2MLP(spec)
    model.load_state_dict(dict(weights), strict=True, assign=True)
    return model.eval().requires_grad_(False)


def activations(model: S2MLP, images: Tensor) -> Iterator[tuple[str, Tensor]]:
    """(name, output) of every layer, the logits last, computed in the dtype of ``images``.

    Feature maps are (batch, height, width, channels), logits (batch, classes).
    """
    x = images.permute(0, 2, 3, 1)
    with torch.inference_mode():
        for name, layer in model.layers():
            if next(layer.parameters()).dtype != images.dtype:
                layer = copy.deepcopy(layer).to(images.dtype)
            x = layer(x)
            yield name, x


def logits(model: S2MLP, images: Tensor) -> Tensor:
    """Logits (batch, classes), computed in the dtype of ``images`` (batch, 3, height, width)."""
    *_, (_, out) = activations(model, images)
    return out
