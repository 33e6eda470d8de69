"""The official CIFAR-10 and CIFAR-100 files, as folders or as .tar.gz archives. Nothing is extracted, nothing in them is executed."""

import gzip
import tarfile
import zlib
from functools import partial
from pathlib import Path
from typing import IO, cast

import numpy

from ..errors import DataError
from .pickles import read_literals

RECORDS = 10_000  # images in each of CIFAR-10's six files
PIXELS = 3 * 32 * 32
MEMBER_BYTES = 35_000_000  # the largest official file of CIFAR-10 has 31,035,999; a member over this is hostile
LARGE_MEMBER_BYTES = 175_000_000  # the largest of CIFAR-100 has 155,249,918
MEMBERS = 100  # in an archive; the official ones have eight and nine
CHUNK = 2**20  # bytes read at a time
TRAIN = tuple(f"data_batch_{i}" for i in range(1, 6))
TEST = ("test_batch",)

# Where a set may lie inside a data folder, most trusted first: the binary layouts are nothing but bytes.
CIFAR10_PLACES = ("cifar-10-batches-bin", "cifar-10-binary.tar.gz", "cifar-10-batches-py", "cifar-10-python.tar.gz")
CIFAR100_PLACES = ("cifar-100-binary", "cifar-100-binary.tar.gz", "cifar-100-python", "cifar-100-python.tar.gz")
BINARY_PLACES = (*CIFAR10_PLACES[:2], *CIFAR100_PLACES[:2])


def read_cifar10(place: Path) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray, numpy.ndarray]:
    """Train images, train labels, test images, test labels from one of ``CIFAR10_PLACES``.

    Images are uint8 (N, 3, 32, 32), channels red, green, blue; labels are int64 (N,) in 0 … 9; 50,000 and 10,000 of them.
    Raises DataError when a file is missing, damaged, or not what the official set holds.
    """
    train, test = (dict.fromkeys(names, RECORDS) for names in (TRAIN, TEST))
    return _read(place, train, test, labels=b"labels", label_bytes=1, classes=10, most=MEMBER_BYTES)


def read_cifar100(place: Path) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray, numpy.ndarray]:
    """The same from one of ``CIFAR100_PLACES``, with the fine labels, 0 … 99."""
    train, test = {"train": 5 * RECORDS}, {"test": RECORDS}
    return _read(place, train, test, labels=b"fine_labels", label_bytes=2, classes=100, most=LARGE_MEMBER_BYTES)


def _read(
    place: Path,
    train: dict[str, int],
    test: dict[str, int],
    *,
    labels: bytes,
    label_bytes: int,
    classes: int,
    most: int,
) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray, numpy.ndarray]:
    """Both parts from files with so many images each.

    labels       their name in the python layout
    label_bytes  before the pixels of a record in the binary layout, the last of them the label wanted
    most         bytes that a file may have
    """
    binary = place.name in BINARY_PLACES
    suffix = ".bin" if binary else ""
    files = read_files(place, [name + suffix for name in (*train, *test)], most)

    def part(counts):
        found = []
        for name, count in counts.items():
            raw, full_name = files[name + suffix], f"{place / name}{suffix}"
            pixels, numbers = (
                _from_records(raw, full_name, count, label_bytes)
                if binary
                else _from_pickle(raw, full_name, count, labels)
            )
            found.append((pixels.reshape(count, 3, 32, 32), _labels(numbers, full_name, classes)))
        images, numbers = zip(*found, strict=True)
        return numpy.concatenate(images), numpy.concatenate(numbers)

    return *part(train), *part(test)


def read_files(place: Path, names: list[str], most: int = MEMBER_BYTES) -> dict[str, bytes]:
    """The contents of the named files in a folder, or in an archive under whatever folder it keeps them; up to `most` bytes each.

    Raises DataError when one is missing, appears twice, is too large, or the archive is damaged.
    """
    if place.is_dir():
        missing = [name for name in names if not (place / name).is_file()]
        if missing:
            raise DataError(f"{place}: {', '.join(missing)} missing; unpack the official archive again")
        return {name: _read_file(place / name, most) for name in names}
    try:
        with gzip.open(place) as unpacked:
            found = _members(unpacked, place, names, most)
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


def _members(unpacked, place, names, most):
    """The contents of the members with these names, whatever folder they are in."""
    found: dict[str, bytes] = {}
    with tarfile.open(fileobj=cast(IO[bytes], _ReadInChunks(unpacked)), mode="r:") as archive:
        for number, member in enumerate(archive):
            if number == MEMBERS:
                raise DataError(f"{place}: more than {MEMBERS} members; this is not the official archive")
            name = member.name.rsplit("/", 1)[-1]
            _small_enough(member.size, f"{place}: {member.name}", most)
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


def _read_file(path, most):
    try:
        _small_enough(path.stat().st_size, path, most)
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def _small_enough(size, name, most):
    if size > most:
        raise DataError(f"{name}: {size:,} bytes, more than any official file has; refused")


def _from_records(raw, name, count, label_bytes):
    """Pixels and labels of records: label bytes, then 3,072 pixel bytes."""
    size = label_bytes + PIXELS
    if len(raw) != count * size:
        raise DataError(f"{name}: {len(raw):,} bytes, but {count:,} records of {size:,} bytes are {count * size:,}")
    records = numpy.frombuffer(raw, numpy.uint8).reshape(count, size)
    return records[:, label_bytes:], records[:, label_bytes - 1]


def _from_pickle(raw, name, count, key):
    """Pixels and labels of a dictionary with b"data", one row an image, and the labels under `key`."""
    batch = read_literals(raw, name)
    data, labels = batch.get(b"data"), batch.get(key)
    if (
        not isinstance(data, bytes)
        or len(data) != count * PIXELS
        or not isinstance(labels, list)
        or len(labels) != count
    ):
        raise DataError(f"{name}: does not hold {count:,} images of {PIXELS:,} bytes with a label each")
    if not all(isinstance(label, int) for label in labels):
        raise DataError(f"{name}: labels must be integers")
    return numpy.frombuffer(data, numpy.uint8), labels


def _labels(labels, name, classes):
    labels = numpy.asarray(labels, numpy.int64)
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(f"{name}: labels must lie in 0 … {classes - 1}, found {labels.min()} … {labels.max()}")
    return labels
