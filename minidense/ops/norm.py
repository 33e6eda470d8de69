"""Batch normalisation. Pure: running statistics belong to whoever calls, so running an op twice never counts a batch twice."""

from ..backend import array_module
from ..errors import ShapeError
from .base import Op


class BatchNorm(Op):
    """y = γ·x̂ + β,  x̂ = (x − mean)/√(var + ε)   (Ioffe & Szegedy 2015, Algorithm 1)

    Shapes (N, C, H, W), (C,), (C,) give (N, C, H, W). mean and var are this batch's own, per channel over N, H, W,
    the variance biased (divided by m = N·H·W); after forward they stand on the op for whoever keeps running statistics.
    """

    def __init__(self, eps=1e-5):
        self.eps = eps

    def forward(self, x, gamma, beta):
        xp = array_module(x, gamma, beta)
        check_shapes(x, gamma, beta)
        self.m = x.size // x.shape[1]  # values per channel
        refuse_single_value(x)
        self.mean = channel_sum(x) / self.m
        centred = x - per_channel(self.mean)
        self.var = channel_dot(centred, centred) / self.m
        self.inv_std = 1 / xp.sqrt(self.var + self.eps)
        self.x_hat = xp.multiply(centred, per_channel(self.inv_std), out=centred)
        self.gamma = gamma
        return per_channel(gamma) * self.x_hat + per_channel(beta)

    def backward(self, dy):
        dbeta, dgamma = channel_sum(dy), channel_dot(dy, self.x_hat)
        # Normalising removed the mean and the part along x̂; the gradient loses the same two parts.
        lost = self.x_hat * per_channel(dgamma / self.m) + per_channel(dbeta / self.m)
        return per_channel(self.gamma * self.inv_std) * (dy - lost), dgamma, dbeta


def refuse_single_value(x):
    """A batch's own variance takes two values a channel."""
    m = x.size // x.shape[1]
    if m < 2:
        raise ShapeError(
            f"batch_norm: x of shape {x.shape} has {m} value a channel and therefore no variance; "
            "train with more images in a batch, or normalise with running statistics: model.eval()"
        )


def track(running_mean, running_var, mean, var, *, m, momentum):
    """Move running statistics, in place, towards those of a batch with m values a channel."""
    # running_var estimates the population, hence m/(m − 1); the batch itself is divided by m.
    for running, batch in ((running_mean, mean), (running_var, var * (m / (m - 1)))):
        running *= 1 - momentum
        running += (momentum * batch).astype(running.dtype, copy=False)


def per_channel(v):
    """(C,) -> (C, 1, 1), which broadcasts over (N, C, H, W)."""
    return v[:, None, None]


def channel_sum(x):
    """Σ over N, H, W: (N, C, H, W) -> (C,)."""
    return x.sum((2, 3)).sum(0)  # within an image first: the long contiguous rows are where NumPy sums pairwise


def channel_dot(a, b):
    """Σ a·b over N, H, W, without writing the products down: (N, C, H, W), (N, C, H, W) -> (C,)."""
    n, c = a.shape[:2]
    rows, columns = a.reshape(n, c, 1, -1), b.reshape(n, c, -1, 1)
    return (rows @ columns).reshape(n, c).sum(0)


def check_shapes(x, *per_channel_arrays):
    """x must hold images, everything else one number a channel."""
    if x.ndim != 4 or any(v.shape != x.shape[1:2] for v in per_channel_arrays):
        shapes = ", ".join(str(tuple(v.shape)) for v in per_channel_arrays)
        raise ShapeError(
            f"batch_norm: needs x (N, C, H, W) and gamma, beta and statistics (C,); got {tuple(x.shape)} and {shapes}"
        )
