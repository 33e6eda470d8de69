"""Module: parameters, buffers and modules found among the attributes *are* the model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy

from ..backend import device_of, to_device, to_numpy
from ..errors import CheckpointError, ConfigError
from ..tensor import Tensor, check_float


class Parameter(Tensor):
    """A leaf the optimiser may change. Set ``requires_grad = False`` to freeze it."""

    __slots__ = ()

    def __init__(self, data, *, dtype=None):
        super().__init__(data, dtype=dtype, requires_grad=True)


class Buffer:
    """An array that is saved with the model but never trained, such as a running mean."""

    def __init__(self, data):
        self.data = data


class Module:
    """Parameters, buffers and modules found among the attributes, in the order they were assigned, are the model.

    Subclasses assign them in __init__ and write ``forward``. Attribute names become the names in ``state_dict``,
    joined by dots. There is nothing to call or to register. Modules in a list would have no names: put them in a Sequential,
    or give them attributes with setattr.
    """

    training = True
    on_output: Any = None  # called with each result while somebody watches, see watch_gradients

    def forward(self, x: Tensor) -> Tensor:
        raise ConfigError(f"{type(self).__name__} has no forward(); write one that takes Tensors and returns a Tensor")

    def __call__(self, *args, **kwargs):
        y = self.forward(*args, **kwargs)
        if self.on_output is not None:
            self.on_output(y)
        return y

    # -- what is in here -----------------------------------------------------------------------------------------

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules assigned to this one, in order. Raises ConfigError when some are hidden in a list."""
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value
            elif isinstance(value, list | tuple) and any(isinstance(item, Module | Parameter) for item in value):
                raise ConfigError(
                    f"{type(self).__name__}.{name} is a {type(value).__name__} of modules or parameters, which would be left out "
                    "of the model: use nn.Sequential(*modules), or setattr(self, name, module) for each"
                )

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module (its name is the prefix) and all below it, depth first."""
        yield prefix, self
        for name, child in self.named_children():
            yield from child.named_modules(f"{prefix}.{name}" if prefix else name)

    def modules(self) -> Iterator[Module]:
        return (module for _, module in self.named_modules())

    def named_arrays(self) -> Iterator[tuple[str, Any]]:
        """Every Parameter and Buffer with its full name, in the order of assignment."""
        for path, module in self.named_modules():
            for name, value in vars(module).items():
                if isinstance(value, Parameter | Buffer):
                    yield f"{path}.{name}" if path else name, value

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        return ((name, value) for name, value in self.named_arrays() if isinstance(value, Parameter))

    def parameters(self) -> list[Parameter]:
        return [parameter for _, parameter in self.named_parameters()]

    def parameter_count(self) -> int:
        """Learned numbers, frozen ones included; running statistics are not learned."""
        return sum(parameter.size for parameter in self.parameters())

    # -- modes and places ----------------------------------------------------------------------------------------

    def train(self, mode: bool = True):
        """Training mode for the whole tree: batch statistics, dropout on. Says nothing about recording. Returns self."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self):
        """Evaluation mode: running statistics, no dropout. Says nothing about recording (that is no_grad). Returns self."""
        return self.train(False)

    def to(self, device: str | None = None, *, dtype=None):
        """Move every array to a device, or convert the float ones to a type; gradients are dropped. Returns self.

        Raises DeviceError or DTypeError, and then nothing has moved.
        """
        if dtype is not None:
            check_float(numpy.dtype(dtype))
        moved = []
        for _, item in self.named_arrays():
            data = item.data if dtype is None or item.data.dtype.kind != "f" else item.data.astype(dtype)
            moved.append((item, data if device is None else to_device(data, device)))
        for item, data in moved:
            item.data = data
            if isinstance(item, Parameter):
                item.grad = None
        return self

    @property
    def dtype(self):
        """The float type of the parameters."""
        return next(self.named_parameters())[1].dtype

    @property
    def device(self) -> str:
        """'cpu' or 'gpu'."""
        return next(self.named_parameters())[1].device

    # -- weights in and out --------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, numpy.ndarray]:
        """Copies of all parameters and buffers as NumPy arrays, by name. Training on does not change them."""
        return {name: numpy.array(to_numpy(item.data)) for name, item in self.named_arrays()}

    def load_state_dict(self, state) -> None:
        """Copy arrays {name: array} into this model, converted to its float type and device.

        ``num_batches_tracked`` may be missing, as in old torchvision files.
        Raises CheckpointError that lists every array that does not fit, and then changes nothing.
        """
        mine = dict(self.named_arrays())
        arrays = {name: to_numpy(array.data if isinstance(array, Tensor) else array) for name, array in state.items()}
        arrays = {name: numpy.asarray(array) for name, array in arrays.items()}
        wrong = [f"missing     {k}" for k in mine if k not in arrays and not k.endswith("num_batches_tracked")]
        wrong += [f"unexpected  {k}" for k in arrays if k not in mine]
        for k in (k for k in mine if k in arrays):
            if mine[k].data.shape != arrays[k].shape:
                wrong.append(f"shape       {k}: the model has {mine[k].data.shape}, the file {arrays[k].shape}")
            elif arrays[k].dtype.kind not in "biuf":
                wrong.append(f"type        {k}: needs real numbers, the file has {arrays[k].dtype}")
        if wrong:
            raise CheckpointError("these weights do not fit this model:\n  " + "\n  ".join(wrong))
        for k, array in arrays.items():
            mine[k].data[...] = to_device(array.astype(mine[k].data.dtype), device_of(mine[k].data))


class Sequential(Module):
    """Modules one after another: ``Sequential(a, b)`` names them "0", "1"; ``Sequential(conv0=a, norm0=b)`` as written."""

    def __init__(self, *modules: Module, **named: Module):
        for name, module in [*((str(i), m) for i, m in enumerate(modules)), *named.items()]:
            setattr(self, name, module)

    def forward(self, x):
        for _, module in self.named_children():
            x = module(x)
        return x


@contextmanager
def watch_gradients(model: Module) -> Iterator[dict[str, Tensor]]:
    """Collect what each module returns in the forward pass, and keep its gradient: the raw material of gradient-flow pictures.

    Yields a dictionary {module name: its latest result}, filled during the forward pass. After backward() each
    result's ``.grad`` is dL/d(result).

        with watch_gradients(model) as seen:
            loss = F.cross_entropy(model(images), labels)
        loss.backward()
        flow = {name: abs(y.grad).mean() for name, y in seen.items()}
    """
    seen: dict[str, Tensor] = {}

    def watcher(name):
        def note(y):
            if isinstance(y, Tensor) and y.requires_grad:
                seen[name] = y.retain_grad()

        return note

    before = [(module, module.on_output) for module in model.modules()]
    for name, module in model.named_modules():
        module.on_output = watcher(name)
    try:
        yield seen
    finally:
        for module, on_output in before:
            module.on_output = on_output
