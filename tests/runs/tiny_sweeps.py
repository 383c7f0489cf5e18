"""What tests of sweeps share: a recipe of seconds, and what is equal in the rows of two sweeps."""

import infomin

TINY = infomin.Recipe(
    steps=20,
    batch=16,
    size=24,
    width=0.25,
    dim=16,
    candidates=16,
    probe_images=64,
    share_encoder=True,
    precision="fp32",
    device="cpu",
)


def numbers(row):
    return {name: value for name, value in row.items() if name != "seconds"}


def log(folder, recipe):
    return (folder / recipe.key / "log.jsonl").read_bytes()


def go(recipes, out, jobs=1):
    return infomin.sweep(recipes, out, jobs=jobs, bar=False)
