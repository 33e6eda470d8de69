"""Optimisers: how a gradient becomes a step."""

import math
from collections.abc import Callable, Iterable
from typing import Any

from .backend import array_module, device_of
from .errors import ConfigError, DeviceError, GraphError, ShapeError
from .speed import reference
from .tensor import Tensor


class SGD:
    """Stochastic gradient descent with momentum and weight decay, as Torch defines it (Sutskever et al. 2013 for Nesterov).

        g ← dw + weight_decay·w
        v ← momentum·v + (1 − dampening)·g        (v ← g on the first step)
        w ← w − lr·(g + momentum·v)  with Nesterov,  w − lr·v  without

    params        tensors, or dictionaries {"params": tensors, "weight_decay": 0.0, ...} with settings of their own
    lr            learning rate
    momentum      share of the old velocity that is kept, 0 to 1
    dampening     must be 0 with Nesterov
    weight_decay  applied to everything in the group, batch norm and biases included, as the DenseNet authors do
    coast         a parameter without a gradient goes on by momentum and weight decay, as with a gradient of 0; otherwise it stays.
                  Torch7 and Caffe, where all gradients lie in one row of numbers, coast: it matters for blocks that are left out

    lr_scale      of a group: its rate as a share of everybody's, which ``set_lr`` keeps to (Caffe's lr_mult)

    ``groups`` is a list of plain dictionaries; a schedule calls ``set_lr``, or sets ``group["lr"]``.
    Raises ConfigError for settings that make no sense.
    """

    def __init__(
        self,
        params: Iterable,
        *,
        lr: float,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        dampening: float = 0.0,
        coast: bool = False,
    ):
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "nesterov": nesterov,
            "weight_decay": weight_decay,
            "dampening": dampening,
            "coast": coast,
        }
        if not isinstance(params, Iterable):
            raise ConfigError(f"SGD: needs parameters, got a {type(params).__name__}; pass model.parameters()")
        params = list(params)
        groups = params if params and all(isinstance(p, dict) for p in params) else [{"params": params}]
        if any("params" not in group for group in groups):
            raise ConfigError('SGD: a parameter group without "params"')
        self.groups = [{**defaults, "lr_scale": 1.0, **group, "params": list(group["params"])} for group in groups]
        self.velocity: dict[Tensor, Any] = {}
        for group, given in zip(self.groups, groups, strict=True):
            _check_group(group)
            if "lr" not in given:
                group["lr"] *= group["lr_scale"]
        everything = [p for group in self.groups for p in group["params"]]
        if not everything:
            raise ConfigError("SGD: no parameters to optimise")
        if len(set(everything)) != len(everything):
            raise ConfigError("SGD: a parameter appears twice; it would be stepped twice")

    def set_lr(self, lr: float) -> None:
        """The learning rate of the moment, for every group in its share."""
        for group in self.groups:
            group["lr"] = lr * group["lr_scale"]

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for group in self.groups:
            for w in group["params"]:
                w.grad = None

    def step(self, *, in_place: bool = False) -> None:
        """Move every parameter that has a gradient; the others stay, velocity and all, unless their group coasts.

        All new values are computed before the first is put in place: whatever fails, no parameter is left half-updated.
        They are new arrays, so a graph recorded before the step still differentiates at the old values.

        in_place  write over the arrays of parameters and velocities instead, for who knows them by address

        Raises ShapeError when a gradient does not fit its parameter, GraphError when no parameter has one, DeviceError when the
        model has moved since the last step.
        """
        if all(w.grad is None for group in self.groups for w in group["params"]):
            raise GraphError("SGD.step(): no parameter has a gradient; call loss.backward() first")
        moving = [
            (group, [w for w in group["params"] if w.grad is not None or (group["coast"] and w.requires_grad)])
            for group in self.groups
        ]
        moving = [(group, params) for group, params in moving if params]
        for w in (w for _, params in moving for w in params if w.grad is not None):
            if w.grad.shape != w.shape or w.grad.dtype != w.dtype:
                raise ShapeError(
                    f"SGD.step(): gradient {w.grad.shape} {w.grad.dtype} does not fit its parameter {w.shape} {w.dtype}"
                )
            array_module(w.data, w.grad)  # DeviceError when they are on two devices
        for w in (w for _, params in moving for w in params):
            v = self.velocity.get(w)
            if v is not None and device_of(v) != w.device:
                raise DeviceError(
                    f"SGD.step(): a parameter {w.shape} is on the {w.device}, its velocity on the {device_of(v)}: the model has moved. "
                    "Make a new optimiser, or move velocities: optimizer.velocity[w] = to_device(...)"
                )
        updates = [(params, *self._moved(params, group, in_place=in_place)) for group, params in moving]
        for params, weights, velocities in updates:
            for w, value, v in zip(params, weights, velocities, strict=True):
                w.data = value
                if v is not None:
                    self.velocity[w] = v

    def _moved(self, params, group, *, in_place):
        """New values and velocities of parameters with common settings."""
        settings = {key: group[key] for key in ("lr", "momentum", "dampening", "weight_decay", "nesterov")}
        gradients = [array_module(w.data).zeros_like(w.data) if w.grad is None else w.grad for w in params]
        velocities = [self.velocity.get(w) for w in params]
        return moved([w.data for w in params], gradients, velocities, **settings, in_place=in_place)


