"""A method with a queue, a bank of all images and a slow encoder: what the contract has to carry.

It is no published method. Its loss contrasts each embedding with its partner's slow one against the
queue, and pulls it towards what the bank remembers of the same image; noise of its own is drawn.
"""

import copy

import torch
import torch.nn.functional as F
from torch import nn

from infomin.common.distributed import gather
from infomin.measure.critics import cosine_scores
from infomin.methods import Group, Method, Step
from infomin.networks import Projection


class Memory(Method):
    """Queue, bank and momentum encoder, all of them state."""

    views = (2, 2)

    def __init__(self, context, *, queue: int = 64, momentum: float = 0.9, noise: bool = True):
        super().__init__(context)
        self.tau, self.momentum, self.noise = context.tau, momentum, noise
        (size, *_) = self.encoders.features
        self.head = Projection(size, context.dim, context.head)
        self.slow = copy.deepcopy(nn.ModuleList([self.encoders, self.head])).requires_grad_(False)
        self.register_buffer("queue", F.normalize(torch.randn(queue, context.dim), dim=1))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))
        self.register_buffer("bank", torch.zeros(context.images, context.dim))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def forward(self, views, batch):
        fast, _ = (F.normalize(self.head(h), dim=1) for h in self.encoders(views))
        with torch.no_grad():
            encoders, head = self.slow
            _, slow = (F.normalize(head(h), dim=1) for h in encoders(views))
        index, keys = gather(batch.index), gather(slow)
        positive = cosine_scores(fast, slow, self.tau).diagonal()
        negative = cosine_scores(fast, self.queue.clone(), self.tau)
        scores = torch.cat([positive[:, None], negative], 1)
        if self.noise:
            scores = scores + 0.01 * torch.rand(scores.shape, generator=batch.generator)
        target = torch.zeros(len(scores), dtype=torch.long)
        loss = F.cross_entropy(scores, target) - 0.1 * (fast * self.bank[batch.index]).sum(1).mean()
        if self.training:
            self._remember(index, keys)
        return Step(loss, {"loss": loss.detach(), "queued": self.pointer.float()})

    def _remember(self, index, keys):
        rows = (int(self.pointer) + torch.arange(len(keys))) % len(self.queue)
        self.queue[rows] = keys
        self.pointer += len(keys)
        self.bank[index] = keys

    def groups(self):
        head = list(self.head.parameters())
        return [Group("encoders", list(self.encoders.parameters())), Group("head", head, rate=10.0)]

    def after_step(self, step):
        with torch.no_grad():
            fast = nn.ModuleList([self.encoders, self.head]).parameters()
            for slow, parameter in zip(self.slow.parameters(), fast, strict=True):
                slow.lerp_(parameter, 1 - self.momentum)
        self.steps += 1
        assert int(self.steps) == step + 1
