"""The official CIFAR-10 files, as folders or as .tar.gz archives. Nothing is extracted, nothing in them is executed."""

import gzip
import tarfile
import zlib
from functools import partial
from pathlib import Path
from typing import IO, cast

import numpy

from ..errors import DataError
from .pickles import read_literals

RECORDS = 10_000  # images in each of the six files
PIXELS = 3 * 32 * 32
MEMBER_BYTES = 35_000_000  # the largest official file has 31,035,999; a member over this is hostile
MEMBERS = 100  # in an archive; the official ones have eight and nine
CHUNK = 2**20  # bytes read at a time
TRAIN = tuple(f"data_batch_{i}" for i in range(1, 6))
TEST = ("test_batch",)

# Where CIFAR-10 may lie inside a data folder, most trusted first: the binary layout is nothing but bytes.
BINARY_PLACES = ("cifar-10-batches-bin", "cifar-10-binary.tar.gz")
CIFAR10_PLACES = (*BINARY_PLACES, "cifar-10-batches-py", "cifar-10-python.tar.gz")


def read_cifar10(place: Path) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray, numpy.ndarray]:
    """Train images, train labels, test images, test labels from one of ``CIFAR10_PLACES``.

    Images are uint8 (N, 3, 32, 32), channels red, green, blue; labels are int64 (N,) in 0 … 9; 50,000 and 10,000 of them.
    Raises DataError when a file is missing, damaged, or not what the official set holds.
    """
    binary = place.name in BINARY_PLACES
    suffix = ".bin" if binary else ""
    files = read_files(place, [name + suffix for name in TRAIN + TEST])
    decode = _from_records if binary else _from_pickle
    parts = {name: decode(files[name + suffix], f"{place / name}{suffix}") for name in TRAIN + TEST}
    images, labels = (
        [numpy.concatenate([parts[name][i] for name in names]) for names in (TRAIN, TEST)] for i in (0, 1)
    )
    return images[0], labels[0], images[1], labels[1]


def read_files(place: Path, names: list[str]) -> dict[str, bytes]:
    """The contents of the named files in a folder, or in an archive under whatever folder it keeps them.

    Raises DataError when one is missing, appears twice, is too large, or the archive is damaged.
    """
    if place.is_dir():
        missing = [name for name in names if not (place / name).is_file()]
        if missing:
            raise DataError(f"{place}: {', '.join(missing)} missing; unpack the official archive again")
        return {name: _read_file(place / name) for name in names}
    try:
        with gzip.open(place) as unpacked:
            found = _members(unpacked, place, names)
            while unpacked.read(CHUNK):  # only at its end does gzip compare its checksum
                pass
    except (tarfile.TarError, EOFError, OSError, zlib.error, OverflowError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{place}: damaged, or not a .tar.gz archive: {error}") from None
    missing = [name for name in names if name not in found]
    if missing:
        raise DataError(f"{place}: {', '.join(missing)} missing; this is not the official archive, or it is cut short")
    return found


def _members(unpacked, place, names):
    """The contents of the members with these names, whatever folder they are in."""
    found: dict[str, bytes] = {}
    with tarfile.open(fileobj=cast(IO[bytes], _ReadInChunks(unpacked)), mode="r:") as archive:
        for number, member in enumerate(archive):
            if number == MEMBERS:
                raise DataError(f"{place}: more than {MEMBERS} members; this is not the official archive")
            name = member.name.rsplit("/", 1)[-1]
            _small_enough(member.size, f"{place}: {member.name}")
            if name not in names:
                continue
            if name in found or not member.isreg():
                raise DataError(
                    f"{place}: {member.name} appears twice or is not a plain file; this is not the official archive"
                )
            content = archive.extractfile(member)
            assert content is not None  # a plain file always opens
            found[name] = b"".join(iter(partial(content.read, CHUNK), b""))
    return found


class _ReadInChunks:
    """A file that refuses to be read in big pieces: a header may claim any size, and would have to be kept in memory whole."""

    def __init__(self, file):
        self.seek, self.tell, self._read = file.seek, file.tell, file.read

    def read(self, size):
        if size > CHUNK:
            raise ValueError(f"a header of {size:,} bytes")
        return self._read(size)


def _read_file(path):
    try:
        _small_enough(path.stat().st_size, path)
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def _small_enough(size, name):
    if size > MEMBER_BYTES:
        raise DataError(f"{name}: {size:,} bytes, more than any official file has; refused")


def _from_records(raw, name):
    """Records of one label byte and 3,072 pixel bytes."""
    if len(raw) != RECORDS * (1 + PIXELS):
        raise DataError(
            f"{name}: {len(raw):,} bytes, but {RECORDS:,} records of {1 + PIXELS:,} bytes are {RECORDS * (1 + PIXELS):,}"
        )
    records = numpy.frombuffer(raw, numpy.uint8).reshape(RECORDS, 1 + PIXELS)
    return _images(records[:, 1:]), _labels(records[:, 0], name)


def _from_pickle(raw, name):
    """A dictionary with b"data", one row an image, and b"labels"."""
    batch = read_literals(raw, name)
    data, labels = batch.get(b"data"), batch.get(b"labels")
    if (
        not isinstance(data, bytes)
        or len(data) != RECORDS * PIXELS
        or not isinstance(labels, list)
        or len(labels) != RECORDS
    ):
        raise DataError(f"{name}: does not hold {RECORDS:,} images of {PIXELS:,} bytes with a label each")
    if not all(isinstance(label, int) for label in labels):
        raise DataError(f"{name}: labels must be integers")
    return _images(numpy.frombuffer(data, numpy.uint8)), _labels(labels, name)


def _images(pixels):
    return pixels.reshape(RECORDS, 3, 32, 32)


def _labels(labels, name):
    labels = numpy.asarray(labels, numpy.int64)
    if labels.min() < 0 or labels.max() > 9:
        raise DataError(f"{name}: labels must lie in 0 … 9, found {labels.min()} … {labels.max()}")
    return labels
