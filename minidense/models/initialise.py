"""Initial weights, one function for each code base that the networks come from: (model, rng) -> None, in place.

n = K·K·C_out is the fan-out of a convolution, m = K·K·C_in its fan-in. Biases become 0 and γ stays 1 where nothing else is said.
The distributions, with their papers, are in nn/init.py.
"""

from collections.abc import Callable
from functools import partial

import numpy

from ..nn import BatchNorm2d, Conv2d, Linear, Module, init

Draw = Callable[..., numpy.ndarray]  # (rng, shape) -> values


def draw(
    model: Module,
    rng: numpy.random.Generator,
    *,
    conv: Draw,
    linear: Draw,
    gamma: Draw | None = None,
    linear_bias: bool = False,
) -> None:
    """Go through the model in order and draw what each layer starts with.

    linear_bias  linear layers have Torch's default bias, U(±1/√in), instead of 0
    """
    for module in model.modules():
        if isinstance(module, BatchNorm2d) and gamma is not None:
            module.weight.data[...] = gamma(rng, module.weight.shape)
        elif isinstance(module, Conv2d | Linear):
            weight, bias = module.weight, module.bias
            weight.data[...] = (conv if isinstance(module, Conv2d) else linear)(rng, weight.shape)
            if bias is not None and isinstance(module, Linear) and linear_bias:
                bias.data[...] = init.torch_default(rng, bias.shape, fan_in_of=weight.shape)
            elif bias is not None:
                bias.data[...] = 0


def like_fb_resnet(model: Module, rng: numpy.random.Generator) -> None:
    """fb.resnet.torch, and after it the DenseNet and pre-activation authors: convolutions N(0, √(2/n)), linear U(±1/√in).

    The DenseNet paper cites He et al. 2015 without saying which fan; the code counts outputs. The linear weight is Torch's default.
    """
    draw(model, rng, conv=partial(init.he_normal, fan="out"), linear=init.torch_default)


def like_wide_resnet(model: Module, rng: numpy.random.Generator) -> None:
    """szagoruyko/wide-residual-networks: convolutions N(0, √(2/m)), γ ~ U(0, 1), linear U(±1/√in).

    γ is what Torch7's nn.BatchNormalization starts with; the authors never set it again.
    """
    draw(model, rng, conv=init.he_normal, linear=init.torch_default, gamma=init.uniform)


def like_stochastic_depth(model: Module, rng: numpy.random.Generator) -> None:
    """yueatsprograms/Stochastic_Depth: convolutions N(0, √(2/m)), their biases 0; everything else as Torch7 starts it."""
    draw(model, rng, conv=init.he_normal, linear=init.torch_default, gamma=init.uniform, linear_bias=True)


def like_cifar_torch(model: Module, rng: numpy.random.Generator) -> None:
    """szagoruyko/cifar.torch: convolutions N(0, √(2/n)), their biases 0; everything else as Torch7 starts it."""
    draw(
        model,
        rng,
        conv=partial(init.he_normal, fan="out"),
        linear=init.torch_default,
        gamma=init.uniform,
        linear_bias=True,
    )


def like_caffe_xavier(model: Module, rng: numpy.random.Generator) -> None:
    """Caffe's "xavier", U(±√(3/m)), for every weight (FractalNet's generator; Highway Networks)."""
    draw(model, rng, conv=init.caffe_xavier, linear=init.caffe_xavier)


def gaussian(model: Module, rng: numpy.random.Generator) -> None:
    """N(0, 0.05) whatever the fan: the configurations of Network in Network and Deeply-Supervised Nets."""
    draw(model, rng, conv=init.normal, linear=init.normal)


def he(model: Module, rng: numpy.random.Generator) -> None:
    """N(0, √(2/m)) for every weight (He et al. 2015, eq. 10): for networks whose authors do not say."""
    draw(model, rng, conv=init.he_normal, linear=init.he_normal)
