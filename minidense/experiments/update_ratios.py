"""How far each step of training moves the weights, in parts of their size: what ``plots.update_ratios`` draws."""

from __future__ import annotations

import numpy

from ..backend import to_numpy
from ..errors import ConfigError
from ..nn import Module
from ..optim import SGD
from .perceptrons import norm


class UpdateRatios:
    """Collects ‖w_t − w_{t−1}‖/‖w_{t−1}‖ of each parameter while a model is trained.

        watch = UpdateRatios(model)
        train(model, optimizer, dataset, ..., after_step=watch)
        plots.update_ratios(watch.ratios, steps=watch.steps)

    model   before its first step
    every   of so many steps one is noted down
    biases  those too, and γ and β; otherwise weights of two and more dimensions only

    ratios  {parameter name: one value for each of steps}; None where the parameter was 0 altogether, as biases are at first
    steps   counted from 1
    """

    def __init__(self, model: Module, *, every: int = 1, biases: bool = False):
        if every < 1:
            raise ConfigError(f"UpdateRatios: every must be at least 1, got {every}")
        self.every, self.step = every, 0
        self.parameters = {name: w for name, w in model.named_parameters() if biases or w.ndim > 1}
        self.ratios: dict[str, list[float | None]] = {name: [] for name in self.parameters}
        self.steps: list[int] = []
        self._look()

    def __call__(self, model: Module | None = None, optimizer: SGD | None = None) -> None:
        """After a step: ``train`` passes the model and its optimiser, which are not needed."""
        self.step += 1
        if self.step % self.every == 0:
            self.steps.append(self.step)
            for name, w in self.parameters.items():
                size = norm(self._before[name])
                self.ratios[name].append(norm(to_numpy(w.data) - self._before[name]) / size if size else None)
        if (self.step + 1) % self.every == 0:
            self._look()

    def _look(self) -> None:
        # Copies: some optimisers write over the arrays.
        self._before = {name: numpy.array(to_numpy(w.data)) for name, w in self.parameters.items()}
