"""Data sets by name: arrays of images and labels, and what training has to know about them."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy
import platformdirs

from ..backend import device_of, to_device
from ..errors import ConfigError, DataError
from .archives import CIFAR10_PLACES, CIFAR100_PLACES, read_cifar10, read_cifar100
from .svhn import IMAGES as SVHN_IMAGES
from .svhn import SVHN_PLACES, read_svhn
from .whitening import whole_set

ENVIRONMENT_VARIABLE = "MINIDENSE_DATA"
# see Dataset.normalised
NORMALISATIONS = ("channel", "scale", "pixel_mean", "pixel_mean_std", "gcn", "zca")


@dataclass(frozen=True)
class Dataset:
    """Images and labels, and how the papers treat them.

    images  uint8 (N, C, H, W), or float32 once ``normalised`` has treated them as a whole;  labels  int64 (N,);  all on one device
    mean, std  per channel, in units of the pixels: what is still to be done to the images
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
    reflect: bool = False  # a crop sees the image's reflection beyond its border, otherwise zeros
    # the training images from this one on are easier than the others (SVHN's extra ones)
    easier_from: int | None = None
    validation_images: Any = None  # what ``hold_out`` has kept apart
    validation_labels: Any = None
    levels: int = 255  # the brightest that a pixel can be

    device = property(lambda self: device_of(self.train_images))

    def to(self, device: str) -> "Dataset":
        """The same images and labels, of the same types, on `device`, 'cpu' or 'gpu'; itself when they are there already.

        Raises DeviceError as ``backend.to_device`` does, and DataError when a label names no class: no step on the GPU looks again.
        """
        if device == self.device:
            return self
        parts = ("train", "test") if self.validation_labels is None else ("train", "validation", "test")
        for labels in (getattr(self, f"{part}_labels") for part in parts):
            if len(labels) and not 0 <= labels.min() <= labels.max() < len(self.class_names):
                raise DataError(
                    f"{self.name}: labels must lie in 0 … {len(self.class_names) - 1}, found {labels.min()} … {labels.max()}"
                )
        arrays = [f"{part}_{what}" for part in parts for what in ("images", "labels")]
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

    def hold_out(self, count: int) -> "Dataset":
        """`count` training images kept apart for validation: as evenly by class as can be, the same ones in every run.

        Where some are easier they make a third: 400 of each class of SVHN's training images and 200 of the extra ones, as in
        the Stochastic_Depth code (Sermanet et al. 2012). The others keep their order.
        Raises ConfigError when none would be left to train on.
        """
        if count == 0:
            return self
        labels, n = self.train_labels, len(self.train_labels)
        if count >= n:
            raise ConfigError(
                f"{self.name}: of {n:,} training images {count:,} are to be held out; some must stay to train on"
            )
        rng = numpy.random.default_rng(4)  # the streams 1 to 3 belong to order, augmentation and dropout
        hard = n if self.easier_from is None else min(self.easier_from, n)
        easier = max(min(count // 3, n - hard), count - hard)
        chosen = [evenly(labels[:hard], count - easier, rng), hard + evenly(labels[hard:], easier, rng)]
        held = numpy.zeros(n, bool)
        held[numpy.concatenate(chosen)] = True
        return replace(
            self,
            train_images=self.train_images[~held],
            train_labels=labels[~held],
            validation_images=self.train_images[held],
            validation_labels=labels[held],
            easier_from=None,
        )

    def validating(self) -> "Dataset":
        """The validation images in the place of the test images."""
        return replace(self, test_images=self.validation_images, test_labels=self.validation_labels)

    def normalised(self, how: str) -> "Dataset":
        """Images that are on the CPU, treated in one of the ``NORMALISATIONS``; all statistics are those of the training images.

        channel                     less the data set's mean, divided by its deviation, for each channel (Huang et al. 2017)
        scale                       divided by 255 (Huang et al. 2017 for SVHN), digits by 16: the brightest become 1
        pixel_mean, pixel_mean_std, gcn, zca    see ``whitening.whole_set``: float32 arrays, made here and now

        Raises ConfigError for another word.
        """
        if how not in NORMALISATIONS:
            raise ConfigError(f"unknown normalisation {how!r}; choose one of {', '.join(NORMALISATIONS)}")
        channels = len(self.mean)
        if how == "channel":
            return self
        if how == "scale":
            return replace(self, mean=channels * (0.0,), std=channels * (float(self.levels),))
        names = ["train_images", "test_images", *(["validation_images"] if self.validation_images is not None else [])]
        images = whole_set(how, *(getattr(self, name) for name in names))
        return replace(self, **dict(zip(names, images, strict=True)), mean=channels * (0.0,), std=channels * (1.0,))

    def cropped(self, padding: int | None, *, reflect: bool = False) -> "Dataset":
        """The same with other random crops: `padding` pixels of zeros or of reflection around the images; None: the data set's own.

        Raises ConfigError for a padding that could move an image out of sight.
        """
        padding = self.crop_padding if padding is None else padding
        h, w = self.train_images.shape[2:]
        if padding >= min(h, w):
            raise ConfigError(
                f"{self.name}: a crop {padding} pixels off shows nothing of images of {h}×{w}; at most {min(h, w) - 1}"
            )
        return replace(self, crop_padding=padding, reflect=reflect)


def evenly(labels: numpy.ndarray, count: int, rng: numpy.random.Generator) -> numpy.ndarray:
    """Which images to take, `count` of them: one of each class, chosen by chance, then another of each, as long as there are any."""
    order = rng.permutation(len(labels))
    order = order[numpy.argsort(labels[order], kind="stable")]  # class by class, shuffled within
    classes = labels[order]
    turn = numpy.arange(len(labels)) - numpy.searchsorted(classes, classes)  # 0 for the first of each class
    return order[numpy.lexsort((classes, turn))[:count]]


def load(name: str, data_dir: str | Path | None = None) -> Dataset:
    """A data set by name: "digits" (in the package), or "cifar10", "cifar100", "svhn" (found by ``find``).

    Raises ConfigError for an unknown name, DataError when the files are not there or damaged, or cannot be read yet.
    """
    if name in NOT_YET:
        raise DataError(f"{name}: {NOT_YET[name]}")
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
        levels=16,
    )


def cifar10(data_dir: str | Path | None = None) -> Dataset:
    """60,000 photographs of 32×32 pixels in ten classes, 50,000 to train on (Krizhevsky 2009)."""
    return Dataset(
        "cifar10",
        *read_cifar10(find("cifar10", CIFAR10_PLACES, data_dir)),
        **vars(PHOTOGRAPHS["cifar10"]),
        crop_padding=4,
        flip=True,
    )


def cifar100(data_dir: str | Path | None = None) -> Dataset:
    """60,000 photographs of 32×32 pixels in a hundred classes, 50,000 to train on (Krizhevsky 2009): the fine labels."""
    return Dataset(
        "cifar100",
        *read_cifar100(find("cifar100", CIFAR100_PLACES, data_dir)),
        **vars(PHOTOGRAPHS["cifar100"]),
        crop_padding=4,
        flip=True,
    )


def svhn(data_dir: str | Path | None = None) -> Dataset:
    """630,420 house numbers of 32×32 pixels: 73,257 and 531,131 easier extra ones to train on, 26,032 to test (Netzer et al. 2011).

    As the DenseNet paper treats them: divided by 255, no mean taken away, never moved, never mirrored. Takes 2 GB as bytes.
    """
    return Dataset(
        "svhn",
        *read_svhn(find("svhn", SVHN_PLACES, data_dir)),
        **vars(PHOTOGRAPHS["svhn"]),
        crop_padding=0,
        flip=False,
        easier_from=SVHN_IMAGES["train"],
    )


# In the order of their labels: the alphabet's.
CIFAR100_CLASSES = (
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can "
    "castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin "
    "elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster "
    "man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck "
    "pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk "
    "skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger "
    "tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm"
)
CIFAR10_CLASSES = "airplane automobile bird cat deer dog frog horse ship truck"


@dataclass(frozen=True)
class Photographs:
    """What is known of a data set of photographs, (3, 32, 32), although its files may not be there; see ``Dataset``."""

    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]


