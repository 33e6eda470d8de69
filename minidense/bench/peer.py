"""PyTorch does the same work: a traced model, step by step, in its own eager functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy

from ..errors import ConfigError
from .trace import BATCH, WORKING, Trace

TOLERANCE = 1e-3  # of the largest logit: float32, in another order, through up to 250 layers
# Nobody needs these results again for their own gradient, so a ReLU may write over them.
MAY_BE_OVERWRITTEN = {"Conv2d", "BatchNorm", "Linear", "Add"}


class Peer:
    """The traced model in PyTorch, with the same numbers. It takes the trace's arrays over, so that none is in memory twice.

    channels_last  lay images and filters out with their channels innermost
    device         'cpu' or 'cuda'
    precision      on the GPU, as in minidense.precision: float32, tf32, or mixed, which is autocast to bfloat16
    compiled       through torch.compile

    Raises ConfigError for a step that has no counterpart here.
    """

    def __init__(
        self,
        trace: Trace,
        *,
        channels_last: bool = False,
        device: str = "cpu",
        precision: str = "float32",
        compiled: bool = False,
    ):
        import torch

        self.torch, self.trace, self.channels_last = torch, trace, channels_last
        self.device, self.mixed = device, precision == "mixed"
        if device == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision != "float32"
            torch.backends.cudnn.benchmark = True
        self.values: dict[str, Any] = {}
        for name in [name for name in trace.arrays if name.split()[0] in (*WORKING, "mask")]:
            value = self.tensor(trace.arrays.pop(name))
            self.values[name] = torch.nn.Parameter(value) if name.startswith("parameter") else value
        self.parameters = [value for name, value in self.values.items() if name.startswith("parameter")]
        self.training = True
        self.fixed_masks = False
        self.steps = self.runnable()
        self.network: Callable[[Any], Any] = torch.compile(self.forward) if compiled else self.forward

    @cached_property
    def optimizer(self):
        """Made when training begins: who only evaluates shall not pay for what PyTorch loads for it."""
        settings = {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-4}
        return self.torch.optim.SGD(self.parameters, **settings, fused=self.device == "cuda" or None)

    def tensor(self, array: numpy.ndarray):
        """An array as a tensor: the same memory, but for a copy where an image or a filter needs this contender's layout."""
        same = self.torch.from_numpy(array).to(self.device)
        return (
            same.contiguous(memory_format=self.torch.channels_last) if self.channels_last and same.ndim == 4 else same
        )

    def runnable(self) -> list[tuple[Callable, list[str], str, list[str]]]:
        """(function, inputs, output, what is not needed after it) for each step."""
        uses = Counter(name for step in self.trace.steps for name in step.inputs)
        made_by = {step.output: step.op for step in self.trace.steps}
        seen: set[str] = set()
        steps: list[tuple[Callable, list[str], str, list[str]]] = []
        for step in reversed(self.trace.steps):
            if step.op not in COUNTERPARTS:
                raise ConfigError(
                    f"bench: {step.op} has no counterpart in PyTorch yet; give it one in minidense/bench/peer.py, or leave out --against"
                )
            o = dict(step.options)
            if step.op == "ReLU":
                o["inplace"] = uses[step.inputs[0]] == 1 and made_by.get(step.inputs[0]) in MAY_BE_OVERWRITTEN
            if step.op == "Dropout":
                o["mask"] = f"mask of {step.output}"
            last_used = [name for name in dict.fromkeys(step.inputs) if name.startswith("value") and name not in seen]
            seen.update(step.inputs)
            steps.append((COUNTERPARTS[step.op](self, o), step.inputs, step.output, last_used))
        return steps[::-1]

    def forward(self, images):
        """Logits of a batch, in training or evaluation mode as ``self.training`` says."""
        values = {**self.values, "images": images}
        output = "images"
        for run, inputs, output, last_used in self.steps:
            values[output] = run(*[values[name] for name in inputs])
            for name in last_used:
                del values[name]
        return values[output]

    def train_step(self, images, labels):
        """Forward, loss, backward, SGD with Nesterov momentum; returns the loss, which on a GPU nobody has waited for."""
        self.training = True
        with self.reduced():
            loss = self.torch.nn.functional.cross_entropy(self.network(images), labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def reduced(self):
        """Inside, products take bfloat16 where that was asked for."""
        return self.torch.autocast(self.device, self.torch.bfloat16, enabled=self.mixed)

    def eval_step(self, images):
        """Logits in evaluation mode, nothing recorded."""
        self.training = False
        with self.torch.inference_mode(), self.reduced():
            return self.network(images)

    def check(self) -> None:
        """Is it the same model? Its running statistics see the traced batch, as the model's own did.

        Raises ConfigError when logits differ, in training or in evaluation, or the number of parameters does.
        """
        count = sum(parameter.numel() for parameter in self.parameters)
        used = {name for step in self.trace.steps for name in step.inputs}
        used_count = sum(v.numel() for name, v in self.values.items() if name.startswith("parameter") and name in used)
        if not count == used_count == self.trace.parameter_count:
            raise ConfigError(
                f"bench: PyTorch would use {used_count:,} parameters, the model has {self.trace.parameter_count:,}; not the same work"
            )
        images, self.fixed_masks = self.tensor(self.trace.images), True
        self.training = True
        with self.torch.no_grad():
            logits = self.forward(images)
        self.fixed_masks = False
        for mode, ours, theirs in (
            ("training", self.trace.logits, logits),
            ("evaluation", self.trace.eval_logits, self.eval_step(images)),
        ):
            error = abs(theirs.float().cpu().numpy() - ours).max() / abs(ours).max()
            if not error <= TOLERANCE:
                raise ConfigError(
                    f"bench: on {BATCH} images in {mode}, PyTorch's logits differ from ours by {error:.1e} of the largest; "
                    "not the same work"
                )


def conv2d(peer, o):
    return lambda x, weight, bias=None: peer.torch.conv2d(x, weight, bias, o["stride"], o["padding"])


def batch_norm(peer, o):
    if o["number"] is None:
        raise ConfigError("bench: a batch norm without running statistics has no evaluation mode to compare")
    mean, var = peer.values[f"mean {o['number']}"], peer.values[f"var {o['number']}"]
    norm, momentum, eps = peer.torch.nn.functional.batch_norm, o["momentum"], o["eps"]
    return lambda x, gamma, beta: norm(x, mean, var, gamma, beta, peer.training, momentum, eps)


def relu(peer, o):
    return peer.torch.relu_ if o["inplace"] else peer.torch.relu


def concat(peer, o):
    """One part alone is itself: nobody would copy it."""
    return lambda *xs: peer.torch.cat(xs, 1) if len(xs) > 1 else xs[0]


def max_pool2d(peer, o):
    pool = peer.torch.nn.functional.max_pool2d
    return lambda x: pool(x, o["kernel"], o["stride"], o["padding"], ceil_mode=o["ceil_mode"])


def avg_pool2d(peer, o):
    pool = peer.torch.nn.functional.avg_pool2d
    return lambda x: pool(x, o["kernel"], o["stride"], o["padding"])


def reshape(peer, o):
    images, shape = o["images"], o["shape"]
    if images is None:
        return lambda x: x.reshape(shape)
    # The images keep apart along the first axis, whatever their number, so the rest of the shape says it all.
    return lambda x: x.reshape(-1, *shape[1:])


def getitem(peer, o):
    index = tuple(slice(*i["slice"]) if isinstance(i, dict) else Ellipsis if i == "..." else i for i in o["index"])
    return lambda x: x[index]


def pad(peer, o):
    widths = [width for pair in reversed(o["widths"]) for width in pair]  # PyTorch begins with the last axis
    return lambda x: peer.torch.nn.functional.pad(x, widths)


def dropout(peer, o):
    def run(x):
        if peer.training and peer.fixed_masks:
            return x * peer.values[o["mask"]]
        return peer.torch.nn.functional.dropout(x, o["p"], peer.training)

    return run


COUNTERPARTS: dict[str, Callable[[Peer, dict[str, Any]], Callable]] = {
    "Add": lambda peer, o: peer.torch.add,
    "AsType": lambda peer, o: lambda x: x.to(getattr(peer.torch, o["dtype"])),
    "AvgPool2d": avg_pool2d,
    "BatchNorm": batch_norm,
    "Concat": concat,
    "Conv2d": conv2d,
    "Dropout": dropout,
    "GetItem": getitem,
    "GlobalAvgPool2d": lambda peer, o: lambda x: x.mean((2, 3)),
    "Linear": lambda peer, o: peer.torch.nn.functional.linear,
    "MaxPool2d": max_pool2d,
    "Mul": lambda peer, o: peer.torch.mul,
    "Pad": pad,
    "ReLU": relu,
    "Reshape": reshape,
    "Sub": lambda peer, o: peer.torch.sub,
    "Transpose": lambda peer, o: lambda x: x.permute(o["axes"]),
}
