"""The peers as the scripts of this folder use them."""

import sys
import types

import numpy as np
import torch

# ART's GeoDA asks for what NumPy 2 no longer has.
np.mat = np.asmatrix
# adversarial-library imports a plotting client that its attacks do not need.
sys.modules.setdefault("visdom", types.ModuleType("visdom"))


class Recorded(torch.nn.Module):
    """A network that remembers the points it was asked about: of equal ones in a row only the first, unless `repeated`."""

    def __init__(self, network, repeated=False):
        super().__init__()
        self.repeated = repeated
        self.network = network
        self.eval()
        self.points = []

    def forward(self, x):
        point = x.detach().clone()
        if self.repeated or not self.points or not torch.equal(self.points[-1], point):
            self.points.append(point)
        return self.network(x)


class LogOdds(torch.nn.Module):
    """nocebo's cross-entropy: the log-odds of the true class, negated. Same order and gradient direction."""

    def forward(self, logits, labels):
        others = logits.scatter(1, labels.unsqueeze(1), float("-inf"))
        return (others.logsumexp(1) - logits.gather(1, labels.unsqueeze(1)).squeeze(1)).sum()
