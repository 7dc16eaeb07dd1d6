"""Train a small S²-MLP or S²-MLPv2 on Fashion-MNIST: how the checkpoints beside this file were made.

    python examples/train_fashion_mnist.py /usr/share/datasets/fashion-mnist -o examples/fashion_mnist.pt
    python examples/train_fashion_mnist.py /usr/share/datasets/fashion-mnist --shift inplace --epochs 5 \
        --layout jittor-mlp -o examples/fashion_mnist_inplace.pt
    python examples/train_fashion_mnist.py /usr/share/datasets/fashion-mnist --model s2mlp-v2 --shift inplace --epochs 3 \
        --batch-size 125 -o examples/fashion_mnist_v2_inplace.pt

The directory holds the four ``*-ubyte.gz`` files (Debian's package dataset-fashion-mnist installs
them). ``--shift paper`` trains with ``s2mlp_deploy.shift``, ``--shift inplace`` with the slice assignments that
most public code copied, literally and on the CPU; one thread, since PyTorch leaves their result undefined and more
threads can change it. Beside CKPT, the script writes CKPT's recipe (.json) and the class it predicted for every test
image (.predictions.npy).
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s2mlp_deploy.families.s2mlp.reference import S2MLP
from s2mlp_deploy.families.s2mlp.spec import single_stage
from s2mlp_deploy.schema.shift import Shift
from s2mlp_deploy.shift import spatial_shift
from s2mlp_v2 import INPLACE_SHIFTS, SAFE_SHIFTS, S2Block, S2MLPv2, inplace_shift1

MEAN, STD = 0.2860, 0.3530
CLASSES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]


DEFAULTS = {
    "s2mlp": {"channels": [96], "depth": [6], "patch_size": [4]},
    "s2mlp-v2": {"channels": [24, 64], "depth": [1, 3], "patch_size": [2, 2]},
}
"""The size of each model, one number a stage."""


def jittor_mlp_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same weights under the names of the most copied public code (docs/layouts.md)."""
    parts = {
        "norm1": "0.norm",
        "fc1": "0.fn.0",
        "fc2": "0.fn.3",
        "norm2": "1.norm",
        "fc3": "1.fn.0",
        "fc4": "1.fn.3",
    }
    renamed = {}
    for key, value in state.items():
        match key.split("."):
            case ["stages", s, "embedding", kind]:
                renamed[f"stages.{s}.0.{kind}"] = value
            case ["stages", s, "blocks", b, layer, kind]:
                renamed[f"stages.{s}.1.model.{b}.{parts[layer]}.{kind}"] = value
            case ["head", "fc", kind]:
                renamed[f"mlp_head.1.{kind}"] = value
            case _:
                raise ValueError(f"no name for {key}")
    return renamed


def load(directory: Path, split: str) -> tuple[Tensor, Tensor]:
    """Images (count, 28, 28) uint8 and labels (count,) int64 of ``split`` (train or t10k)."""

    def read(name: str, header: int) -> np.ndarray:
        with gzip.open(directory / f"{split}-{name}-ubyte.gz") as file:
            return np.frombuffer(file.read(), np.uint8, offset=header).copy()

    images = torch.from_numpy(read("images-idx3", 16)).view(-1, 28, 28)
    return images, torch.from_numpy(read("labels-idx1", 8)).long()


def prepare(images: Tensor) -> Tensor:
    """uint8 (count, 28, 28) to normalized float32 (count, 3, 28, 28): grey in every channel."""
    return images.float().div(255).sub(MEAN).div(STD).unsqueeze(1).expand(-1, 3, -1, -1)


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror half of the images and move all by up to two pixels."""
    flip = torch.rand(len(images), generator=generator) < 0.5
    images = torch.where(flip[:, None, None], images.flip(2), images)
    dy, dx = torch.randint(-2, 3, (2,), generator=generator).tolist()
    return F.pad(images, (2, 2, 2, 2))[:, 2 + dy : 30 + dy, 2 + dx : 30 + dx]


@torch.inference_mode()
def predict(model: nn.Module, images: Tensor) -> Tensor:
    """The predicted class of every image."""
    model.eval()
    return torch.cat([model(prepare(chunk)).argmax(1) for chunk in images.split(500)])


def s2mlp(args: argparse.Namespace) -> S2MLP:
    """S²-MLP of one stage."""
    (channels,), (depth,), (patch,) = args.channels, args.depth, args.patch_size
    spec = single_stage(
        channels=channels, depth=depth, patch=patch, expansion=args.expansion, classes=10, image_size=(28, 28)
    )
    shifts = {"paper": lambda x, _: spatial_shift(x), "inplace": lambda x, _: inplace_shift1(x)}
    return S2MLP(replace(spec, shift=Shift(semantics=args.shift)), shifts[args.shift])


def s2mlp_v2(args: argparse.Namespace) -> S2MLPv2:
    """S²-MLPv2 whose split attention begins as soft as if it took the mean of the positions, not their sum."""
    shifts = {"paper": SAFE_SHIFTS, "inplace": INPLACE_SHIFTS}[args.shift]
    model = S2MLPv2(args.channels, args.depth, args.patch_size, args.expansion, 10, shifts)
    for weight, summands in attention_weights(model, args):
        weight.data /= summands
    return model


def attention_weights(model: nn.Module, args: argparse.Namespace) -> Iterator[tuple[nn.Parameter, int]]:
    """The first weight of every split attention, and how many values each of its inputs is the sum of."""
    side, stages = 28, [module for module in model.modules() if isinstance(module, S2Block)]
    for stage, patch in zip(stages, args.patch_size, strict=False):
        side //= patch
        for name, parameter in stage.named_parameters():
            if name.endswith("split_attention.mlp1.weight"):
                yield parameter, 3 * side * side


def parameter_groups(model: nn.Module, args: argparse.Namespace) -> list[dict[str, object]]:
    """The groups of the optimizer, each with its learning rate: the smaller, the more values a weight's input sums."""
    scaled = dict(attention_weights(model, args))
    groups: dict[int, list[nn.Parameter]] = {}
    for parameter in model.parameters():
        groups.setdefault(scaled.get(parameter, 1), []).append(parameter)
    return [{"params": group, "lr": args.learning_rate / summands} for summands, group in groups.items()]


