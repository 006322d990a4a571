"""Fits what makes scores of cosines: a softmax's temperature, and the sigmoid of a label alone.

Both are fitted over all checkpoints together, so that one constant serves any. A score is then no more than the data
and the checkpoints that it was fitted on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Cosines = NDArray[np.float64]

TEMPERATURES = np.geomspace(0.01, 1.0, 401)
STEPS = 200
"""Newton's steps of the sigmoid; it stands still long before."""


@dataclass(frozen=True)
class Sigmoid:
    """A label's score by itself: 1 / (1 + exp(-slope * (cosine - middle)))."""

    middle: float
    slope: float


def accuracy(cosines: Cosines, right: Sequence[int]) -> float:
    """The share of texts (rows) whose own label (column) is nearest."""
    return float((cosines.argmax(axis=1) == np.asarray(right)).mean())


def loss(cosines: Cosines, right: Sequence[int], temperature: float) -> float:
    """The mean negative logarithm of what a softmax gives the right label."""
    logits = cosines / temperature
    logits = logits - logits.max(axis=1, keepdims=True)
    return float((np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(logits)), list(right)]).mean())


def off(cosines: Cosines, right: Sequence[int], temperature: float, bins: int = 10) -> float:
    """The expected calibration error: how far the best label's score is from how often it is right, on average."""
    logits = cosines / temperature
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    best = (shares / shares.sum(axis=1, keepdims=True)).max(axis=1)
    hit = cosines.argmax(axis=1) == np.asarray(right)
    places = np.minimum((best * bins).astype(int), bins - 1)
    return float(sum(abs(best[places == at].sum() - hit[places == at].sum()) for at in range(bins)) / len(best))


def temperature_of(measured: Sequence[Cosines], right: Sequence[int]) -> float:
    """The temperature with the least loss over all checkpoints together."""
    losses = [sum(loss(one, right, temperature) for one in measured) for temperature in TEMPERATURES]
    return float(TEMPERATURES[int(np.argmin(losses))])


def sigmoid_of(measured: Sequence[Cosines], right: Sequence[int]) -> Sigmoid:
    """The logistic regression of whether a label is the text's, right and wrong ones counting the same together."""
    cosines = np.concatenate([one.ravel() for one in measured])
    truth = np.concatenate([(np.arange(one.shape[1]) == np.asarray(right)[:, None]).ravel() for one in measured])
    weights = np.where(truth, 0.5 / truth.mean(), 0.5 / (1 - truth.mean()))
    features = np.stack([np.ones_like(cosines), cosines], axis=1)
    found = np.zeros(2)
    for _ in range(STEPS):
        said = 1 / (1 + np.exp(-features @ found))
        slope = features.T @ (weights * (truth - said))
        curve = (features * (weights * said * (1 - said))[:, None]).T @ features
        found = found + np.linalg.solve(curve, slope)
    return Sigmoid(middle=float(-found[0] / found[1]), slope=float(found[1]))
