"""Op: one recorded step of a computation."""

from typing import Any

from ..errors import GraphError


class Op:
    """One step of a computation, on arrays. Subclasses write two methods:

        forward(x, ...) -> y           keep on self what backward will need, under its mathematical name
        backward(dy) -> (dx, ...)      one gradient per input, each shaped like its input; None where not self.wants(i)

    Options go to __init__. An Op is used once: it belongs to the result it made and dies with it.
    No Op changes anything outside itself, so running one twice is harmless.
    An Op works on bare arrays too, without any graph: ``op = ReLU(); y = op.forward(x); (dx,) = op.backward(dy)``.
    """

    inputs: tuple = ()  # the Tensors it was applied to, set by tensor.apply
    step: int = -1  # its age: the n-th Op that was recorded
    fresh: bool = False  # are its gradients new arrays that nobody else holds? Then a leaf may keep them as they are
    result: Any = None  # a weak reference to the Tensor it made, where somebody watches that gradient

    def forward(self, *arrays: Any) -> Any:
        raise GraphError(f"{self!r} has no forward(); an Op needs forward and backward")

    def backward(self, dy: Any) -> tuple:
        raise GraphError(f"{self!r} has no backward(); an Op needs forward and backward")

    def wants(self, i):
        """Does anybody need the gradient of input i? The first layer's images, for one, do not."""
        return not self.inputs or self.inputs[i].requires_grad

    def forget(self):
        """Free everything forward kept. What stays says that this step was walked."""
        self.__dict__ = {"step": self.step}

    def __repr__(self):
        return type(self).__name__
