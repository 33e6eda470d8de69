"""Everything minidense raises on purpose.

MinidenseError
  ├─ ShapeError        arrays that do not fit together          (also a ValueError)
  ├─ DTypeError        arrays of different or unusable types    (also a TypeError)
  ├─ DeviceError       a device that is missing, or two mixed   (also a ValueError)
  ├─ GraphError        backward() without a usable graph        (also a RuntimeError)
  ├─ CheckpointError   saved arrays that do not fit             (also a ValueError)
  ├─ ConfigError       settings that contradict each other      (also a ValueError)
  ├─ DataError         a data set that is missing or damaged    (also a ValueError)
  ├─ DivergenceError   a loss that is no longer a number        (also an ArithmeticError)
  └─ KinkError         a point where no derivative exists       (also an ArithmeticError)
"""


class MinidenseError(Exception):
    """Base of every error that minidense raises on purpose."""


class ShapeError(MinidenseError, ValueError):
    """Arrays that do not fit together."""


class DTypeError(MinidenseError, TypeError):
    """Arrays of different types, or of a type that cannot be computed with."""


class DeviceError(MinidenseError, ValueError):
    """A device that is not available, or arrays on two devices at once."""


class GraphError(MinidenseError, RuntimeError):
    """backward() without a usable graph."""


class CheckpointError(MinidenseError, ValueError):
    """Saved arrays that do not fit the model, or a file that cannot be read."""


class ConfigError(MinidenseError, ValueError):
    """Settings that make no sense, alone or together."""


class DataError(MinidenseError, ValueError):
    """A data set that is missing, damaged or not what it says."""


class DivergenceError(MinidenseError, ArithmeticError):
    """Training whose loss is no longer a finite number."""


class KinkError(MinidenseError, ArithmeticError):
    """A point where a function has no derivative, so that there is nothing to check a gradient against."""
