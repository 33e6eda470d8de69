"""Data sets by name: arrays of images and labels, and what training has to know about them."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy
import platformdirs

from ..backend import device_of, to_device
from ..errors import ConfigError, DataError
from .archives import CIFAR10_PLACES, read_cifar10

ENVIRONMENT_VARIABLE = "MINIDENSE_DATA"


@dataclass(frozen=True)
class Dataset:
    """Images and labels, and how the papers treat them.

    images  uint8 (N, C, H, W);  labels  int64 (N,);  all on one device;  mean, std  per channel, in units of the pixels
    """

    name: str
    train_images: Any
    train_labels: Any
    test_images: Any
    test_labels: Any
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_padding: int  # pixels that a random crop may move the image by
    flip: bool  # is a mirrored picture still one of its class? A digit is not

    device = property(lambda self: device_of(self.train_images))

    def to(self, device: str) -> "Dataset":
        """The same images, still uint8, and labels on `device`, 'cpu' or 'gpu'; itself when they are there already.

        Raises DeviceError as ``backend.to_device`` does, and DataError when a label names no class: no step on the GPU looks again.
        """
        if device == self.device:
            return self
        for labels in (self.train_labels, self.test_labels):
            if len(labels) and not 0 <= labels.min() <= labels.max() < len(self.class_names):
                raise DataError(
                    f"{self.name}: labels must lie in 0 … {len(self.class_names) - 1}, found {labels.min()} … {labels.max()}"
                )
        arrays = ("train_images", "train_labels", "test_images", "test_labels")
        return replace(self, **{name: to_device(getattr(self, name), device) for name in arrays})

    def first(self, train: int | None = None, test: int | None = None) -> "Dataset":
        """The first so many images of either part; None keeps all. Raises ConfigError when there are not so many."""
        for wanted, images, part in ((train, self.train_images, "training"), (test, self.test_images, "test")):
            if wanted is not None and wanted > len(images):
                raise ConfigError(f"{self.name} has {len(images):,} {part} images, not {wanted:,}")
        return replace(
            self,
            train_images=self.train_images[:train],
            train_labels=self.train_labels[:train],
            test_images=self.test_images[:test],
            test_labels=self.test_labels[:test],
        )


def load(name: str, data_dir: str | Path | None = None) -> Dataset:
    """A data set by name: "digits" (in the package) or "cifar10" (found by ``find``).

    Raises ConfigError for an unknown name, DataError when the files are not there or damaged.
    """
    if name not in DATASETS:
        raise ConfigError(f"unknown data set {name!r}; choose one of {', '.join(DATASETS)}")
    return DATASETS[name](data_dir)


def digits(data_dir: str | Path | None = None) -> Dataset:
    """1,797 handwritten digits of 8×8 pixels in 17 levels of grey: 1,437 to train on and every fifth, 360, to test.

    Optical Recognition of Handwritten Digits (Alpaydin & Kaynak 1998, UCI Machine Learning Repository, CC BY 4.0), the
    test part, as scikit-learn ships it.
    """
    with numpy.load(Path(__file__).parent / "digits.npz", allow_pickle=False) as file:
        images, labels = file["images"], file["labels"].astype(numpy.int64)
    test = numpy.arange(len(labels)) % 5 == 0
    return Dataset(
        "digits",
        images[~test],
        labels[~test],
        images[test],
        labels[test],
        class_names=tuple("0123456789"),
        mean=(4.88,),  # of the training part
        std=(6.02,),
        crop_padding=1,
        flip=False,
    )


def cifar10(data_dir: str | Path | None = None) -> Dataset:
    """60,000 photographs of 32×32 pixels in ten classes, 50,000 to train on (Krizhevsky 2009).

    Mean and deviation are those of the DenseNet authors' code (fb.resnet.torch, datasets/cifar10.lua), in pixel levels 0 … 255.
    """
    return Dataset(
        "cifar10",
        *read_cifar10(find("cifar10", CIFAR10_PLACES, data_dir)),
        class_names=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        mean=(125.3, 123.0, 113.9),
        std=(63.0, 62.1, 66.7),
        crop_padding=4,
        flip=True,
    )


DATASETS = {"digits": digits, "cifar10": cifar10}


def find(name: str, places: tuple[str, ...], data_dir: str | Path | None = None) -> Path:
    """The first of `places` that exists in a data folder.

    With data_dir only that folder counts (or data_dir is itself one of the places). Without it: the folder that the
    environment variable MINIDENSE_DATA names, datasets/ in the current folder, and the user's cache.
    Raises DataError that says where it looked and how to get the set.
    """
    if data_dir is not None:
        if not _exists(Path(data_dir)):
            raise DataError(f"--data-dir {data_dir}: no such folder")
        folders = [Path(data_dir)]
    else:
        named = os.environ.get(ENVIRONMENT_VARIABLE)
        folders = [*([Path(named)] if named else []), Path("datasets"), Path(platformdirs.user_cache_dir("minidense"))]
    for folder in folders:
        for place in places:
            if _exists(folder / place):
                return folder / place
        if folder.name in places and _exists(folder):
            return folder
    raise DataError(
        f"{name} was not found in {', '.join(map(str, folders))} (looked for {', '.join(places)}). "
        f"Get it with: curl -LO https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz (170 MB) into datasets/, "
        f"or name its folder with --data-dir or {ENVIRONMENT_VARIABLE}. It stays packed"
    )


def _exists(path: Path) -> bool:
    """Whether a path is there; a path that cannot even be asked for is not."""
    try:
        return path.exists()
    except OSError:
        return False
