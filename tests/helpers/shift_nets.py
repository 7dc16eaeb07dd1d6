"""Small networks with a shift inside, and their committed exports: the naive ONNX files that users have.

    PYTHONPATH=tests:bench/studies python -m helpers.shift_nets

writes tests/data/shift_nets anew: each network from both exporters, with a fixed and a free batch, and the inputs and
outputs of the network itself, run eagerly on one thread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfile
from typing import Literal, get_args

import onnx
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from helpers.support import EXAMPLES, ROOT
from s2mlp_studies.shift_nets.detector import Detector
from s2mlp_studies.shift_nets.export import Exporter, export
from s2mlp_studies.shift_nets.other_shifts import ASMLP, TSM, ShiftViT
from s2mlp_studies.shift_nets.s2 import S2MLP, S2MLPv2

DATA = ROOT / "tests/data/shift_nets"
EXAMPLE = EXAMPLES / "naive_detector.onnx"
"""The file of README's repair, a copy of one of those in DATA; its recording lies beside it."""
EXPORTERS: tuple[Exporter, ...] = get_args(Exporter)
Batch = Literal["fixed", "free"]
BATCHES: tuple[Batch, ...] = get_args(Batch)
SAMPLES = 2
"""The batch size of recordings, and of files whose batch is fixed."""

_SCOPES = "pkg.torch.onnx.name_scopes"
"""The metadata of nodes that is kept: the rest holds paths of the machine that exported."""


@dataclass(frozen=True)
class ShiftNet:
    """A network, the shape of one sample, and its outputs' names. ``overlapping`` counts its overlapping statements."""

    name: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    outputs: tuple[str, ...] = ("logits",)
    overlapping: int = 0

    def model(self) -> nn.Module:
        """The network with the weights of the committed files."""
        torch.manual_seed(sum(map(ord, self.name)))
        model = self.make().eval().requires_grad_(False)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
        return model

    def inputs(self, samples: int = SAMPLES) -> Tensor:
        """Noise of the scale of normalized images."""
        return torch.randn(samples, *self.shape, generator=torch.Generator().manual_seed(20210614))

    def file(self, exporter: Exporter, batch: Batch) -> Path:
        """The committed export."""
        return DATA / f"{self.name}-{exporter}-{batch}.onnx"

    @property
    def recording(self) -> Path:
        """The committed inputs and outputs of the network on one thread: ``input`` and each output by name."""
        return DATA / f"{self.name}.safetensors"


NETS = {
    net.name: net
    for net in (
        ShiftNet("s2mlp", lambda: S2MLP(channels=12, depth=2, patch=4, classes=7), (3, 20, 28), overlapping=8),
        ShiftNet(
            "s2mlpv2",
            lambda: S2MLPv2(channels=(8, 12), depths=(1, 1), patch=2, classes=7),
            (3, 20, 28),
            overlapping=16,
        ),
        ShiftNet(
            "detector",
            lambda: Detector(channels=4, classes=5),
            (3, 80, 48),
            ("boxes", "scores", "features"),
            overlapping=8,
        ),
        ShiftNet("shiftvit", lambda: ShiftViT(channels=12, depth=2, patch=4, classes=7), (3, 20, 28)),
        ShiftNet("tsm", lambda: TSM(channels=8, depth=2, frames=3, classes=7), (3, 3, 20, 28)),
        ShiftNet("asmlp", lambda: ASMLP(channels=9, depth=1, patch=4, classes=7), (3, 20, 28)),
    )
}


def record(net: ShiftNet, model: nn.Module) -> dict[str, Tensor]:
    """Inputs and outputs of ``model``, run eagerly on one thread, where overlapping statements have one result."""
    threads, x = torch.get_num_threads(), net.inputs()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            found = model(x.clone())
    finally:
        torch.set_num_threads(threads)
    return {"input": x, **dict(zip(net.outputs, found if isinstance(found, tuple) else (found,), strict=True))}


def exported(net: ShiftNet, model: nn.Module, exporter: Exporter, batch: Batch, path: Path) -> Path:
    """``model`` in an ONNX file at ``path``, without paths of this machine."""
    export(model, net.inputs(), net.outputs, path, exporter, free_batch=batch == "free")
    proto = onnx.load(path)
    for node in proto.graph.node:
        kept = [(p.key, p.value) for p in node.metadata_props if p.key == _SCOPES]
        node.ClearField("metadata_props")
        for key, value in kept:
            node.metadata_props.add(key=key, value=value)
        node.ClearField("doc_string")
    for values in (proto.graph.value_info, proto.graph.input, proto.graph.output):
        for value in values:
            value.ClearField("metadata_props")
    proto.ClearField("metadata_props")
    proto.graph.ClearField("metadata_props")
    path.write_bytes(proto.SerializeToString(deterministic=True))
    return path


def recorded(net: ShiftNet) -> dict[str, Tensor]:
    """The tensors in :attr:`ShiftNet.recording`."""
    return load_file(net.recording)


def main() -> None:
    """Write every file anew."""
    DATA.mkdir(parents=True, exist_ok=True)
    for net in NETS.values():
        model = net.model()
        tensors = {name: tensor.contiguous() for name, tensor in record(net, model).items()}
        save_file(tensors, net.recording, {"torch": torch.__version__})
        for exporter in EXPORTERS:
            for batch in BATCHES:
                exported(net, model, exporter, batch, net.file(exporter, batch))
    detector = NETS["detector"]
    copyfile(detector.file("dynamo", "free"), EXAMPLE)
    copyfile(detector.recording, EXAMPLE.with_suffix(".safetensors"))


if __name__ == "__main__":
    main()
