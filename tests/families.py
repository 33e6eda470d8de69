"""Small networks of every family, for tests that each of them has to pass."""

import numpy as np

from minidense import models
from minidense.models.initialise import he

WIDTHS = ((12, 8, 8), (12, 12, 8), (12, 8))  # of a small Network in Network

# On images of 16×16: name -> (dtype) -> network of 4 classes.
TINY = {
    "nin": lambda **how: models.nin(widths=WIDTHS, classes=4, **how),
    "allcnn_c": lambda **how: models.all_cnn_c(widths=(6, 8), classes=4, **how),
    "dsn": lambda **how: models.dsn(widths=WIDTHS, image_size=16, classes=4, **how),
    "highway": lambda **how: models.highway(widths=(4, 6), kernels=((3, 1), (3, 3)), head=8, classes=4, **how),
    "fractalnet": lambda **how: models.fractalnet(columns=3, widths=(4, 6), drop_path=0.15, dropout=(0, 0.1), classes=4, **how),
    "fractalnet as released": lambda **how: models.fractalnet(columns=2, widths=(4, 6), released=True, classes=4, **how),
    "fractalnet with projections": lambda **how: models.fractalnet(columns=2, widths=(4, 6), project=True, classes=4, **how),
    "resnet": lambda **how: models.resnet(depth=8, widths=(4, 6, 8), classes=4, **how),
    "resnet with projections": lambda **how: models.resnet(depth=8, widths=(4, 6, 8), shortcut="projection", classes=4, **how),
    **{
        f"{unit} unit{' of a bottleneck' if bottleneck else ''}": (
            lambda unit=unit, bottleneck=bottleneck, **how: models.resnet(
                depth=11 if bottleneck else 8, unit=unit, bottleneck=bottleneck, widths=(4, 6, 8), classes=4, **how
            )
        )
        for unit in ("bn_after_add", "relu_before_add", "relu_only_preact", "full_preact")
        for bottleneck in (False, True)
    },
    "stochastic depth": lambda **how: models.stochastic_depth_resnet(depth=8, widths=(4, 6, 8), classes=4, **how),
    "wide resnet": lambda **how: models.wide_resnet(depth=10, width=1, dropout=0.3, classes=4, **how),
    "vgg": lambda **how: models.vgg_cifar(groups=(1, 2), widths=(4, 6), classes=4, **how),
    "vgg with a hidden layer": lambda **how: models.vgg_cifar(
        groups=(2, 1), widths=(4, 6), hidden=8, dropout=(0.3, 0.4, 0.5), classes=4, **how
    ),
    "vgg that averages": lambda **how: models.vgg_cifar(groups=(1, 1), widths=(4, 6), conv_bias=False, average=True, classes=4, **how),
    "densenet": lambda **how: models.densenet(depth=13, growth_rate=3, bottleneck=False, compression=1, dropout=0.2, classes=4, **how),
    "densenet_bc": lambda **how: models.densenet(depth=16, growth_rate=3, classes=4, **how),
    "densenet for imagenet": lambda **how: models.densenet_imagenet(blocks=(2, 2), growth_rate=4, classes=4, **how),
    "resnet for imagenet": lambda **how: models.resnet_imagenet(units=(1, 1, 0, 0), bottleneck=False, classes=4, **how),
}  # fmt: skip


def started(model, last_bias=0.0):
    """A narrow network without batch norm, ready to learn: the authors' N(0, 0.05) fits their widths and not these."""
    he(model, np.random.default_rng(0))
    for name, parameter in model.named_parameters():
        if name.endswith("T.bias"):
            parameter.data[...] = -2  # gates of a Highway Network
    # Above 0 where a ReLU follows: a class that falls below never comes up again.
    model.last_layer.bias.data[...] = last_bias
    return model


NARROW = ((16, 16, 16), (24, 24, 24), (24, 24))

# On images of 32×32: name -> (network of 10 classes, learning rate at which it learns 32 of them by heart).
SMALL = {
    "nin": lambda: (started(models.nin(widths=NARROW), last_bias=2), 0.01),
    "allcnn_c": lambda: (started(models.all_cnn_c(widths=(16, 32)), last_bias=5), 0.01),
    "dsn": lambda: (started(models.dsn(widths=NARROW)), 0.03),
    "highway": lambda: (started(models.highway(widths=(16, 24, 32), kernels=3 * ((3, 3),), head=32)), 0.02),
    "fractalnet": lambda: (models.fractalnet(columns=2, widths=(16, 32, 32), drop_path=0.15), 0.05),
    "resnet": lambda: (models.resnet(depth=14), 0.05),
    "pre-activation resnet": lambda: (models.resnet(depth=11, unit="full_preact", bottleneck=True), 0.05),
    "stochastic depth": lambda: (models.stochastic_depth_resnet(depth=14), 0.05),
    "wide resnet": lambda: (models.wide_resnet(depth=10, width=1), 0.05),
    "vgg": lambda: (models.vgg_cifar(groups=(1, 1, 1, 1), widths=(16, 32, 32, 32)), 0.02),
    "densenet": lambda: (models.densenet(depth=13, bottleneck=False, compression=1), 0.05),
    "densenet_bc": lambda: (models.densenet(depth=22), 0.05),
    "densenet for imagenet": lambda: (models.densenet_imagenet(blocks=(2, 2, 2, 2), growth_rate=8, classes=10), 0.05),
    "resnet for imagenet": lambda: (models.resnet_imagenet(units=(1, 1, 1, 0), bottleneck=False, classes=10), 0.05),
}
