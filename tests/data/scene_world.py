"""A small world with known probabilities, and scenes drawn from it."""

import numpy as np
import torch

from infomin.data.scenes import Scenes, World, corners, draw_scenes

N = 20_000


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_world() -> World:
    """Random pixels; 9 positions and 2 x 3 crops.

    6 classes of 3, 2, 1, 2, 1 and 3 digits, unsorted; 3 classes of 2, 1 and 2 backgrounds.
    """
    g = generator(0)
    return World(
        digits=torch.randint(256, (12, 5, 4), dtype=torch.uint8, generator=g),
        digit_class=torch.tensor([5, 0, 1, 0, 2, 5, 0, 1, 3, 4, 5, 3]),
        backgrounds=torch.randint(256, (5, 3, 13, 14), dtype=torch.uint8, generator=g),
        background_class=torch.tensor([2, 0, 1, 0, 2]),
        size=12,
    )


WORLD = make_world()
SCENES = draw_scenes(WORLD, N, generator(1))


def check_range(scenes: Scenes) -> None:
    """Check that all factors are in range and fit together."""
    world = scenes.world
    assert torch.equal(world.digit_class[scenes.digit_image], scenes.digit)
    assert torch.equal(world.background_class[scenes.background_image], scenes.background)
    assert scenes.position.min() >= 0 and scenes.position.max() < world.cells**2
    last_crop = torch.tensor(world.backgrounds.shape[2:]) - world.size
    assert (scenes.crop >= 0).all() and (scenes.crop <= last_crop).all()
    corner = corners(scenes)
    end = corner + torch.tensor(world.digits.shape[1:])
    assert (corner >= 0).all() and (end <= world.size).all()
    for value in scenes.tensors().values():
        assert value.dtype == torch.long and len(value) == len(scenes)


def finest(scenes: Scenes) -> dict[str, np.ndarray]:
    """Each factor at its finest level, as one integer a scene."""
    crop = scenes.background_image * 6 + scenes.crop[:, 0] * 3 + scenes.crop[:, 1]
    return {
        "digit": scenes.digit_image.numpy(),
        "position": scenes.position.numpy(),
        "background": crop.numpy(),
    }


def levels(factor: str) -> dict[str, np.ndarray]:
    """Level -> the label of each finest value of a factor."""
    if factor == "position":
        position = np.arange(9)
        return {"": 0 * position, "position": position, "position%2": position % 2}
    bank = getattr(WORLD, f"{factor}_class").numpy()
    crops = 1 if factor == "digit" else 6
    image = np.repeat(np.arange(len(bank)), crops)
    classes = bank[image]
    return {
        "": 0 * image,
        factor: classes,
        f"{factor}%2": classes % 2,
        f"{factor}%5": classes % 5,
        f"{factor}_image": image,
        "background_crop": np.arange(len(image)),
    }


def probabilities(factor: str) -> np.ndarray:
    """P of each finest value: uniform classes, images within a class, crops within an image."""
    if factor == "position":
        return np.full(9, 1 / 9)
    classes = levels(factor)[factor]
    return 1 / (classes.max() + 1) / np.bincount(classes)[classes]


def histogram(one: str, values: np.ndarray, other: str, other_values: np.ndarray) -> np.ndarray:
    """How often each pair of finest values of two factors occurs."""
    bins = (len(probabilities(one)), len(probabilities(other)))
    return np.histogram2d(values, other_values, bins=bins)[0]
