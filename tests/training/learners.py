"""Small learners and views for tests of the training loop."""

import torch
from helpers import context
from torch import nn

from infomin.methods import InfoNCE
from infomin.training.loop import fit
from infomin.training.optim import build_optimizer, rate_factor
from infomin.training.step import Learner, Step

STEPS, BATCH = 12, 6


class Tracked(InfoNCE):
    """InfoNCE with a slow copy of a weight, as momentum encoders have: state without gradients."""

    def __init__(self, width=0.25):
        super().__init__(context((1, 1), width=width, shared=True, dim=8))
        self.register_buffer("slow", torch.zeros_like(self.heads[0][0].weight))
        self.batches = []

    def forward(self, views, batch):
        self.batches.append(batch)
        return super().forward(views, batch)

    def after_step(self, step):
        self.slow.lerp_(self.heads[0][0].weight.detach(), 0.1)


class Noisy(nn.Module):
    """Two noisy copies of the images; the noise level is learned, so the view has state too."""

    def __init__(self, shared=True):
        super().__init__()
        self.shared = shared
        self.strength = nn.Parameter(torch.tensor(0.5))
        self.seeds = []

    def forward(self, batch, generator):
        self.seeds.append(generator.initial_seed())
        noise1 = torch.randn(batch.shape, generator=generator)
        noise2 = torch.randn(batch.shape, generator=generator)
        other = batch if self.shared else torch.randn(batch.shape, generator=generator)
        return batch + self.strength * noise1, other + self.strength * noise2


class Scripted(Learner):
    """A learner whose losses are given in advance."""

    def __init__(self, losses):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.register_buffer("losses", torch.tensor(losses))
        self.register_buffer("position", torch.tensor(0))
        self.autocast = []

    def forward(self, views, batch):
        self.autocast.append(torch.is_autocast_enabled("cpu"))
        loss = self.losses[self.position]
        return Step(loss + 0 * self.weight.sum(), {"loss": loss.clone(), "i_nce": 2 - loss})

    def after_step(self, step):
        self.position += 1


class Twice(nn.Module):
    def forward(self, batch, generator):
        return batch, batch


def random_batches(step):
    generator = torch.Generator().manual_seed(step)
    rows = torch.randint(100, (BATCH,), generator=generator)
    return torch.randn(BATCH, 1, 18, 18, generator=generator), rows, {}


def warm_cosine(step):
    return rate_factor("cosine", step, STEPS, 3)


def start(name="adamw", weights=0, **options):
    """The freshly built parts of a run, and the loop over them; no setting is at its default."""
    torch.manual_seed(weights)
    method, view = Tracked(), Noisy()
    optimizer = build_optimizer(name, nn.ModuleList([method, view]), 0.01, 0.1)
    parts = {"method": method, "view": view, "optimizer": optimizer}
    settings = {"steps": STEPS, "rate": warm_cosine, "seed": 5, "log_every": 1} | options
    return parts, fit(batches=random_batches, **parts, **settings)


def start_script(losses, learner=None, **options):
    learner = learner or Scripted(losses)
    optimizer = torch.optim.SGD(learner.parameters(), 0.1)
    settings = {"steps": len(losses), "rate": lambda step: 1.0, "log_every": 1} | options
    return learner, fit(learner, Twice(), random_batches, optimizer=optimizer, **settings)


def take_until(training, last):
    """The stats of steps up to `last`; the run is cut while the next step is yielded, unsaved."""
    stats = {}
    for step, values in training:
        if step > last:
            break
        stats[step] = values
    training.close()
    return stats
