"""Write the first Fashion-MNIST images of each class as PNG files, one folder a class: how test_images was made.

python examples/save_images.py /usr/share/datasets/fashion-mnist examples/test_images
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

from train_fashion_mnist import load


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="directory of the idx.gz files")
    parser.add_argument("output", type=Path)
    parser.add_argument("--part", choices=("train", "t10k"), default="t10k", help="training or test images")
    parser.add_argument("--count", type=int, default=20, help="images of each class")
    args = parser.parse_args()
    images, labels = load(args.data, args.part)
    for label in range(10):
        folder = args.output / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        for index in (labels == label).nonzero().flatten()[: args.count].tolist():
            Image.fromarray(images[index].numpy()).save(folder / f"{index:05d}.png", optimize=True)


if __name__ == "__main__":
    main()
