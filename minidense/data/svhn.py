"""The official SVHN files, MATLAB 5: train_32x32.mat, extra_32x32.mat and test_32x32.mat in one folder. SciPy reads them."""

from pathlib import Path
from typing import Any

import numpy

from ..errors import DataError

IMAGES = {"train": 73_257, "extra": 531_131, "test": 26_032}  # in each file
SVHN_PLACES = ("svhn", "train_32x32.mat")  # a folder with the files, or they lie where other sets do, too
MOST_BYTES = 1_500_000_000  # the largest official file has 1,329,278,602


def read_svhn(place: Path) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray, numpy.ndarray]:
    """Train images, train labels, test images, test labels; the easier extra images follow those of the training file.

    Images are uint8 (N, 3, 32, 32), channels red, green, blue; labels are int64 (N,) in 0 … 9; 604,388 and 26,032 of them.
    Raises DataError when SciPy or a file is missing, or a file is damaged or not what the official set holds.
    """
    folder = place if place.is_dir() else place.parent
    files = {part: folder / f"{part}_32x32.mat" for part in IMAGES}
    if missing := [file.name for file in files.values() if not file.is_file()]:
        raise DataError(
            f"{folder}: {', '.join(missing)} missing; SVHN is read from {', '.join(f.name for f in files.values())}"
        )
    count = IMAGES["train"] + IMAGES["extra"]
    images, labels = numpy.empty((count, 3, 32, 32), numpy.uint8), numpy.empty(count, numpy.int64)
    filled = 0
    for part in ("train", "extra"):
        rows = slice(filled, filled + IMAGES[part])
        images[rows], labels[rows] = _read(files[part], IMAGES[part])
        filled += IMAGES[part]
    test_images, test_labels = _read(files["test"], IMAGES["test"])
    return images, labels, numpy.ascontiguousarray(test_images), test_labels


def _read(path: Path, count: int) -> tuple[Any, Any]:
    """Images, as a view of how the file keeps them, and labels."""
    try:
        from scipy.io import loadmat, whosmat
    except ImportError:
        raise DataError(
            'svhn: SciPy reads its .mat files and is not installed here: pip install "minidense[svhn]"'
        ) from None
    try:
        if path.stat().st_size > MOST_BYTES:
            raise DataError(f"{path}: {path.stat().st_size:,} bytes, more than any official file has; refused")
        # What the headers say comes first: they may claim any size.
        sizes = {name: shape for name, shape, _ in whosmat(path, appendmat=False)}
        if sizes.get("X") != (32, 32, 3, count) or sizes.get("y") != (count, 1):
            raise DataError(f"{path}: does not hold {count:,} images of 32×32×3 bytes, X, with a label each, y")
        content = loadmat(path, variable_names=("X", "y"), appendmat=False)
    except (DataError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001  SciPy's reader raises whatever a damaged file leads it to
        raise DataError(f"{path}: damaged, or not a MATLAB file: {error}") from None
    pixels, digits = content["X"], content["y"].reshape(-1)
    if pixels.dtype != numpy.uint8 or digits.dtype.kind not in "uif":
        raise DataError(f"{path}: X must be bytes and y numbers, found {pixels.dtype} and {digits.dtype}")
    if not numpy.isin(digits, numpy.arange(1, 11)).all():
        raise DataError(f"{path}: labels must be 1 … 10, where 10 is the digit 0")
    return pixels.transpose(3, 2, 0, 1), digits.astype(numpy.int64) % 10
