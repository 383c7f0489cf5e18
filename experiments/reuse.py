"""Our views in other people's code: a torchvision pipeline and lightly's loss, to copy from.

    python experiments/reuse.py                      # 20 seconds on 2 cores, no download
    python experiments/reuse.py --only torchvision   # without lightly

A view is an nn.Module that returns a tuple. On a single image it can be the last of a list of
transforms, where DataLoader workers draw for each image. On a batch it goes before the encoder, on
any device, and also draws for each image; this is the faster way (experiments/speed.py). In eval
mode an augmentation returns images unchanged. Lightly comes with `pip install 'infomin[bench]'`.
"""

from typing import Literal

import torch
from torch import nn
from torch.nn.functional import normalize
from torch.utils.data import DataLoader
from torchvision.datasets import FakeData
from torchvision.transforms import v2
from tqdm import tqdm

import infomin
from infomin.experiment import run_script
from infomin.networks.encoders import build_encoder
from infomin.views import parse

# FakeData stands for any data set of pictures and labels.
PICTURES = {"size": 256, "image_size": (3, 32, 32), "num_classes": 10}


def torchvision_pipeline() -> float:
    """Make views in DataLoader workers: the lightness of one crop, the colour of another.

    Returns the last loss.
    """
    transform = v2.Compose([v2.PILToTensor(), parse("crop:0.2+jitter:0.5+color:lab")])
    pictures = FakeData(**PICTURES, transform=transform)
    loader = DataLoader(pictures, batch_size=64, shuffle=True, num_workers=2)
    lightness_encoder = build_encoder("tiny", channels=1, width=0.5)
    color_encoder = build_encoder("tiny", channels=2, width=0.5)
    encoders = nn.ModuleList([lightness_encoder, color_encoder])
    optimizer = torch.optim.AdamW(encoders.parameters(), lr=1e-3)
    for (lightness, color), _ in tqdm(loader, "torchvision", leave=False):
        z1, z2 = normalize(lightness_encoder(lightness)), normalize(color_encoder(color))
        loss = -infomin.infonce(z1 @ z2.T / 0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


def beside_lightly() -> float:
    """Make views of whole batches, on the encoder's device, for lightly's loss.

    Returns the last loss.
    """
    from lightly.loss import NTXentLoss

    device = "cuda" if torch.cuda.is_available() else "cpu"
    pictures = FakeData(**PICTURES, transform=v2.PILToTensor())
    loader = DataLoader(pictures, batch_size=64, shuffle=True)
    view, contrast = parse("aug:simclr"), NTXentLoss(temperature=0.1)
    encoder = build_encoder("tiny", channels=3).to(device)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-3)
    for images, _ in tqdm(loader, "lightly", leave=False):
        first, second = view(images.to(device))  # uint8 in, two float batches out
        loss = contrast(encoder(first), encoder(second))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


def main(only: Literal["all", "torchvision", "lightly"] = "all") -> None:
    """Run the examples.

    Args:
        only: Which example.
    """
    for name, example in {"torchvision": torchvision_pipeline, "lightly": beside_lightly}.items():
        if only in ("all", name):
            print(f"{name:12} loss {example():.3f}")


if __name__ == "__main__":
    run_script(main, __doc__)
