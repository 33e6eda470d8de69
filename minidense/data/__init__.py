"""From files to batches."""

from .augment import normalise, random_crop, random_flip
from .datasets import DATASETS, Dataset, load
from .loader import prefetch, test_batches, training_batches

__all__ = [
    "DATASETS",
    "Dataset",
    "load",
    "normalise",
    "prefetch",
    "random_crop",
    "random_flip",
    "test_batches",
    "training_batches",
]