# CIFAR's means and deviations are those of the DenseNet authors' code (fb.resnet.torch, datasets/cifar10.lua and cifar100.lua),
# in pixel levels 0 … 255.
PHOTOGRAPHS = {
    "cifar10": Photographs(tuple(CIFAR10_CLASSES.split()), (125.3, 123.0, 113.9), (63.0, 62.1, 66.7)),
    "cifar100": Photographs(tuple(CIFAR100_CLASSES.split()), (129.3, 124.1, 112.4), (68.2, 65.4, 70.4)),
    "svhn": Photographs(tuple("0123456789"), (0.0, 0.0, 0.0), (255.0, 255.0, 255.0)),
}

DATASETS = {"digits": digits, "cifar10": cifar10, "cifar100": cifar100, "svhn": svhn}
# What settings may name although its images cannot be read, and what can be done without.
NOT_YET = {
    "imagenet": "reading folders of photographs is not part of minidense yet. Its networks can be looked at with minidense "
    "summary, and minidense predict runs them on single pictures with weights from elsewhere"
}
# of those that do not come with the package
PLACES = {"cifar10": CIFAR10_PLACES, "cifar100": CIFAR100_PLACES, "svhn": SVHN_PLACES}
CIFAR_PAGE, SVHN_PAGE = "https://www.cs.toronto.edu/~kriz", "http://ufldl.stanford.edu/housenumbers"
# How to get each of them.
SOURCES = {
    "cifar10": f"curl -LO {CIFAR_PAGE}/cifar-10-binary.tar.gz (170 MB) into datasets/",
    "cifar100": f"curl -LO {CIFAR_PAGE}/cifar-100-binary.tar.gz (169 MB) into datasets/",
    "svhn": f'curl -LO "{SVHN_PAGE}/{{train,extra,test}}_32x32.mat" (1.6 GB) into datasets/svhn/',
}


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
        f"Get it with: {SOURCES[name]}, or name its folder with --data-dir or {ENVIRONMENT_VARIABLE}. It stays packed"
    )


def _exists(path: Path) -> bool:
    """Whether a path is there; a path that cannot even be asked for is not."""
    try:
        return path.exists()
    except OSError:
        return False
