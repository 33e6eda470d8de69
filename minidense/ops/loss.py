"""Losses: class scores against labels, averaged over the batch."""

import numpy

from ..backend import array_module, device_of
from ..errors import DeviceError, DTypeError, ShapeError
from .base import Op


class SoftmaxCrossEntropy(Op):
    """L = −1/N · Σ_n log p[n, label_n],  p = softmax(logits);  dlogits = (p − one_hot(labels))/N · dL

    logits (N, classes) give one number (Bishop 2006, eqs. 4.108 and 4.109).
    log p is computed as (logits − c) − ln Σ e^(logits − c) with c = max, so logits of ±10⁴ are safe.
    """

    def __init__(self, labels):
        self.labels = labels  # (N,) integers

    def forward(self, logits):  # (N, classes)
        xp = array_module(logits, self.labels)
        shifted = logits - logits.max(1, keepdims=True)
        self.log_p = shifted - xp.log(xp.exp(shifted).sum(1, keepdims=True))
        n = xp.arange(len(self.labels))
        return -self.log_p[n, self.labels].mean()

    def backward(self, dy):
        p = array_module(dy).exp(self.log_p)
        n, classes = p.shape
        return ((p - one_hot(self.labels, classes, p.dtype)) * (dy / n),)


class SquaredHinge(Op):
    """L = 1/N · Σ_{n,k} max(0, 1 − t[n, k]·scores[n, k])²,  t = +1 for the label's class and −1 for the others

    scores (N, classes) give one number. The one-against-all L2-SVM of Deeply-Supervised Nets (Lee et al. 2015; Tang 2013).
    """

    def __init__(self, labels):
        self.labels = labels  # (N,) integers

    def forward(self, scores):  # (N, classes)
        xp = array_module(scores, self.labels)
        self.t = 2 * one_hot(self.labels, scores.shape[1], scores.dtype) - 1
        self.margin = xp.maximum(1 - self.t * scores, 0)
        return (self.margin * self.margin).sum() / len(scores)

    def backward(self, dy):
        return (-2 * self.t * self.margin * (dy / len(self.t)),)


def one_hot(labels, classes, dtype):
    """Row n holds a 1 in column labels[n] and zeros elsewhere: (N,) gives (N, classes)."""
    xp = array_module(labels)
    return (labels[:, None] == xp.arange(classes)).astype(dtype)


def check_labels(name, scores, labels):
    """One integer label a row of scores, each naming a column. The range of labels on the GPU is not looked at."""
    if scores.ndim != 2 or len(scores) == 0 or labels.shape != scores.shape[:1]:
        raise ShapeError(
            f"{name}: needs scores (N, classes) and labels (N,) with N ≥ 1; got {scores.shape} and {labels.shape}"
        )
    if labels.dtype.kind not in "iu":
        raise DTypeError(f"{name}: labels are class numbers and must be integers, got {labels.dtype}")
    if device_of(labels) != scores.device:
        raise DeviceError(
            f"{name}: labels {labels.shape} on the {device_of(labels)}, scores {scores.shape} on the {scores.device}. "
            "Move one side: backend.to_device(labels, 'gpu') or scores.to('cpu')"
        )
    if array_module(labels) is numpy and not 0 <= labels.min() <= labels.max() < scores.shape[1]:
        raise ShapeError(f"{name}: labels must lie in 0 … {scores.shape[1] - 1}, got {labels.min()} … {labels.max()}")
