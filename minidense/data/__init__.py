"""From files to batches."""

from .augment import crop, mirror, moves, normalise, prepared
from .datasets import DATASETS, NORMALISATIONS, NOT_YET, PLACES, Dataset, load
from .loader import prefetch, test_batches, training_batches

__all__ = [
    "DATASETS",
    "NORMALISATIONS",
    "NOT_YET",
    "PLACES",
    "Dataset",
    "crop",
    "load",
    "mirror",
    "moves",
    "normalise",
    "prefetch",
    "prepared",
    "test_batches",
    "training_batches",
]