def train(model: nn.Module, args: argparse.Namespace) -> None:
    """Train ``model``, and print loss and test accuracy after each epoch."""
    generator = torch.Generator().manual_seed(args.seed)
    train_images, train_labels = load(args.data, "train")
    test_images, test_labels = load(args.data, "t10k")
    groups = parameter_groups(model, args)
    optimizer = torch.optim.AdamW(groups, weight_decay=args.weight_decay)
    steps = len(train_images) // args.batch_size
    rates = [group["lr"] for group in groups]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, args.epochs * steps, pct_start=0.2)

    start = time.monotonic()
    for epoch in range(args.epochs):
        model.train()
        total = 0.0
        for index in torch.randperm(len(train_images), generator=generator).view(steps, -1):
            loss = F.cross_entropy(
                model(prepare(augment(train_images[index], generator))), train_labels[index], label_smoothing=0.1
            )
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += loss.item()
        accuracy = (predict(model, test_images) == test_labels).double().mean().item()
        minutes = (time.monotonic() - start) / 60
        print(
            f"epoch {epoch + 1}: loss {total / steps:.4f}, test accuracy {accuracy:.2%}, {minutes:.1f} min", flush=True
        )


def save(model: nn.Module, args: argparse.Namespace) -> None:
    """Write the checkpoint, its recipe, and the classes that ``model`` predicts for the test images."""
    test_images, test_labels = load(args.data, "t10k")
    predictions = predict(model, test_images)
    correct = int((predictions == test_labels).sum())
    state = {k: v.detach().clone() for k, v in model.state_dict().items()}
    if args.layout == "jittor-mlp":
        state = jittor_mlp_names(state)
    options = {k: v for k, v in vars(args).items() if k not in ("data", "output", "start") and v is not None}
    if args.start:
        options["epochs_before"] = torch.load(args.start, weights_only=False)["epoch"]
    if args.model == "s2mlp":
        options |= {k: options[k][0] for k in DEFAULTS["s2mlp"]}
    stored = argparse.Namespace(
        **options, img_size=28, num_classes=10, mean=[MEAN] * 3, std=[STD] * 3, class_names=CLASSES
    )
    torch.save({"model": state, "epoch": args.epochs, "args": stored}, args.output)
    np.save(args.output.with_suffix(".predictions.npy"), predictions.numpy().astype(np.uint8))
    recipe = {
        **vars(stored),
        "test_correct": correct,
        "test_images": len(test_labels),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "torch": torch.__version__,
    }
    args.output.with_suffix(".json").write_text(json.dumps(recipe, indent=2, sort_keys=True) + "\n")
    print(f"{args.output}: {correct} of {len(test_labels)} test images right")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="directory of the idx.gz files")
    parser.add_argument("-o", "--output", type=Path, default=Path("fashion_mnist.pt"))
    parser.add_argument("--model", choices=list(DEFAULTS), default="s2mlp")
    parser.add_argument("--shift", choices=["paper", "inplace"], default="paper")
    parser.add_argument(
        "--layout", choices=["canonical", "jittor-mlp"], help="names of the weights of s2mlp; s2mlp-v2 has popular ones"
    )
    parser.add_argument("--start", type=Path, metavar="CKPT", help="train on from the weights of this checkpoint")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=250)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--patch-size", type=int, nargs="+", help="one number a stage")
    parser.add_argument("--channels", type=int, nargs="+", help="one number a stage")
    parser.add_argument("--expansion", type=int, default=3)
    parser.add_argument("--depth", type=int, nargs="+", help="one number a stage")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for name, default in DEFAULTS[args.model].items():
        setattr(args, name, getattr(args, name) or default)
    stages = {len(getattr(args, name)) for name in DEFAULTS[args.model]}
    if len(stages) > 1 or (args.model == "s2mlp" and stages != {1}):
        parser.error("--patch-size, --channels and --depth take one number for each stage, and s2mlp has one stage")
    if args.model == "s2mlp":
        args.layout = args.layout or "canonical"
    elif args.layout:
        parser.error("--layout goes with --model s2mlp: s2mlp-v2 has the names of the popular code anyway")
    return args


def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    model = s2mlp(args) if args.model == "s2mlp" else s2mlp_v2(args)
    if args.start:
        model.load_state_dict(torch.load(args.start, weights_only=False)["model"])
    train(model, args)
    save(model, args)


if __name__ == "__main__":
    main()
