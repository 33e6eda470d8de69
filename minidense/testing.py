"""check_gradients: is this backward the derivative of this forward?"""

from collections.abc import Callable

import numpy

from .backend import to_device, to_numpy
from .errors import KinkError
from .tensor import Tensor, no_grad


def check_gradients(
    fn: Callable[..., Tensor], *inputs, seed: int = 0, step: float = 1e-6, rtol: float = 1e-6, device: str = "cpu"
) -> None:
    """Compare fn's backward with finite differences of its forward, along one random direction for each input.

    fn        takes as many Tensors as there are inputs, returns one Tensor, and gives the same result when called again
    inputs    arrays of about unit size; the check always runs in float64
    seed      of the random dy and the random directions
    step      how far to go along a direction
    rtol      allowed difference, relative to the sum of the absolute terms on either side
    device    'cpu' or 'gpu'

    For random dy and v, ⟨dy, J·v⟩ must equal ⟨Jᵀ·dy, v⟩: the left side is two forward passes (a central difference),
    the right side is backward. dy is random on purpose: with dy = 1 batch norm and softmax have gradient zero, and
    every mistake that keeps it zero would pass. Rounding is allowed for on top of rtol.

    Raises AssertionError when the two sides differ or an input got no gradient, and KinkError when there is nothing to
    compare with: fn has no derivative at this point (ReLU at 0, a tie in max). Move the inputs a little then.
    """
    rng = numpy.random.default_rng(seed)
    xs = [Tensor(numpy.array(x, numpy.float64), requires_grad=True, device=device) for x in inputs]
    y = fn(*xs)
    dy = rng.standard_normal(y.shape)
    y.backward(to_device(dy, device))
    here = to_numpy(y.data)
    rounding = 16 * numpy.finfo(numpy.float64).eps * (1 + abs(here).max(initial=0)) / step  # of one difference quotient
    for i, x in enumerate(xs):
        if x.grad is None:
            raise AssertionError(f"gradient of input {i} {x.shape}: backward gave none")
        v, start = rng.standard_normal(x.shape), x.data

        def at(steps, x=x, v=v, start=start):
            """fn with x moved that many steps along v."""
            with no_grad():
                x.data = start + to_device(steps * step * v, device)
                y = fn(*xs)
                x.data = start
            return to_numpy(y.data)

        ahead, behind = at(1), at(-1)
        slopes = (ahead - behind) / (2 * step)
        # The second difference of a smooth function grows fourfold over twice the distance, across a kink only twofold.
        bend, wide_bend = ahead - 2 * here + behind, at(2) - 2 * here + at(-2)
        jumps = abs(wide_bend - 4 * bend) / (2 * step)
        if jumps.max(initial=0) > rtol * abs(slopes).max(initial=0) + rounding:
            raise KinkError(
                f"check_gradients: along input {i} {x.shape} the slope jumps by {jumps.max():.3g} within {2 * step:.0e} of this point: "
                f"a kink, where no derivative exists. Move the inputs, or take another seed (now {seed})"
            )
        gradient = to_numpy(x.grad)
        numeric, exact = numpy.vdot(dy, slopes), numpy.vdot(gradient, v)
        allowed = rtol * max(abs(dy * slopes).sum(), abs(gradient * v).sum()) + rounding * abs(dy).sum()
        if not abs(numeric - exact) <= allowed:
            raise AssertionError(
                f"gradient of input {i} {x.shape}: backward says {exact:.9g}, finite differences say {numeric:.9g} "
                f"(allowed difference {allowed:.2g}, seed {seed})"
            )
