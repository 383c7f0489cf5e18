"""The views in other people's code: a torchvision pipeline, and lightly's loss. Ten lines each, to be copied.

    python experiments/reuse.py                      # 20 seconds on 2 cores, no download
    python experiments/reuse.py --only torchvision   # without lightly, which pip install 'infomin[bench]' brings

A view is an nn.Module that gives a tuple. On a single image it stands in a transform list, where DataLoader workers draw for each
image; on a batch it stands before the encoder, on whatever device that is, and draws for each image as well. The second is the
faster one (experiments/speed.py). In eval mode an augmentation leaves images as they are.
"""

from typing import Literal

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import FakeData
from torchvision.transforms import v2

import infomin
from infomin.experiment import run_script
from infomin.networks.encoders import build_encoder
from infomin.views import parse

PICTURES = {
    "size": 256,
    "image_size": (3, 32, 32),
    "num_classes": 10,
}  # stands for any data set of pictures and labels


def torchvision_pipeline() -> float:
    """Views made in DataLoader workers: the lightness of one crop against the colour of another. Returns the last loss."""
    transform = v2.Compose([v2.PILToTensor(), parse("crop:0.2+jitter:0.5+color:lab")])
    loader = DataLoader(
        FakeData(**PICTURES, transform=transform), batch_size=64, shuffle=True, num_workers=2
    )
    encoders = nn.ModuleList(
        [build_encoder("tiny", channels=1, width=0.5), build_encoder("tiny", channels=2, width=0.5)]
    )
    optimizer = torch.optim.AdamW(encoders.parameters(), lr=1e-3)
    for views, _ in loader:
        z1, z2 = (
            nn.functional.normalize(encoder(view))
            for encoder, view in zip(encoders, views, strict=True)
        )
        loss = -infomin.infonce(z1 @ z2.T / 0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


def beside_lightly() -> float:
    """Views made of whole batches on the encoder's device, under lightly's loss. Returns the last loss."""
    from lightly.loss import NTXentLoss

    device = "cuda" if torch.cuda.is_available() else "cpu"
    loader = DataLoader(
        FakeData(**PICTURES, transform=v2.PILToTensor()), batch_size=64, shuffle=True
    )
    view, encoder, contrast = (
        parse("aug:simclr"),
        build_encoder("tiny", channels=3).to(device),
        NTXentLoss(temperature=0.1),
    )
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-3)
    for images, _ in loader:
        one, other = view(images.to(device))  # uint8 in, two float batches out
        loss = contrast(encoder(one), encoder(other))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


def main(only: Literal["all", "torchvision", "lightly"] = "all") -> None:
    """Run the examples.

    Args:
        only: Which one.
    """
    for name, example in {"torchvision": torchvision_pipeline, "lightly": beside_lightly}.items():
        if only in ("all", name):
            print(f"{name:12} loss {example():.3f}")


if __name__ == "__main__":
    run_script(main, __doc__)
