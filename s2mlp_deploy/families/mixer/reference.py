"""MLP-Mixer as a PyTorch module that reads like the paper (arXiv 2105.01601, equation 1)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s2mlp_deploy.families.mixer.spec import EMBEDDING, MixerSpec, block_name
from s2mlp_deploy.families.reference import Head, ReferenceModel, StageEmbedding
from s2mlp_deploy.graph.layer import OUTPUT


class Block(nn.Module):
    """x ← x + (W₂·GELU(W₁·LN(x)ᵀ))ᵀ; x ← x + FC₄(GELU(FC₃(LN(x)))).

    Input and output are (batch, height, width, channels).
    """

    def __init__(self, spec: MixerSpec) -> None:
        super().__init__()
        c = spec.channels
        self.norm1 = nn.LayerNorm(c, spec.norm_epsilon)
        self.token1 = nn.Linear(spec.positions, spec.token_hidden)
        self.token2 = nn.Linear(spec.token_hidden, spec.positions)
        self.norm2 = nn.LayerNorm(c, spec.norm_epsilon)
        self.fc3 = nn.Linear(c, spec.hidden)
        self.fc4 = nn.Linear(spec.hidden, c)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x).flatten(1, 2).transpose(1, 2)
        y = self.token2(F.gelu(self.token1(y))).transpose(1, 2)
        x = x + y.reshape(x.shape)
        x = x + self.fc4(F.gelu(self.fc3(self.norm2(x))))
        return x


class Mixer(ReferenceModel):
    """MLP-Mixer: images (batch, channels, height, width) of the spec's size to logits (batch, classes)."""

    def __init__(self, spec: MixerSpec) -> None:
        super().__init__()
        e, c = spec.embedding, spec.channels
        self.embedding = StageEmbedding(spec.in_channels, c, e.kernel, e.stride, e.padding)
        for b in range(spec.depth):
            self.add_module(f"block{b}", Block(spec))
        norm = nn.LayerNorm(c, spec.norm_epsilon)
        self.head = Head(norm, nn.Linear(c, spec.classes), norm_after_mean=spec.norm_after_mean)
        self.depth = spec.depth

    def layers(self) -> Iterator[tuple[str, nn.Module]]:
        """(name, module) in the order of computation; the last one gives the logits."""
        yield EMBEDDING, self.embedding
        for b in range(self.depth):
            yield block_name(b), self.get_submodule(f"block{b}")
        yield OUTPUT, self.head


def build(spec: MixerSpec, weights: Mapping[str, Tensor]) -> Mixer:
    """The module of ``spec`` around ``weights`` (canonical names), which are shared, not copied."""
    with torch.device("meta"):
        model = Mixer(spec)
    model.load_state_dict(dict(weights), strict=True, assign=True)
    return model.eval().requires_grad_(False)
