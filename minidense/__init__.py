"""minidense: deep learning from first principles, the whole DenseNet story in one small package."""

from . import data, functional, models, nn, optim, schedule, testing
from .backend import array_module
from .errors import (
    CheckpointError,
    ConfigError,
    DataError,
    DeviceError,
    DivergenceError,
    DTypeError,
    GraphError,
    KinkError,
    MinidenseError,
    ShapeError,
)
from .tensor import Tensor, no_grad
from .version import __version__
from .weights import load_weights

from . import fast  # isort: skip  # noqa: F401  the twins register themselves with the definitions above

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DTypeError",
    "DataError",
    "DeviceError",
    "DivergenceError",
    "GraphError",
    "KinkError",
    "MinidenseError",
    "ShapeError",
    "Tensor",
    "__version__",
    "array_module",
    "data",
    "functional",
    "load_weights",
    "models",
    "nn",
    "no_grad",
    "optim",
    "schedule",
    "testing",
]