@reference
def moved(
    weights: list,
    gradients: list,
    velocities: list,
    *,
    lr,
    momentum: float,
    dampening: float,
    weight_decay: float,
    nesterov: bool,
    in_place: bool = False,
) -> tuple[list, list]:
    """One step of SGD on arrays: new (weights, velocities), as SGD defines them.

    velocities  None for a weight that has none yet; the new ones are None without momentum
    lr          a number, or an array of one
    in_place    put the results into the arrays that are there
    """
    settings = {
        "lr": lr,
        "momentum": momentum,
        "dampening": dampening,
        "weight_decay": weight_decay,
        "nesterov": nesterov,
    }
    new = [_update(w, dw, v, **settings) for w, dw, v in zip(weights, gradients, velocities, strict=True)]
    if in_place:
        new = [(_put(w, old_w), _put(v, old_v)) for (w, v), old_w, old_v in zip(new, weights, velocities, strict=True)]
    return [w for w, _ in new], [v for _, v in new]


def _update(w, dw, v, *, lr, momentum, dampening, weight_decay, nesterov):
    """The new weight and velocity of one parameter."""
    g = dw + weight_decay * w if weight_decay else dw
    if not momentum:
        return w - lr * g, None
    v = g.copy() if v is None else momentum * v + (1 - dampening) * g
    return w - lr * (g + momentum * v if nesterov else v), v


def _put(new, old):
    """new in the place of old, where there is one."""
    if new is None or old is None:
        return new
    old[...] = new
    return old


def parameter_groups(
    named_parameters: Iterable[tuple[str, Tensor]], settings: Callable[[str, Tensor], dict[str, Any]]
) -> list[dict[str, Any]]:
    """Groups for an optimiser: parameters whose (name, parameter) -> settings are equal are together, in their order."""
    groups: dict[tuple, dict[str, Any]] = {}
    for name, w in named_parameters:
        wanted = settings(name, w)
        groups.setdefault(tuple(wanted.items()), {**wanted, "params": []})["params"].append(w)
    return list(groups.values())


def _check_group(group):
    known = {"params", "lr", "momentum", "nesterov", "weight_decay", "dampening", "coast", "lr_scale"}
    if unknown := sorted(group.keys() - known):
        raise ConfigError(f"SGD: unknown settings {unknown} in a parameter group; known are {sorted(known)}")
    if not all(isinstance(p, Tensor) for p in group["params"]):
        raise ConfigError(
            "SGD: parameters must be tensors; pass model.parameters(), or a list of {'params': [...]} dictionaries"
        )
    if not 0 <= group["lr"] < math.inf:
        raise ConfigError(f"SGD: the learning rate must be a number and not be negative, got {group['lr']}")
    if not 0 <= group["lr_scale"] < math.inf:
        raise ConfigError(f"SGD: lr_scale must be a number and not be negative, got {group['lr_scale']}")
    if not 0 <= group["momentum"] < 1:
        raise ConfigError(f"SGD: momentum must lie in [0, 1), got {group['momentum']}")
    if not group["weight_decay"] >= 0:
        raise ConfigError(f"SGD: weight decay must not be negative, got {group['weight_decay']}")
    if group["nesterov"] and (group["momentum"] == 0 or group["dampening"] != 0):
        raise ConfigError("SGD: Nesterov needs a momentum above 0 and dampening 0")
