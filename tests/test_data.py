"""From files to batches: readers that trust nothing, augmentation that changes only the picture, loaders that lose no image."""

import gzip
import hashlib
import itertools
import lzma
import pickle
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import tracemalloc
import warnings
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import platformdirs
import pytest
import strict_cupy
from hypothesis import example, given, settings
from hypothesis import strategies as st

import minidense
from minidense.backend import device_of, library, to_numpy
from minidense.data import (
    Dataset,
    archives,
    crop,
    datasets,
    load,
    mirror,
    moves,
    normalise,
    prefetch,
    prepared,
    svhn,
    test_batches,
    training_batches,
    whitening,
)
from minidense.data.loader import batch_key
from minidense.data.pickles import read_literals
from minidense.errors import ConfigError, DataError, DeviceError
from minidense.speed import reference_only

test_batches.__test__ = False  # a function of the package, not a test

RECORDS = 20  # images in each fake file
FILES = archives.TRAIN + archives.TEST
BINARY_FOLDER, BINARY_ARCHIVE, PYTHON_FOLDER, PYTHON_ARCHIVE = archives.CIFAR10_PLACES
fuzz = settings(max_examples=400, deadline=None, derandomize=True, database=None)  # the same examples every time


# -- digits -----------------------------------------------------------------------------------------------------------


def test_digits_has_1437_training_and_360_test_images():
    digits = load("digits")
    assert digits.train_images.shape == (1437, 1, 8, 8)
    assert digits.test_images.shape == (360, 1, 8, 8)
    assert digits.train_labels.shape == (1437,)
    assert digits.test_labels.shape == (360,)
    assert digits.train_images.dtype == digits.test_images.dtype == np.uint8
    assert digits.train_labels.dtype == digits.test_labels.dtype == np.int64


def test_digits_are_the_original_bytes_in_the_original_order():
    with np.load(Path(datasets.__file__).parent / "digits.npz", allow_pickle=False) as file:
        images, labels = file["images"], file["labels"]
    assert (images.dtype, labels.dtype) == (np.uint8, np.uint8)
    digest = hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
    assert digest == "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"


def test_every_fifth_digit_is_for_testing_and_no_other():
    digits = load("digits")
    with np.load(Path(datasets.__file__).parent / "digits.npz", allow_pickle=False) as file:
        images, labels = file["images"], file["labels"]
    np.testing.assert_array_equal(digits.test_images, images[::5])
    np.testing.assert_array_equal(digits.test_labels, labels[::5])
    np.testing.assert_array_equal(digits.train_images, np.delete(images, np.s_[::5], axis=0))
    np.testing.assert_array_equal(digits.train_labels, np.delete(labels, np.s_[::5]))


def test_mean_and_std_of_digits_are_those_of_its_training_part():
    digits = load("digits")
    assert digits.mean == pytest.approx([digits.train_images.mean()], abs=0.005)  # printed with two decimals
    assert digits.std == pytest.approx([digits.train_images.std()], abs=0.005)


def test_every_digit_is_in_both_parts():
    digits = load("digits")
    assert set(digits.train_labels) == set(digits.test_labels) == set(range(10))
    assert digits.class_names == tuple("0123456789")


def test_digits_are_never_mirrored():
    assert not load("digits").flip


def test_an_unknown_data_set_is_refused_with_the_known_names():
    with pytest.raises(ConfigError, match=r"mnist.*digits, cifar10"):
        load("mnist")


def test_first_keeps_the_first_images_of_either_part():
    digits = load("digits")
    few = digits.first(7, 3)
    np.testing.assert_array_equal(few.train_images, digits.train_images[:7])
    np.testing.assert_array_equal(few.train_labels, digits.train_labels[:7])
    np.testing.assert_array_equal(few.test_images, digits.test_images[:3])
    np.testing.assert_array_equal(few.test_labels, digits.test_labels[:3])
    assert len(digits.first().train_images) == 1437


@pytest.mark.parametrize(("counts", "part"), [((1438, None), "1,437 training"), ((None, 361), "360 test")])
def test_first_refuses_more_images_than_there_are(counts, part):
    with pytest.raises(ConfigError, match=part):
        load("digits").first(*counts)


# -- fake files in the official layouts -------------------------------------------------------------------------------


def text(value: bytes) -> bytes:
    """SHORT_BINSTRING or BINSTRING: how Python 2 wrote a str."""
    return b"U" + bytes([len(value)]) + value if len(value) < 256 else b"T" + struct.pack("<i", len(value)) + value


def integer(n: int) -> bytes:
    """BININT1, BININT2 or BININT."""
    if 0 <= n < 256:
        return b"K" + bytes([n])
    return b"M" + struct.pack("<H", n) if 0 <= n < 65536 else b"J" + struct.pack("<i", n)


def array_state(
    shape: bytes, raw: bytes, *, is_fortran=b"\x89", dtype=b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
) -> bytes:
    """BUILD of an array: (version 1, shape, dtype, is_fortran, bytes)."""
    return b"(" + integer(1) + shape + dtype + is_fortran + raw + b"tb"


ARRAY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"


def python2_pickle(labels, pixels, title: bytes) -> bytes:
    """{"batch_label", "labels", "data", "filenames"} as Python 2's cPickle wrote it at protocol 2, opcode for opcode.

    cPickle numbered every string, list and dictionary for the memo (here from 250, so that both widths occur) and wrote
    lists 1,000 items at a time (here 7, so that they come in several pieces).
    """
    numbers = itertools.count(250)

    def put(code):
        n = next(numbers)
        return code + (b"q" + bytes([n]) if n < 256 else b"r" + struct.pack("<I", n))

    def items(codes):
        return b"".join(b"(" + b"".join(codes[i : i + 7]) + b"e" for i in range(0, len(codes), 7))

    raw = b"\x80\x02" + put(b"}") + b"("
    raw += put(text(b"batch_label")) + put(text(title))
    raw += put(text(b"labels")) + put(b"]") + items([integer(int(label)) for label in labels])
    raw += put(text(b"data")) + put(b"cnumpy.core.multiarray\n_reconstruct\n") + put(b"cnumpy\nndarray\n")
    raw += put(integer(0) + b"\x85" + text(b"b") + b"\x87R")
    raw += b"(" + integer(1) + integer(pixels.shape[0]) + integer(pixels.shape[1]) + b"\x86"
    raw += put(b"cnumpy\ndtype\n") + put(text(b"u1") + integer(0) + integer(1) + b"\x87R")
    raw += b"(" + integer(3) + text(b"|") + b"NNN" + integer(-1) + integer(-1) + integer(0) + b"tb"
    raw += b"\x89" + text(pixels.tobytes()) + b"tb"
    raw += put(text(b"filenames")) + put(b"]") + items([put(text(b"frog_s_%06d.png" % i)) for i in range(len(labels))])
    return raw + b"u."


def fake_parts() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Labels and pixel rows for each of the six files."""
    rng = np.random.default_rng(7)
    return {name: (rng.integers(0, 10, RECORDS), rng.integers(0, 256, (RECORDS, 3072), np.uint8)) for name in FILES}


PARTS = fake_parts()


def binary_files() -> dict[str, bytes]:
    return {
        f"{name}.bin": np.column_stack([labels.astype(np.uint8), pixels]).tobytes()
        for name, (labels, pixels) in PARTS.items()
    }


def python_files() -> dict[str, bytes]:
    return {name: python2_pickle(labels, pixels, name.encode()) for name, (labels, pixels) in PARTS.items()}


def plain(name: str, content: bytes) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    return member, content


def special(name: str, kind: bytes, target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member, b""


def tar(members) -> bytes:
    """An uncompressed archive. Sizes may lie: only the bytes given are written."""
    raw = b"".join(
        member.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512) for member, content in members
    )
    return raw + bytes(1024)


def archive_of(files: dict[str, bytes], folder: str, extra=()) -> bytes:
    """The files as a .tar.gz, under a folder as in the official ones."""
    members = [plain(f"{folder}/{name}", content) for name, content in files.items()]
    return gzip.compress(tar([special(folder, tarfile.DIRTYPE), *members, *extra]), 1)


def write(place: Path, files: dict[str, bytes]) -> Path:
    """The files in a folder or an archive, whichever the name asks for."""
    if place.name.endswith(".tar.gz"):
        place.write_bytes(archive_of(files, "cifar-10-batches"))
    else:
        place.mkdir()
        for name, content in files.items():
            (place / name).write_bytes(content)
    return place


@pytest.fixture
def small(monkeypatch):
    """Official files hold 20 images for now."""
    monkeypatch.setattr(archives, "RECORDS", RECORDS)


@pytest.fixture
def binary_folder(tmp_path, small):
    return write(tmp_path / BINARY_FOLDER, binary_files())


@pytest.fixture
def python_folder(tmp_path, small):
    return write(tmp_path / PYTHON_FOLDER, python_files())


@contextmanager
def memory_below(limit: int):
    """Fails when Python holds more than `limit` bytes at once inside."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < limit, f"{peak:,} bytes at once"


def test_the_fake_pickle_is_one_that_python_and_numpy_read():
    labels, pixels = PARTS["data_batch_1"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # NumPy 2 moved numpy.core
        batch = pickle.loads(python2_pickle(labels, pixels, b"one"), encoding="bytes")
    assert list(batch) == [b"batch_label", b"labels", b"data", b"filenames"]
    assert batch[b"labels"] == labels.tolist()
    np.testing.assert_array_equal(batch[b"data"], pixels)


@pytest.mark.parametrize("name", archives.CIFAR10_PLACES)
def test_all_four_official_forms_read_to_the_same_arrays(name, tmp_path, small):
    place = write(tmp_path / name, binary_files() if "bin" in name else python_files())
    train_images, train_labels, test_images, test_labels = archives.read_cifar10(place)
    for images, labels, names in (
        (train_images, train_labels, archives.TRAIN),
        (test_images, test_labels, archives.TEST),
    ):
        assert images.dtype == np.uint8
        assert labels.dtype == np.int64
        np.testing.assert_array_equal(labels, np.concatenate([PARTS[n][0] for n in names]))
        np.testing.assert_array_equal(images.reshape(-1, 3072), np.concatenate([PARTS[n][1] for n in names]))
        assert images.shape[1:] == (3, 32, 32)


def test_red_comes_before_green_before_blue_and_rows_before_columns(tmp_path, small):
    files = binary_files()
    record = bytes([3]) + bytes(range(256)) * 4 + bytes([77]) * 1024 + bytes([99]) * 1024
    files["data_batch_1.bin"] = record + files["data_batch_1.bin"][len(record) :]
    images, labels, *_ = archives.read_cifar10(write(tmp_path / BINARY_FOLDER, files))
    assert labels[0] == 3
    assert images[0, 0, 1, 2] == 32 + 2
    assert (images[0, 1] == 77).all()
    assert (images[0, 2] == 99).all()


def test_files_may_lie_under_any_folder_of_the_archive_and_beside_others(tmp_path, small):
    place = tmp_path / BINARY_ARCHIVE
    others = [plain("a/b/readme.html", b"<html>"), special("a/link", tarfile.SYMTYPE, "/etc/passwd")]
    place.write_bytes(archive_of(binary_files(), "some/where/else", others))
    assert len(archives.read_cifar10(place)[0]) == 5 * RECORDS


def test_reading_an_archive_writes_no_file(tmp_path, small):
    place = write(tmp_path / PYTHON_ARCHIVE, python_files())
    archives.read_cifar10(place)
    assert list(tmp_path.iterdir()) == [place]


# -- CIFAR-100: two files, two labels an image ------------------------------------------------------------------------


def cifar100_parts() -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Coarse labels, fine labels and pixel rows for each of the two files."""
    rng = np.random.default_rng(8)
    return {
        name: (rng.integers(0, 20, n), rng.integers(0, 100, n), rng.integers(0, 256, (n, 3072), np.uint8))
        for name, n in (("train", 5 * RECORDS), ("test", RECORDS))
    }


PARTS100 = cifar100_parts()


def binary100() -> dict[str, bytes]:
    return {
        f"{name}.bin": np.column_stack([coarse.astype(np.uint8), fine.astype(np.uint8), pixels]).tobytes()
        for name, (coarse, fine, pixels) in PARTS100.items()
    }


def python100() -> dict[str, bytes]:
    """The key is longer by five letters: everything else is as in CIFAR-10's files."""
    return {
        name: python2_pickle(fine, pixels, name.encode()).replace(text(b"labels"), text(b"fine_labels"))
        for name, (_, fine, pixels) in PARTS100.items()
    }


@pytest.mark.parametrize("name", archives.CIFAR100_PLACES)
def test_all_four_forms_of_cifar100_read_to_the_same_images_and_fine_labels(name, tmp_path, small):
    place = write(tmp_path / name, binary100() if "bin" in name else python100())
    found = archives.read_cifar100(place)
    for (images, labels), (_, fine, pixels) in zip((found[:2], found[2:]), PARTS100.values(), strict=True):
        assert (images.dtype, labels.dtype, images.shape[1:]) == (np.uint8, np.int64, (3, 32, 32))
        np.testing.assert_array_equal(labels, fine)
        np.testing.assert_array_equal(images.reshape(-1, 3072), pixels)


@pytest.mark.parametrize("size", [0, 20 * 3074 - 1, 20 * 3073])
def test_a_file_of_cifar100_of_the_wrong_size_is_named(size, tmp_path, small):
    place = write(tmp_path / archives.CIFAR100_PLACES[0], {**binary100(), "test.bin": bytes(size)})
    with pytest.raises(DataError, match=r"test\.bin: .*20 records of 3,074 bytes are 61,480"):
        archives.read_cifar100(place)


@pytest.mark.parametrize("form", [binary100, python100])
def test_fine_label_100_is_refused(form, tmp_path, small, monkeypatch):
    coarse, fine, pixels = PARTS100["test"]
    monkeypatch.setitem(PARTS100, "test", (coarse, np.where(np.arange(RECORDS) == 7, 100, fine), pixels))
    place = write(tmp_path / archives.CIFAR100_PLACES[0 if form is binary100 else 2], form())
    with pytest.raises(DataError, match=r"test.*labels must lie in 0 … 99, found \d+ … 100"):
        archives.read_cifar100(place)


def test_cifar10_in_the_place_of_cifar100_is_refused(tmp_path, small):
    """Renamed, its files are of the wrong size or lack the fine labels."""
    train = b"".join(content for name, content in binary_files().items() if "data" in name)
    place = write(
        tmp_path / archives.CIFAR100_PLACES[0], {"train.bin": train, "test.bin": binary_files()["test_batch.bin"]}
    )
    with pytest.raises(DataError, match=r"train\.bin"):
        archives.read_cifar100(place)
    place = write(tmp_path / archives.CIFAR100_PLACES[2], {**python100(), "test": python_files()["test_batch"]})
    with pytest.raises(DataError, match="test: does not hold 20 images"):
        archives.read_cifar100(place)


def test_an_oversized_file_of_cifar100_is_not_even_read(tmp_path, small):
    place = write(tmp_path / archives.CIFAR100_PLACES[0], binary100())
    with open(place / "train.bin", "wb") as file:
        file.truncate(archives.LARGE_MEMBER_BYTES + 1)
    with memory_below(4_000_000), pytest.raises(DataError, match=r"train\.bin: 175,000,001 bytes"):
        archives.read_cifar100(place)


# -- SVHN: .mat files -------------------------------------------------------------------------------------------------

IMAGES = {"train": 30, "extra": 50, "test": 20}  # in the fake files


def house_numbers(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 3, 32, 32) and digits (n,), all ten among them."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, 3, 32, 32), np.uint8), rng.permutation(np.arange(n) % 10)


@pytest.fixture
def svhn_folder(tmp_path, monkeypatch):
    """The three files as MATLAB would have written them: images last, 10 for the digit 0."""
    savemat = pytest.importorskip("scipy.io").savemat
    monkeypatch.setattr(svhn, "IMAGES", IMAGES)
    monkeypatch.setattr(datasets, "SVHN_IMAGES", IMAGES)
    (tmp_path / "svhn").mkdir()
    for seed, (part, n) in enumerate(IMAGES.items()):
        images, digits = house_numbers(n, seed)
        content = {"X": images.transpose(2, 3, 1, 0), "y": np.where(digits == 0, 10, digits)[:, None].astype(np.uint8)}
        savemat(tmp_path / "svhn" / f"{part}_32x32.mat", content, do_compression=True)
    return tmp_path / "svhn"


def test_svhn_is_its_train_and_extra_files_and_10_means_0(svhn_folder):
    found = load("svhn", svhn_folder)
    (a, a_digits), (b, b_digits), (c, c_digits) = (house_numbers(n, seed) for seed, n in enumerate(IMAGES.values()))
    np.testing.assert_array_equal(found.train_images, np.concatenate([a, b]))
    np.testing.assert_array_equal(found.train_labels, np.concatenate([a_digits, b_digits]))
    np.testing.assert_array_equal(found.test_images, c)
    np.testing.assert_array_equal(found.test_labels, c_digits)
    assert (found.train_images.dtype, found.train_labels.dtype) == (np.uint8, np.int64)
    assert found.class_names == tuple("0123456789")


def test_svhn_is_divided_by_255_and_never_moved_or_mirrored(svhn_folder):
    found = load("svhn", svhn_folder)
    ((images, labels),) = training_batches(found, size=80, seed=(0,))
    order = np.random.default_rng((1, 0)).permutation(80)
    np.testing.assert_array_equal(images, found.train_images[order].astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(labels, found.train_labels[order])


@pytest.mark.parametrize("data_dir", ["svhn", ".", "svhn/train_32x32.mat"])
def test_svhn_is_found_in_its_folder_or_beside_it_or_by_its_first_file(data_dir, svhn_folder):
    assert len(load("svhn", svhn_folder.parent / data_dir).train_labels) == 80


def test_svhn_may_lie_where_other_sets_do(svhn_folder):
    for file in svhn_folder.iterdir():
        file.rename(svhn_folder.parent / file.name)
    svhn_folder.rmdir()
    assert len(load("svhn", svhn_folder.parent).train_labels) == 80


def test_a_missing_file_of_svhn_is_named(svhn_folder):
    (svhn_folder / "extra_32x32.mat").unlink()
    with pytest.raises(DataError, match=r"extra_32x32\.mat missing"):
        load("svhn", svhn_folder)


def test_without_scipy_svhn_names_what_to_install(svhn_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.io", None)  # as if it were not there
    with pytest.raises(DataError, match=r'pip install "minidense\[svhn\]"'):
        load("svhn", svhn_folder)


def edited_mat(**changes):
    content = {"X": np.zeros((32, 32, 3, 20), np.uint8), "y": np.ones((20, 1), np.uint8), **changes}
    return {name: array for name, array in content.items() if array is not None}


WRONG_MATS = {
    "no labels": edited_mat(y=None),
    "one image less": edited_mat(X=np.zeros((32, 32, 3, 19), np.uint8)),
    "images first": edited_mat(X=np.zeros((20, 32, 32, 3), np.uint8)),
    "fractions for bytes": edited_mat(X=np.zeros((32, 32, 3, 20))),
    "label 0": edited_mat(y=np.zeros((20, 1), np.uint8)),
    "label 11": edited_mat(y=np.full((20, 1), 11)),
    "label 1.5": edited_mat(y=np.full((20, 1), 1.5)),
    "labels in words": edited_mat(y=np.full((20, 1), "one", object)),
}


@pytest.mark.parametrize("what", WRONG_MATS)
def test_a_mat_file_that_is_not_svhns_is_refused(what, svhn_folder):
    from scipy.io import savemat

    savemat(svhn_folder / "test_32x32.mat", WRONG_MATS[what])
    with pytest.raises(DataError, match=r"test_32x32\.mat"):
        load("svhn", svhn_folder)


@pytest.mark.parametrize("damage", ["empty", "cut", "a web page", "zeros", "one byte wrong"])
def test_a_damaged_mat_file_is_named(damage, svhn_folder):
    file = svhn_folder / "test_32x32.mat"
    raw = file.read_bytes()
    damaged = {
        "empty": b"",
        "cut": cut_in_half(raw),
        "a web page": b"<html>log in to the network</html>" * 50,
        "zeros": bytes(10_000),
        "one byte wrong": one_byte_wrong(raw),
    }
    file.write_bytes(damaged[damage])
    with pytest.raises(DataError, match=r"test_32x32\.mat"):
        load("svhn", svhn_folder)


def test_a_mat_file_that_claims_more_images_than_there_are_is_refused_before_memory_is_taken(svhn_folder):
    """Its header says 2³⁰ images; the array would be 3 TB."""
    from scipy.io import savemat

    file = svhn_folder / "test_32x32.mat"
    savemat(file, edited_mat())
    raw = file.read_bytes()
    size = struct.pack("<4i", 32, 32, 3, 20)
    assert raw.count(size) == 1
    file.write_bytes(raw.replace(size, struct.pack("<4i", 32, 32, 3, 2**30)))
    with memory_below(8_000_000), pytest.raises(DataError, match=r"does not hold 20 images"):
        load("svhn", svhn_folder)


def test_an_oversized_mat_file_is_not_even_opened(svhn_folder):
    with open(svhn_folder / "extra_32x32.mat", "wb") as file:
        file.truncate(svhn.MOST_BYTES + 1)
    with pytest.raises(DataError, match=r"extra_32x32\.mat: 1,500,000,001 bytes"):
        load("svhn", svhn_folder)


def test_imagenet_says_that_it_cannot_be_read_yet_and_what_can_be_done():
    with pytest.raises(DataError, match=r"^imagenet: .*not part of minidense yet.*summary.*predict") as refusal:
        load("imagenet")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["cifar100", "svhn"])
def test_a_missing_set_says_how_to_get_it(name, folders):
    with pytest.raises(DataError, match=rf"^{name} was not found in .*curl.*http") as refusal:
        load(name)
    assert "cifar-10-" not in str(refusal.value)


# -- damaged files ----------------------------------------------------------------------------------------------------


def test_a_truncated_binary_file_is_named(binary_folder):
    file = binary_folder / "data_batch_2.bin"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"data_batch_2\.bin: 61,459 bytes.*61,460"):
        archives.read_cifar10(binary_folder)


@pytest.mark.parametrize("size", [0, 1, 61_461, 2 * 61_460])
def test_a_binary_file_of_the_wrong_size_is_named(binary_folder, size):
    (binary_folder / "test_batch.bin").write_bytes(bytes(size))
    with pytest.raises(DataError, match=r"test_batch\.bin"):
        archives.read_cifar10(binary_folder)


def test_label_10_in_a_binary_file_is_refused(binary_folder):
    file = binary_folder / "data_batch_5.bin"
    file.write_bytes(b"\x0a" + file.read_bytes()[1:])
    with pytest.raises(DataError, match=r"data_batch_5\.bin.*10"):
        archives.read_cifar10(binary_folder)


@pytest.mark.parametrize("label", [10, -1, 2**31 - 1])
def test_a_label_outside_0_to_9_in_a_pickle_is_refused(python_folder, label):
    labels, pixels = PARTS["data_batch_5"]
    labels = [*labels[:-1], label]
    (python_folder / "data_batch_5").write_bytes(python2_pickle(labels, pixels, b"five"))
    with pytest.raises(DataError, match=r"data_batch_5.*labels"):
        archives.read_cifar10(python_folder)


def test_a_label_that_is_no_number_is_refused(python_folder):
    raw = (python_folder / "data_batch_1").read_bytes()
    first = integer(int(PARTS["data_batch_1"][0][0]))
    (python_folder / "data_batch_1").write_bytes(raw.replace(b"(" + first, b"(" + text(b"1"), 1))
    with pytest.raises(DataError, match=r"data_batch_1.*integers"):
        archives.read_cifar10(python_folder)


@pytest.mark.parametrize("change", ["one image less", "one label less", "half a row"])
def test_a_pickle_with_the_wrong_number_of_images_or_labels_is_refused(python_folder, change):
    labels, pixels = PARTS["test_batch"]
    if change == "one image less":
        pixels = pixels[:-1]
    elif change == "one label less":
        labels = labels[:-1]
    else:
        pixels = pixels[:, :1536]
    (python_folder / "test_batch").write_bytes(python2_pickle(labels, pixels, b"test"))
    with pytest.raises(DataError, match=r"test_batch.*20 images"):
        archives.read_cifar10(python_folder)


@pytest.mark.parametrize("keep", [0, 1, 2, 100, 400, 5000, -3, -1])
def test_a_truncated_pickle_is_named(python_folder, keep):
    file = python_folder / "data_batch_4"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(DataError, match="data_batch_4"):
        archives.read_cifar10(python_folder)


@pytest.mark.parametrize("name", archives.CIFAR10_PLACES)
def test_a_missing_file_is_named(name, tmp_path, small):
    files = binary_files() if "bin" in name else python_files()
    gone = next(file for file in files if file.startswith("data_batch_3"))
    del files[gone]
    with pytest.raises(DataError, match=rf"{name}: {gone} missing"):
        archives.read_cifar10(write(tmp_path / name, files))


def test_a_folder_in_the_place_of_a_file_counts_as_missing(binary_folder):
    (binary_folder / "test_batch.bin").unlink()
    (binary_folder / "test_batch.bin").mkdir()
    with pytest.raises(DataError, match=r"test_batch\.bin missing"):
        archives.read_cifar10(binary_folder)


def test_an_oversized_file_in_a_folder_is_not_even_read(binary_folder):
    with open(binary_folder / "test_batch.bin", "wb") as file:
        file.truncate(archives.MEMBER_BYTES + 1)  # a hole: takes no space on the disk
    with memory_below(4_000_000), pytest.raises(DataError, match=r"test_batch\.bin: 35,000,001 bytes"):
        archives.read_cifar10(binary_folder)


def hostile_member(kind: str) -> list[tuple[tarfile.TarInfo, bytes]]:
    name = "elsewhere/test_batch.bin"
    if kind == "duplicate":
        return [plain(name, binary_files()["test_batch.bin"])]
    if kind == "oversized":
        member, _ = plain(name, b"")
        member.size = 10_000_000_000
        return [(member, b"")]
    if kind == "oversized other":
        member, _ = plain("elsewhere/readme.html", b"")
        member.size = archives.MEMBER_BYTES + 1
        return [(member, b"")]
    types = {"symbolic link": tarfile.SYMTYPE, "hard link": tarfile.LNKTYPE, "folder": tarfile.DIRTYPE}
    types |= {"device": tarfile.CHRTYPE, "fifo": tarfile.FIFOTYPE}
    return [special(name, types[kind], "data_batch_1.bin")]


@pytest.mark.parametrize(
    "kind", ["duplicate", "oversized", "oversized other", "symbolic link", "hard link", "folder", "device", "fifo"]
)
@pytest.mark.parametrize("first", [True, False], ids=["in place of the file", "besides the file"])
def test_a_hostile_member_of_an_archive_is_refused(kind, first, tmp_path, small):
    files = binary_files()
    if first and kind != "duplicate":
        del files["test_batch.bin"]
    place = tmp_path / BINARY_ARCHIVE
    place.write_bytes(archive_of(files, "cifar-10-batches-bin", hostile_member(kind)))
    with pytest.raises(DataError, match=rf"{BINARY_ARCHIVE}: elsewhere/") as refusal:
        archives.read_cifar10(place)
    assert ("bytes" if "oversized" in kind else "twice or is not a plain file") in str(refusal.value)


def cut_in_half(raw: bytes) -> bytes:
    return raw[: len(raw) // 2]


def one_byte_wrong(raw: bytes) -> bytes:
    return raw[: len(raw) // 2] + bytes([raw[len(raw) // 2] ^ 0xFF]) + raw[len(raw) // 2 + 1 :]


def first_header(raw: bytes, size: int, kind: bytes = b"0") -> bytes:
    """The archive with another size, in tar's notation for large numbers, and type in its first header; the checksum is right."""
    header = bytearray(raw[:512])
    header[124:136] = b"\x80" + size.to_bytes(11, "big")
    header[156:157] = kind
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + raw[512:]


DAMAGED_ARCHIVES = {
    "empty": lambda raw: b"",
    "a web page": lambda raw: b"<html>log in to the network</html>" * 50,
    "zeros": lambda raw: bytes(10_000),
    "zeros in gzip": lambda raw: gzip.compress(bytes(10_000)),
    "gzip cut": lambda raw: cut_in_half(gzip.compress(raw)),
    "gzip with a wrong byte": lambda raw: one_byte_wrong(gzip.compress(raw)),
    "gzip without its last byte": lambda raw: gzip.compress(raw)[:-1],
    "gzip of half an archive": lambda raw: gzip.compress(cut_in_half(raw)),
    "xz cut": lambda raw: cut_in_half(lzma.compress(raw, preset=0)),
    "xz with a wrong byte": lambda raw: one_byte_wrong(lzma.compress(raw, preset=0)),
    "a size of -1": lambda raw: gzip.compress(raw[:124] + b"\xff" * 12 + raw[136:]),
    "a size of 2^70": lambda raw: gzip.compress(first_header(raw, 2**70)),
    "a long name of 2^70 bytes": lambda raw: gzip.compress(first_header(raw, 2**70, tarfile.GNUTYPE_LONGNAME)),
    "a long name of 2^45 bytes": lambda raw: gzip.compress(first_header(raw, 2**45, tarfile.GNUTYPE_LONGNAME)),
    "a pax header of 2^45 bytes": lambda raw: gzip.compress(first_header(raw, 2**45, tarfile.XHDTYPE)),
}


@pytest.mark.parametrize("damage", DAMAGED_ARCHIVES)
def test_a_damaged_archive_is_named(damage, tmp_path, small):
    place = tmp_path / BINARY_ARCHIVE
    members = [plain(name, content) for name, content in binary_files().items()]
    place.write_bytes(DAMAGED_ARCHIVES[damage](tar([special("cifar", tarfile.DIRTYPE), *members])))
    with pytest.raises(DataError, match=BINARY_ARCHIVE):
        archives.read_cifar10(place)


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE], ids=["long name", "pax header"])
def test_a_gigantic_header_is_refused_before_it_fills_the_memory(kind, tmp_path, small):
    """100 MB of zeros are 100 kB in gzip. tarfile reads such headers whole before it shows any member."""
    member = tarfile.TarInfo("x")
    member.type, member.size = kind, 100_000_000
    place = tmp_path / BINARY_ARCHIVE
    place.write_bytes(gzip.compress(member.tobuf() + bytes(100_000_000 + -100_000_000 % 512) + tar([]), 1))
    with memory_below(50_000_000), pytest.raises(DataError, match=BINARY_ARCHIVE):  # the largest official file is 31 MB
        archives.read_cifar10(place)


def test_an_archive_of_very_many_members_is_refused_before_their_names_fill_the_memory(tmp_path, small):
    """tarfile remembers every member, 400 bytes each, and gzip makes millions of them from a small file."""
    member, _ = plain("cifar/x", b"")
    place = tmp_path / BINARY_ARCHIVE
    place.write_bytes(gzip.compress(member.tobuf() * 20_000 + tar([]), 1))
    with memory_below(4_000_000), pytest.raises(DataError, match=BINARY_ARCHIVE):
        archives.read_cifar10(place)


# -- where a data set is looked for -----------------------------------------------------------------------------------


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """The places where a search may end, in order: $MINIDENSE_DATA, datasets/ here, the user's cache. None holds anything yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINIDENSE_DATA", str(tmp_path / "named"))
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda app: str(tmp_path / "cache" / app))
    found = [tmp_path / "named", Path("datasets"), tmp_path / "cache" / "minidense"]
    for folder in found:
        folder.mkdir(parents=True)
    return found


def find(data_dir=None) -> Path:
    return datasets.find("cifar10", archives.CIFAR10_PLACES, data_dir)


def test_the_named_folder_comes_before_datasets_before_the_cache(folders):
    for folder in folders:
        (folder / PYTHON_FOLDER).mkdir()
    for folder in folders:
        assert find() == folder / PYTHON_FOLDER
        (folder / PYTHON_FOLDER).rmdir()
    with pytest.raises(DataError):
        find()


def test_the_binary_layout_comes_before_the_python_layout(folders):
    made = [folders[0] / place for place in archives.CIFAR10_PLACES]
    for place in made:
        place.mkdir()
    for place in (folders[0] / p for p in (BINARY_FOLDER, BINARY_ARCHIVE, PYTHON_FOLDER, PYTHON_ARCHIVE)):
        assert find() == place
        place.rmdir()


def test_an_earlier_folder_wins_over_a_more_trusted_layout(folders):
    (folders[0] / PYTHON_ARCHIVE).touch()
    (folders[1] / BINARY_FOLDER).mkdir()
    assert find() == folders[0] / PYTHON_ARCHIVE


def test_with_data_dir_only_that_folder_counts(folders, tmp_path):
    for folder in folders:
        (folder / BINARY_FOLDER).mkdir()
    (tmp_path / "mine").mkdir()
    with pytest.raises(DataError) as refusal:
        find(tmp_path / "mine")
    assert str(tmp_path / "mine") in str(refusal.value)
    assert "named" not in str(refusal.value)
    (tmp_path / "mine" / PYTHON_FOLDER).mkdir()
    assert find(tmp_path / "mine") == tmp_path / "mine" / PYTHON_FOLDER


@pytest.mark.parametrize("name", archives.CIFAR10_PLACES)
def test_data_dir_may_be_the_set_itself(name, folders, tmp_path):
    place = tmp_path / "mine" / name
    place.parent.mkdir()
    place.touch() if name.endswith(".gz") else place.mkdir()
    assert find(place) == place


def test_the_search_does_without_the_environment_variable(folders, monkeypatch):
    monkeypatch.delenv("MINIDENSE_DATA")
    (folders[0] / BINARY_FOLDER).mkdir()
    (folders[2] / BINARY_FOLDER).mkdir()
    assert find() == folders[2] / BINARY_FOLDER


def test_a_named_folder_that_is_not_there_does_not_end_the_search(folders):
    folders[0].rmdir()
    (folders[1] / BINARY_FOLDER).mkdir()
    assert find() == folders[1] / BINARY_FOLDER


def test_a_missing_set_says_where_it_was_looked_for_and_how_to_get_it(folders):
    with pytest.raises(DataError) as refusal:
        load("cifar10")
    message = str(refusal.value)
    for folder in folders:
        assert str(folder) in message
    for word in (*archives.CIFAR10_PLACES, "cifar10 was not found", "curl", "https://", "--data-dir", "MINIDENSE_DATA"):
        assert word in message
    assert "\n" not in message


def test_a_data_dir_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(DataError, match="nowhere: no such folder"):
        find(tmp_path / "nowhere")


def test_load_reads_the_set_that_the_search_finds(folders, small):
    write(folders[1] / PYTHON_FOLDER, python_files())
    cifar10 = load("cifar10")
    np.testing.assert_array_equal(cifar10.train_labels, np.concatenate([PARTS[name][0] for name in archives.TRAIN]))
    np.testing.assert_array_equal(cifar10.test_images.reshape(-1, 3072), PARTS["test_batch"][1])
    assert len(cifar10.class_names) == 10


# -- hostile pickles --------------------------------------------------------------------------------------------------

P2 = b"\x80\x02"
COMMAND = text(b"mkdir canary")
MKDIR = b"cos\nmkdir\n" + text(b"canary") + b"\x85R"
LAUGHS = b"](" + text(b"ha") + b"e" + b"".join(b"q%c](" % i + (b"h%c" % i) * 10 + b"e" for i in range(60))

# Python's own unpickler makes the folder "canary" when it is given one of these.
POISON = {
    "os.system by GLOBAL and REDUCE": P2 + b"cos\nsystem\n" + COMMAND + b"\x85R.",
    "os.system in protocol 0": b"cos\nsystem\n(S'mkdir canary'\ntR.",
    "os.system by STACK_GLOBAL": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0cmkdir canary\x85R.",
    "os.system by INST": b"(S'mkdir canary'\nios\nsystem\n.",
    "os.system by OBJ": b"(cos\nsystem\n" + COMMAND + b"o.",
    "eval": P2 + b"c__builtin__\neval\n" + text(b"__import__('os').mkdir('canary')") + b"\x85R.",
    "exec in protocol 3": b"\x80\x03cbuiltins\nexec\nX\x20\x00\x00\x00__import__('os').mkdir('canary')\x85R.",
    "getattr of an imported module": P2
    + b"c__builtin__\ngetattr\ncimportlib\nimport_module\nU\x02os\x85RU\x05mkdir\x86RU\x06canary\x85R.",
    "BUILD that plants __setstate__": P2
    + b"cargparse\nNamespace\n)\x81}"
    + text(b"__setstate__")
    + b"cos\nmkdir\nsb"
    + text(b"canary")
    + b"b.",
    "NEWOBJ of a lazy map": P2 + b"cbuiltins\nbytes\ncbuiltins\nmap\ncos\nmkdir\n](U\x06canarye\x86\x81\x85\x81.",
    "NEWOBJ_EX": b"\x80\x04cbuiltins\nbytes\ncbuiltins\nmap\ncos\nmkdir\n](\x8c\x06canarye\x86\x81\x85}\x92.",
    "protocol 5 in a frame": b"\x80\x05\x95\x1e\x00\x00\x00\x00\x00\x00\x00"
    + b"\x8c\x02os\x8c\x06system\x93\x8c\x0cmkdir canary\x85R.",
    "a call among the labels": P2 + b"}(" + text(b"labels") + b"](" + MKDIR + b"eu.",
    "a call as a dictionary's key": P2 + b"}(" + MKDIR + b"K\x01u.",
    "a call whose result is thrown away": P2 + MKDIR + b"0}.",
    "a call in a good file": python2_pickle(*PARTS["test_batch"], b"TITLE").replace(
        text(b"TITLE"), b"](" + MKDIR + b"e", 1
    ),
    "a call before a good pickle": P2 + MKDIR + b"0" + python2_pickle(*PARTS["test_batch"], b"test")[2:],
}

HOSTILE = {
    **POISON,
    "EXT1": P2 + b"\x82\x01.",
    "EXT2": P2 + b"\x83\x01\x01.",
    "EXT4": P2 + b"\x84\x01\x01\x01\x01.",
    "PERSID": b"Pcanary\n.",
    "BINPERSID": P2 + text(b"canary") + b"Q.",
    "out-of-band buffer": b"\x80\x05\x97.",
    "read-only buffer": b"\x80\x05\x97\x98.",
    "protocol 5, nothing else": b"\x80\x05}.",
    "protocol 255": b"\x80\xff}.",
    "bytes as Python 3 wrote them": P2 + b"c_codecs\nencode\nX\x01\x00\x00\x00aX\x06\x00\x00\x00latin1\x86R.",
    "a global behind a known one": P2 + b"cnumpy.core.multiarray\n_reconstruct.__globals__\n.",
    "a known name in another module": P2 + b"cnumpy.core.multiarray2\n_reconstruct\n.",
    "a relative of a known one": P2 + b"cnumpy.core.multiarray\nscalar\n.",
    "BINSTRING that declares 2 GB": P2 + b"T\xff\xff\xff\x7f" + b"x" * 100 + b".",
    "BINSTRING of negative length": P2 + b"T\xff\xff\xff\xff" + b"x" * 100 + b".",
    "BINUNICODE that declares 4 GB": P2 + b"X\xff\xff\xff\xff.",
    "BINUNICODE8 that declares 2^63 bytes": b"\x80\x04\x8d" + struct.pack("<Q", 2**63) + b".",
    "BINBYTES8 that declares 2^62 bytes": b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b".",
    "BYTEARRAY8 that declares 2^62 bytes": b"\x80\x05\x96" + struct.pack("<Q", 2**62) + b".",
    "FRAME that declares 2^62 bytes": b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"}.",
    "LONG4 that declares 2 GB": P2 + b"\x8b\xff\xff\xff\x7f.",
    "LONG4 of negative length": P2 + b"\x8b\xff\xff\xff\xff.",
    "LONG in 5,000 digits": b"L" + b"9" * 5000 + b"L\n.",
    "a string with a wrong escape": b"S'\\q'\n.",
    "memo entry 2^32 - 1": P2 + b"}r\xff\xff\xff\xff.",
    "memo entry that nobody wrote": P2 + b"h\x05.",
    "memo of an empty stack": P2 + b"q\x00.",
    "a billion laughs": P2 + b"}(" + text(b"data") + LAUGHS + b"u.",
    "a list that holds itself": P2 + b"}(" + text(b"labels") + b"]q\x00(h\x00eu.",
    "20,000 tuples in each other": P2 + b"}(" + text(b"data") + b"K\x01" + b"\x85" * 20_000 + b"u.",
    "3,000 lists in each other": P2 + b"}(" + text(b"data") + b"](" * 3000 + b"e" * 3000 + b"u.",
    "3,000 tuples as the key": P2 + b"}(K\x01" + b"\x85" * 3000 + b"K\x01u.",
    "20,000 marks": P2 + b"(" * 20_000 + b".",
    "STOP of nothing": b".",
    "a mark as the result": P2 + b"(.",
    "APPENDS to nothing": P2 + b"(e.",
    "APPENDS to a dictionary": P2 + b"}(K\x01e.",
    "APPENDS without a mark": P2 + b"]K\x01e.",
    "SETITEMS of an odd number": P2 + b"}(K\x01K\x02K\x03u.",
    "a list as the key": P2 + b"}(]K\x01u.",
    "TUPLE3 of one": P2 + b"K\x01\x87.",
    "REDUCE of a number": P2 + b"K\x01K\x02\x85R.",
    "BUILD of a dictionary": P2 + b"}}b.",
    "NEWTRUE": P2 + b"\x88.",
    "DUP": P2 + b"}2.",
    "POP_MARK": P2 + b"}(K\x011.",
    "a number": P2 + b"K\x01.",
    "an empty dictionary": P2 + b"}.",
    "a bare array": P2 + ARRAY + b".",
}


@pytest.mark.parametrize("name", POISON)
def test_the_poison_is_real(name, tmp_path, monkeypatch):
    """Otherwise it would prove nothing that our reader does not make the folder."""
    monkeypatch.chdir(tmp_path)
    with suppress(Exception):
        pickle.loads(POISON[name])
    assert Path("canary").exists()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_pickle_is_refused_and_not_executed(name, python_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (python_folder / "data_batch_3").write_bytes(HOSTILE[name])
    # 8 MB: the files have 0.4 MB together, and a stack of 20,000 nested tuples 2 MB
    with memory_below(8_000_000), pytest.raises(DataError, match="data_batch_3"):
        archives.read_cifar10(python_folder)
    assert not Path("canary").exists()


def pixels_of(state: bytes, array: bytes = ARRAY) -> bytes:
    return P2 + b"}(" + text(b"data") + array + state + b"u."


def test_a_plain_array_comes_out_as_its_bytes():
    assert read_literals(pixels_of(array_state(integer(2) + integer(3) + b"\x86", text(b"abcdef")))) == {
        b"data": b"abcdef"
    }


SIX = integer(6) + b"\x85"
ODD_ARRAYS = {
    "objects": array_state(SIX, b"](NNNNNNe", dtype=b"cnumpy\ndtype\nU\x02O8K\x00K\x01\x87R"),
    "Fortran order": array_state(integer(2) + integer(3) + b"\x86", text(b"abcdef"), is_fortran=integer(1)),
    "too few bytes": array_state(SIX, text(b"abcde")),
    "too many bytes": array_state(SIX, text(b"abcdefg")),
    "four bytes a number": array_state(SIX, text(b"abcdef" * 4), dtype=b"cnumpy\ndtype\nU\x02i4K\x00K\x01\x87R"),
    "a number for its type": array_state(SIX, text(b"abcdef"), dtype=integer(1)),
    "an array for its type": array_state(SIX, text(b"abcdef"), dtype=ARRAY),
    "a shape of words": array_state(text(b"ab") + b"\x85", text(b"abcdef")),
    "a shape of nothing": array_state(b"N\x85", text(b"abcdef")),
    "no shape": array_state(b"N", text(b"abcdef")),
    "a state too short": b"(K\x01tb",
    "a state that is a string": text(b"abcde") + b"b",
    "no state": b"",
    "a shape of 20 lists": array_state(b"(" + b"]" * 20 + b"t", text(b"abcdef")),
}


@pytest.mark.parametrize("name", ODD_ARRAYS)
def test_an_array_that_is_not_plain_bytes_is_refused(name):
    with pytest.raises(DataError, match="the pickle"):
        read_literals(pixels_of(ODD_ARRAYS[name]))


@pytest.mark.parametrize("repeated", [text(b"x" * 8), b"](NNNNNNNNe"], ids=["bytes", "list"])
def test_a_shape_that_multiplies_bytes_does_not_fill_the_memory(repeated):
    """2²³ times 8 is 64 MB here; a hostile file would say 2³¹ times 10⁷."""
    raw = pixels_of(array_state(integer(2**23) + repeated + b"\x86", text(b"abcdef")))
    with memory_below(8_000_000), pytest.raises(DataError):
        read_literals(raw)


def test_a_deeply_nested_key_is_refused_and_does_not_crash_python():
    """hash() of a tuple goes down into it on the C stack, without a limit: a million levels end the process."""
    code = (
        "from minidense.data.pickles import read_literals\n"
        "try: read_literals(b'\\x80\\x02}(K\\x01' + b'\\x85' * 1_000_000 + b'K\\x01u.')\n"
        "except ValueError as error: print(type(error).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "DataError\n")


def test_reading_takes_time_in_proportion_to_the_file():
    """Each TUPLE looks for its mark: from the top of the stack that is near, whatever lies below."""
    raw = P2 + b"N" * 60_000 + b"(t" * 30_000 + b"."
    start = time.thread_time()
    with pytest.raises(DataError):
        read_literals(raw)
    seconds = time.thread_time() - start
    assert seconds < 1.5  # 120,000 instructions take 0.2 s; going through the whole stack for each mark takes 4 s


VALID = python2_pickle([3, 1, 4], np.arange(12, dtype=np.uint8).reshape(3, 4), b"small")


def test_the_small_pickle_that_is_mutated_is_valid():
    batch = read_literals(VALID)
    assert batch[b"labels"] == [3, 1, 4]
    assert batch[b"data"] == bytes(range(12))


def read_or_refuse(raw: bytes) -> None:
    with suppress(DataError):
        read_literals(raw, "fuzz")


@fuzz
@given(st.binary(max_size=400), st.sampled_from([b"", P2, b"\x80\x04", P2 + b"}(", P2 + b"](K\x01"]))
@example(b"S'\\q'\n.", b"")
@example(b"V\\u12\n.", b"")
@example(b"L" + b"9" * 5000 + b"L\n.", b"")
def test_random_bytes_are_refused_or_read(raw, beginning):
    read_or_refuse(beginning + raw)


@fuzz
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["set", "insert", "delete", "repeat", "cut"]),
            st.integers(0, len(VALID) - 1),
            st.binary(min_size=1, max_size=9),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_mutations_of_a_valid_pickle_are_refused_or_read(mutations):
    raw = VALID
    for how, place, piece in mutations:
        match how:
            case "set":
                raw = raw[:place] + piece + raw[place + len(piece) :]
            case "insert":
                raw = raw[:place] + piece + raw[place:]
            case "delete":
                raw = raw[:place] + raw[place + len(piece) :]
            case "repeat":
                raw = raw[:place] + raw[place : place + 5 * len(piece)] * 3 + raw[place:]
            case "cut":
                raw = raw[: place + len(raw) - len(VALID)] if len(raw) > len(VALID) else raw[:place]
    read_or_refuse(raw)


@pytest.mark.parametrize("keep", range(0, len(VALID), 3))
def test_every_truncation_of_a_valid_pickle_is_refused(keep):
    with pytest.raises(DataError):
        read_literals(VALID[:keep])


@fuzz
@given(st.lists(st.tuples(st.integers(0, 2047), st.integers(0, 255)), min_size=1, max_size=6), st.booleans())
@example([(124, 128), (156, ord("L"))], True)
def test_mutated_archives_are_refused_or_read(changes, repair):
    """Changes in the first two headers and their files; with `repair`, the headers' checksums are made right again."""
    raw = bytearray(tar([plain("cifar/a", bytes(512)), plain("cifar/b", bytes(512))]))
    for place, value in changes:
        raw[place] = value
    for header in (0, 1024) if repair else ():
        raw[header + 148 : header + 156] = b" " * 8
        raw[header + 148 : header + 156] = b"%06o\0 " % sum(raw[header : header + 512])
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / BINARY_ARCHIVE
        place.write_bytes(gzip.compress(raw, 1))
        with suppress(DataError):
            archives.read_files(place, ["a", "b"])


# -- the real CIFAR-10, where it is there -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cifar10():
    """The set as the package's own rules find it: $MINIDENSE_DATA, datasets/, the user's cache."""
    try:
        find()
    except DataError as error:
        pytest.skip(str(error))
    return load("cifar10")


def test_the_real_cifar10_has_5000_training_and_1000_test_images_a_class(cifar10):
    assert cifar10.train_images.shape == (50_000, 3, 32, 32)
    assert cifar10.test_images.shape == (10_000, 3, 32, 32)
    np.testing.assert_array_equal(np.bincount(cifar10.train_labels), [5_000] * 10)
    np.testing.assert_array_equal(np.bincount(cifar10.test_labels), [1_000] * 10)


def test_mean_and_std_of_the_real_cifar10_are_those_of_its_training_part(cifar10):
    counts = sum(
        np.stack([np.bincount(part[:, c].ravel(), minlength=256) for c in range(3)])
        for part in np.array_split(cifar10.train_images, 20)  # bincount makes 8 bytes of each
    )
    levels, n = np.arange(256), 50_000 * 1024
    mean = counts @ levels / n
    std = np.sqrt(counts @ levels**2 / n - mean**2)
    np.testing.assert_allclose(cifar10.mean, mean, rtol=0, atol=0.05)  # printed with one decimal
    np.testing.assert_allclose(cifar10.std, std, rtol=0, atol=0.05)


@pytest.mark.slow
def test_both_layouts_of_the_real_cifar10_are_equal(cifar10):
    folder = find().parent
    binary = next((folder / p for p in (BINARY_FOLDER, BINARY_ARCHIVE) if (folder / p).exists()), None)
    python = next((folder / p for p in (PYTHON_FOLDER, PYTHON_ARCHIVE) if (folder / p).exists()), None)
    if binary is None or python is None:
        pytest.skip(f"{folder} holds only one of the two layouts")
    for a, b in zip(archives.read_cifar10(binary), archives.read_cifar10(python), strict=True):
        np.testing.assert_array_equal(a, b)


# -- the real CIFAR-100, where it is there ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cifar100():
    try:
        return load("cifar100")
    except DataError as error:
        pytest.skip(str(error))


def test_the_real_cifar100_has_500_training_and_100_test_images_a_class(cifar100):
    assert (cifar100.train_images.shape, cifar100.test_images.shape) == ((50_000, 3, 32, 32), (10_000, 3, 32, 32))
    np.testing.assert_array_equal(np.bincount(cifar100.train_labels), [500] * 100)
    np.testing.assert_array_equal(np.bincount(cifar100.test_labels), [100] * 100)
    assert len(set(cifar100.class_names)) == 100
    assert list(cifar100.class_names) == sorted(cifar100.class_names)


def test_mean_and_std_of_the_real_cifar100_are_those_of_its_training_part(cifar100):
    levels, n = np.arange(256), 50_000 * 1024
    for c in range(3):
        counts = sum(
            np.bincount(part[:, c].ravel(), minlength=256) for part in np.array_split(cifar100.train_images, 20)
        )
        mean = counts @ levels / n
        assert cifar100.mean[c] == pytest.approx(mean, abs=0.05)  # printed with one decimal
        assert cifar100.std[c] == pytest.approx(np.sqrt(counts @ levels**2 / n - mean**2), abs=0.051)


@pytest.mark.slow
def test_both_layouts_of_the_real_cifar100_are_equal_and_its_names_fit_its_kinds(cifar100):
    folder = datasets.find("cifar100", archives.CIFAR100_PLACES).parent
    layouts = [
        [p for p in places if (folder / p).exists()]
        for places in (archives.CIFAR100_PLACES[:2], archives.CIFAR100_PLACES[2:])
    ]
    if not all(layouts):
        pytest.skip(f"{folder} holds only one of the two layouts")
    for a, b in zip(*(archives.read_cifar100(folder / places[0]) for places in layouts), strict=True):
        np.testing.assert_array_equal(a, b)
    if not (folder / layouts[0][0]).is_dir():
        return
    # The coarse label stands before the fine one: kind 0 is aquatic mammals, 14 people, 17 trees.
    records = np.frombuffer((folder / layouts[0][0] / "test.bin").read_bytes(), np.uint8).reshape(-1, 3074)
    kinds = {
        kind: {cifar100.class_names[fine] for fine in np.unique(records[records[:, 0] == kind, 1])}
        for kind in (0, 14, 17)
    }
    assert kinds == {
        0: {"beaver", "dolphin", "otter", "seal", "whale"},
        14: {"baby", "boy", "girl", "man", "woman"},
        17: {"maple_tree", "oak_tree", "palm_tree", "pine_tree", "willow_tree"},
    }


# -- images held out --------------------------------------------------------------------------------------------------


def by_number(labels) -> Dataset:
    """Images that are their own number, with these labels."""
    labels = np.asarray(labels)
    images = np.arange(len(labels), dtype=np.uint16)[:, None, None, None] + np.zeros((1, 1, 2, 2), np.uint16)
    names = tuple(map(str, range(labels.max() + 1)))
    return Dataset("numbers", images, labels, images[:3], labels[:3], names, (0.0,), (1.0,), 0, False)


def numbers_of(images) -> list[int]:
    return images[:, 0, 0, 0].tolist()


@pytest.mark.parametrize("count", [1, 10, 37, 200, 999])
def test_validation_images_are_apart_from_training_and_nothing_is_lost(count):
    dataset = by_number(np.random.default_rng(0).integers(0, 10, 1000))
    held = dataset.hold_out(count)
    assert len(held.validation_labels) == count
    assert sorted(numbers_of(held.train_images) + numbers_of(held.validation_images)) == list(range(1000))
    for images, labels in ((held.train_images, held.train_labels), (held.validation_images, held.validation_labels)):
        np.testing.assert_array_equal(labels, dataset.train_labels[numbers_of(images)])
        assert numbers_of(images) == sorted(numbers_of(images))
    np.testing.assert_array_equal(held.test_images, dataset.test_images)


@pytest.mark.parametrize("count", [10, 15, 200])
def test_validation_images_are_spread_evenly_over_the_classes(count):
    held = by_number(np.random.default_rng(0).integers(0, 10, 1000)).hold_out(count)
    counts = np.bincount(held.validation_labels, minlength=10)
    assert counts.sum() == count
    assert counts.max() - counts.min() == (count % 10 > 0)


def test_a_class_with_too_few_images_gives_what_it_has():
    held = by_number([0] * 50 + [1] * 3 + [2] * 50).hold_out(31)
    assert np.bincount(held.validation_labels).tolist() == [14, 3, 14]


def test_validation_images_are_chosen_by_chance_but_always_the_same():
    dataset = by_number(np.arange(1000) % 10)
    first, again = (numbers_of(dataset.hold_out(100).validation_images) for _ in range(2))
    assert first == again
    assert first != list(range(100))
    assert max(first) > 900


def test_a_third_of_svhns_validation_images_are_extra_ones():
    """400 of each class from its training file and 200 from the extra one, as the Stochastic_Depth code has them; here 40 and 20."""
    labels = np.random.default_rng(0).permutation(np.arange(5000) % 10)
    held = replace(by_number(labels), easier_from=1000).hold_out(600)
    extra = np.array(numbers_of(held.validation_images)) >= 1000
    np.testing.assert_array_equal(np.bincount(held.validation_labels[~extra]), [40] * 10)
    np.testing.assert_array_equal(np.bincount(held.validation_labels[extra]), [20] * 10)


@pytest.mark.parametrize(("first", "count"), [(900, 300), (1010, 300), (1100, 1090)])
def test_where_there_are_not_enough_extra_images_others_take_their_place(first, count):
    held = replace(by_number(np.arange(5000) % 10), easier_from=1000).first(first).hold_out(count)
    assert len(held.validation_labels) == count
    assert len(held.train_labels) == first - count


def test_something_must_stay_to_train_on():
    assert by_number([0, 1]).hold_out(0).validation_images is None
    with pytest.raises(ConfigError, match=r"numbers: of 4 training images 4 are to be held out"):
        by_number([0, 1, 0, 1]).hold_out(4)


def test_validation_images_move_to_the_gpu_too_and_stand_in_for_the_test(device):
    there = load("digits").first(50, 20).hold_out(10).to(device)
    assert device_of(there.validation_images) == device_of(there.validation_labels) == device
    ((images, labels),) = test_batches(there.validating(), size=10)
    expected = load("digits").first(50, 20).hold_out(10)
    np.testing.assert_array_equal(to_numpy(labels), expected.validation_labels)
    np.testing.assert_array_equal(to_numpy(images), normalise(expected.validation_images, expected.mean, expected.std))


# -- whole sets treated once ------------------------------------------------------------------------------------------

LEARNT = ("pixel_mean", "pixel_mean_std", "gcn", "zca")


def random_set(n: int = 2500, shape=(3, 4, 4), seed: int = 0) -> Dataset:
    """Photographs of a kind: neighbouring pixels are alike, channels and places have levels of their own."""
    rng = np.random.default_rng(seed)
    images = rng.normal(0, 20, (n + 40, *shape)).cumsum(-1) + rng.uniform(60, 180, shape)
    images = images.clip(0, 255).astype(np.uint8)
    labels = np.arange(n + 40) % 10
    return Dataset(
        "random", images[:n], labels[:n], images[n:], labels[n:], tuple("0123456789"), (9.0,) * 3, (8.0,) * 3, 1, True
    )


def test_channel_and_scale_leave_bytes_and_only_say_what_is_to_be_done():
    dataset = random_set()
    assert dataset.normalised("channel") is dataset
    scaled = dataset.normalised("scale")
    assert scaled.train_images is dataset.train_images
    ((images, _),) = test_batches(scaled, size=40)
    np.testing.assert_array_equal(images, dataset.test_images.astype(np.float32) / np.float32(255))


def test_scale_divides_by_the_brightest_level_there_is():
    """Otherwise digits, which are drawn in 17 levels, would all be nearly black."""
    digits = load("digits").normalised("scale")
    assert digits.levels == digits.train_images.max() == digits.test_images.max() == 16
    ((images, _),) = test_batches(digits, size=360)
    assert (images.min(), images.max()) == (0, 1)


@pytest.mark.parametrize("how", LEARNT)
def test_what_is_learnt_from_a_set_is_float32_and_needs_nothing_more(how):
    done = random_set().hold_out(100).normalised(how)
    for images in (done.train_images, done.validation_images, done.test_images):
        assert images.dtype == np.float32
        assert np.isfinite(images).all()
    ((images, _),) = test_batches(done, size=40)
    np.testing.assert_array_equal(images, done.test_images)


@pytest.mark.parametrize("how", LEARNT)
def test_only_training_images_are_learnt_from(how):
    """Other images to validate and to test on change nothing for the training images, and each is treated by itself."""
    dataset = random_set(1100).hold_out(100)
    other = replace(
        dataset, test_images=dataset.test_images[::-1] // 2, validation_images=255 - dataset.validation_images
    )
    a, b = dataset.normalised(how), other.normalised(how)
    np.testing.assert_array_equal(a.train_images, b.train_images)
    swapped = replace(dataset, test_images=dataset.validation_images, validation_images=dataset.test_images).normalised(
        how
    )
    np.testing.assert_allclose(
        swapped.validation_images, a.test_images, atol=1e-5
    )  # the same float32 sums in other batches


def test_pixel_mean_takes_the_mean_image_away():
    dataset = random_set()
    done = dataset.normalised("pixel_mean")
    mean = dataset.train_images.astype(np.float64).mean(0)
    np.testing.assert_allclose(done.train_images, dataset.train_images - mean, atol=1e-4)  # levels to 255 in float32
    np.testing.assert_allclose(done.test_images, dataset.test_images - mean, atol=1e-4)
    assert abs(done.train_images.mean(0, dtype=np.float64)).max() < 1e-5


def test_pixel_mean_std_also_divides_by_the_deviation_of_all_values():
    """Of the values as they are, about their one mean: that is when the Stochastic_Depth code computes it."""
    dataset = random_set()
    values = dataset.train_images.astype(np.float64)
    expected = (dataset.test_images - values.mean(0)) / values.std()
    np.testing.assert_allclose(dataset.normalised("pixel_mean_std").test_images, expected, atol=1e-6)


def test_contrast_normalisation_of_an_image_by_hand():
    """(1, 3, 5, 7) less 4 is (−3, −1, 1, 3), of length √20."""
    image = np.array([1, 3, 5, 7], np.uint8).reshape(1, 1, 2, 2)
    expected = np.array([-3, -1, 1, 3]) * 55 / np.sqrt(20)
    np.testing.assert_allclose(whitening.contrast_normalised(image).ravel(), expected, rtol=1e-6)


def test_contrast_normalised_images_have_mean_0_and_length_55():
    images = random_set().normalised("gcn").train_images.reshape(2500, -1).astype(np.float64)
    np.testing.assert_allclose(images.mean(1), 0, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(images, axis=1), 55, rtol=1e-6)


def test_whitened_training_images_have_a_covariance_near_the_identity():
    """Along each direction of variance λ what is left is λ/(λ + 0.1); here all but one λ are above 1.

    The one is that of a picture in one colour, which contrast normalisation has taken out of all of them.
    """
    dataset = random_set()
    x, contrast = (dataset.normalised(how).train_images.reshape(2500, -1).astype(np.float64) for how in ("zca", "gcn"))
    np.testing.assert_allclose(x.mean(0), 0, atol=1e-4)
    covariance, variances = np.cov(x.T, bias=True), np.linalg.eigvalsh(np.cov(contrast.T, bias=True))
    left = np.linalg.eigvalsh(covariance)
    np.testing.assert_allclose(np.sort(left), np.sort(variances / (variances + 0.1)), atol=1e-4)
    assert variances[1] > 1
    assert left[1] > 0.9
    colour = np.full(48, 1 / np.sqrt(48))
    np.testing.assert_allclose(covariance + np.outer(colour, colour), np.eye(48), atol=0.1)


def test_zca_is_the_formula_of_its_docstring():
    dataset = random_set()
    contrast = whitening.contrast_normalised(dataset.train_images).reshape(2500, -1).astype(np.float64)
    variances, directions = np.linalg.eigh(np.cov(contrast.T, bias=True) + 0.1 * np.eye(48))  # as pylearn2 writes it
    matrix = directions @ np.diag(variances**-0.5) @ directions.T
    test = whitening.contrast_normalised(dataset.test_images).reshape(40, -1)
    expected = ((test - contrast.mean(0)) @ matrix).reshape(dataset.test_images.shape)
    np.testing.assert_allclose(
        dataset.normalised("zca").test_images, expected, atol=1e-4
    )  # float32 sums of 48 terms up to 20


@pytest.mark.parametrize("how", LEARNT)
@pytest.mark.parametrize("kind", ["one image", "fewer images than pixels", "all alike", "one colour each", "black"])
def test_tiny_and_constant_sets_give_finite_numbers(how, kind):
    dataset = random_set(30)
    images = {
        "one image": dataset.train_images[:1],
        "fewer images than pixels": dataset.train_images,
        "all alike": dataset.train_images[:1].repeat(30, 0),
        "one colour each": np.arange(30, dtype=np.uint8)[:, None, None, None].repeat(3, 1).repeat(4, 2).repeat(4, 3),
        "black": np.zeros((30, 3, 4, 4), np.uint8),
    }[kind]
    done = replace(dataset, train_images=images, train_labels=np.arange(len(images)) % 10).normalised(how)
    for treated in (done.train_images, done.test_images):
        assert np.isfinite(treated).all()
        assert abs(treated).max() < 1000


def test_an_unknown_normalisation_is_refused():
    with pytest.raises(ConfigError, match="'mean'; choose one of channel"):
        random_set(20).normalised("mean")


# -- augmentation -----------------------------------------------------------------------------------------------------


def on(device, array):
    return library(device).asarray(array)


def marked_images(n: int, c: int = 2, h: int = 5, w: int = 4) -> np.ndarray:
    """Images in which every pixel has a value of its own, from 1 up."""
    return 1 + np.arange(n * c * h * w, dtype=np.float32).reshape(n, c, h, w)


KEYS = [(0, 0), (1, 2), (2**64 - 1, 3), (3, 2**64 - 1), (0x0123456789ABCDEF, 0xFEDCBA9876543210)]


def philox4x64(counter, key) -> list[int]:
    """Ten rounds on four words of 64 bits (Salmon et al. 2011, section 3.3), one number at a time."""
    (a, b, c, d), (k0, k1) = counter, key
    for _ in range(10):
        left, right = 0xD2E7470EE14C6C93 * a, 0xCA5A826395121157 * c
        a, b, c, d = (right >> 64) ^ b ^ k0, right % 2**64, (left >> 64) ^ d ^ k1, left % 2**64
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) % 2**64, (k1 + 0xBB67AE8584CAA73B) % 2**64
    return [a, b, c, d]


def test_the_philox_of_these_tests_is_that_of_the_paper():
    """Known answers that the authors publish with their code (Random123, kat_vectors)."""
    assert philox4x64([0] * 4, [0] * 2) == [
        0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B
    ]  # fmt: skip
    digits_of_pi = [0x243F6A8885A308D3, 0x13198A2E03707344, 0xA4093822299F31D0, 0x082EFA98EC4E6C89]
    assert philox4x64(digits_of_pi, [0x452821E638D01377, 0xBE5466CF34E90C6C]) == [
        0xA528F45403E61D95, 0x38C72DBD566E9788, 0xA5A1610E72FD18B5, 0x57BD43B5E52B7FE6
    ]  # fmt: skip


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(("padding", "flip"), [(4, True), (1, False), (0, True)])
def test_image_i_moves_as_philox_says_at_counter_i_plus_1(key, padding, flip):
    count = 70
    words = [philox4x64([i + 1, 0, 0, 0], key) for i in range(count)]
    mirrored, top, left = moves(key, count, padding=padding, flip=flip)
    assert (mirrored.dtype, top.dtype, left.dtype) == (bool, np.int64, np.int64)
    assert mirrored.tolist() == [flip and w[0] >= 2**63 for w in words]
    assert top.tolist() == [(w[1] >> 32) * (2 * padding + 1) >> 32 for w in words]
    assert left.tolist() == [(w[2] >> 32) * (2 * padding + 1) >> 32 for w in words]


def test_a_smaller_batch_moves_as_the_beginning_of_a_larger_one():
    for few, many in zip(*(moves((5, 6), n, padding=4, flip=True) for n in (3, 64)), strict=True):
        np.testing.assert_array_equal(few, many[:3])
    assert [len(part) for part in moves((5, 6), 0, padding=4, flip=True)] == [0, 0, 0]


@pytest.mark.parametrize("padding", [0, 1, 4])
@pytest.mark.parametrize("flip", [False, True])
def test_every_place_and_both_sides_come_equally_often(padding, flip):
    sides = 1 + flip
    kinds = sides * (2 * padding + 1) ** 2
    found = np.stack(moves((7, 8), 500 * kinds, padding=padding, flip=flip), axis=1)
    moved, counts = np.unique(found, axis=0, return_counts=True)
    places = range(2 * padding + 1)
    assert moved.tolist() == [list(kind) for kind in itertools.product(range(sides), places, places)]
    assert (abs(counts - 500) < 5 * np.sqrt(500)).all()  # five standard deviations


@pytest.mark.parametrize("changed", [(1, 0), (0, 1)])
def test_either_half_of_the_key_changes_the_moves(changed):
    for ours, theirs in zip(*(moves(key, 50, padding=4, flip=True) for key in ((0, 0), changed)), strict=True):
        assert (ours != theirs).any()


def test_mirror_turns_the_chosen_images_left_to_right(device):
    images = on(device, np.array([[[[1, 2, 3], [4, 5, 6]]]] * 2))
    turned = to_numpy(mirror(images, on(device, np.array([True, False]))))
    assert turned.tolist() == [[[[3, 2, 1], [6, 5, 4]]], [[[1, 2, 3], [4, 5, 6]]]]


def test_crop_starts_at_a_row_and_column_of_the_padded_image(device):
    images = on(device, np.array([[[[1, 2], [3, 4]]]] * 4))
    top, left = (on(device, np.array(places)) for places in ([0, 1, 2, 2], [0, 1, 0, 1]))
    cropped = to_numpy(crop(images, top, left, padding=1))
    assert cropped[:, 0].tolist() == [[[0, 0], [0, 1]], [[1, 2], [3, 4]], [[0, 3], [0, 0]], [[3, 4], [0, 0]]]


BORDERS = {False: "constant", True: "reflect"}  # reflect -> what numpy.pad calls it


@pytest.mark.parametrize("reflect", BORDERS)
@pytest.mark.parametrize("padding", [1, 2, 3])
def test_a_crop_is_a_window_of_its_own_padded_image(padding, reflect, device):
    images = marked_images(40)
    _, top, left = moves((1, 1), 40, padding=padding, flip=False)
    places = (on(device, top), on(device, left))
    cropped = to_numpy(crop(on(device, images), *places, padding=padding, reflect=reflect))
    for image, y, x, found in zip(images, top, left, cropped, strict=True):
        padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding)), mode=BORDERS[reflect])
        np.testing.assert_array_equal(found, padded[:, y : y + 5, x : x + 4])


def test_a_crop_without_padding_is_the_image(device):
    images = marked_images(3)
    nowhere = on(device, np.zeros(3, np.int64))
    np.testing.assert_array_equal(to_numpy(crop(on(device, images), nowhere, nowhere, padding=0)), images)


@pytest.fixture
def photographs(rng):
    """Images of a whole part, 60 of them, and which make up a batch; the mean and the deviation of each channel."""
    chosen = rng.permutation(60)[:37]
    return rng.integers(0, 256, (60, 3, 6, 5), np.uint8), chosen, (125.3, 123.0, 113.9), (63.0, 62.1, 66.7)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("reflect", BORDERS)
@pytest.mark.parametrize(("padding", "flip"), [(2, True), (2, False), (0, True), (0, False)])
def test_prepared_images_are_normalised_mirrored_padded_and_cropped_one_by_one(
    padding, flip, reflect, dtype, device, photographs
):
    images, chosen, mean, std = photographs
    images = images.astype(dtype)
    key, options = (2**64 - 5, 11), {"padding": padding, "flip": flip, "reflect": reflect}
    batch = prepared(on(device, images), on(device, chosen), mean, std, key=key, **options)
    assert batch.dtype == np.float32
    mirrored, top, left = moves(key, len(chosen), padding=padding, flip=flip)
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (mean, std))
    for i, found in enumerate(to_numpy(batch)):
        image = (images[chosen[i]].astype(np.float32) - mean) / std
        image = image[:, :, ::-1] if mirrored[i] else image
        image = np.pad(image, ((0, 0), (padding, padding), (padding, padding)), mode=BORDERS[reflect])
        image = image[:, top[i] : top[i] + 6, left[i] : left[i] + 5]
        assert found.tobytes() == image.tobytes(), i


def test_prepared_without_a_key_only_gathers_and_normalises(device, photographs):
    images, chosen, mean, std = photographs
    batch = prepared(on(device, images), on(device, chosen), mean, std, padding=2, flip=True)
    np.testing.assert_array_equal(to_numpy(batch), normalise(images[chosen], mean, std))


def test_prepared_refuses_images_and_choice_on_two_devices(strict_gpu, photographs):
    images, chosen, mean, std = photographs
    with pytest.raises(DeviceError, match=r"\(60, 3, 6, 5\) on the gpu, \(37,\) on the cpu"):
        prepared(on(strict_gpu, images), chosen, mean, std)


def test_normalise_subtracts_the_mean_and_divides_by_the_std_of_each_channel(device):
    images = np.array([[[[10, 20]], [[30, 40]]]], np.uint8)  # one image, two channels, 1×2 pixels
    y = normalise(on(device, images), (10, 20), (5, 4))
    assert y.dtype == np.float32
    np.testing.assert_array_equal(to_numpy(y), [[[[0, 2]], [[2.5, 5]]]])


def test_normalise_gives_the_training_part_mean_0_and_std_1():
    digits = load("digits")
    y = normalise(digits.train_images, digits.mean, digits.std)
    assert y.mean() == pytest.approx(0, abs=0.005 / 6.02)  # half of the last printed digit of the mean
    assert y.std() == pytest.approx(1, abs=0.005 / 6.02 + 1e-5)


def test_augmentation_leaves_its_input_alone(device):
    original = marked_images(20)
    images, zeros, everything = (on(device, array) for array in (original, np.zeros(20, np.int64), np.arange(20)))
    results = [
        mirror(images, zeros == 1),
        crop(images, zeros, zeros, padding=0),
        normalise(images, (1, 2), (3, 4)),
        prepared(images, everything, (1, 2), (3, 4)),
        prepared(images, everything, (1, 2), (3, 4), key=(1, 2), padding=1, flip=True),
    ]
    np.testing.assert_array_equal(to_numpy(images), original)
    for result in results:
        result *= 0  # not a view of the input either
    np.testing.assert_array_equal(to_numpy(images), original)


def test_crops_of_a_run_may_be_wider_or_see_a_reflection():
    """In a row of one 1 among zeros, what comes in from the border shows: zeros, or the row again."""
    images = np.ones((300, 1, 5, 5), np.uint8)
    dataset = Dataset(
        "ones", images, np.zeros(300, int), images, np.zeros(300, int), ("one",), (0.0,), (1.0,), 1, False
    )
    assert (dataset.cropped(None).crop_padding, dataset.cropped(0).crop_padding, dataset.cropped(3).crop_padding) == (
        1,
        0,
        3,
    )
    ((zeros, _),) = training_batches(dataset.cropped(3), size=300, seed=(0,))
    ((reflected, _),) = training_batches(dataset.cropped(3, reflect=True), size=300, seed=(0,))
    assert zeros.sum(axis=(1, 2, 3)).min() == 4  # moved by three pixels both ways, 2×2 are left
    assert (reflected == 1).all()
    with pytest.raises(ConfigError, match=r"5 pixels off.*at most 4"):
        dataset.cropped(5)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_crop_and_mirror_keep_the_type(dtype, device):
    images, ones = on(device, np.ones((3, 1, 4, 4), dtype)), on(device, np.ones(3, np.int64))
    assert crop(images, ones, ones, padding=1).dtype == dtype
    assert mirror(images, ones == 1).dtype == dtype


# -- the same on the GPU ----------------------------------------------------------------------------------------------


def test_a_data_set_moves_as_a_whole_and_stays_bytes(device):
    digits = load("digits").first(20, 10)
    there = digits.to(device)
    assert (digits.device, there.device) == ("cpu", device)
    for name in ("train_images", "train_labels", "test_images", "test_labels"):
        here, moved = getattr(digits, name), getattr(there, name)
        assert type(moved) is library(device).ndarray
        assert moved.dtype == here.dtype
        np.testing.assert_array_equal(to_numpy(moved), here)
    assert (there.name, there.class_names, there.mean, there.std) == ("digits", digits.class_names, (4.88,), (6.02,))
    assert (there.crop_padding, there.flip) == (1, False)
    assert there.to(device) is there
    back = there.to("cpu")
    assert back.device == "cpu"
    np.testing.assert_array_equal(back.train_images, digits.train_images)


def test_a_part_of_a_data_set_on_the_gpu_stays_there(device):
    few = load("digits").to(device).first(7, 3)
    assert few.device == device
    assert (len(few.train_images), len(few.test_labels)) == (7, 3)


def test_a_data_set_refuses_an_unknown_device():
    with pytest.raises(DeviceError, match="unknown device 'tpu'"):
        load("digits").to("tpu")


@pytest.mark.parametrize("part", ["train_labels", "test_labels"])
@pytest.mark.parametrize("label", [-1, 10])
def test_a_label_that_names_no_class_does_not_reach_the_gpu(part, label, strict_gpu):
    digits = load("digits").first(5, 5)
    wrong = replace(digits, **{part: np.array([0, 1, 2, 3, label])})
    with pytest.raises(DataError, match=rf"digits: labels must lie in 0 … 9, found .*{label}"):
        wrong.to(strict_gpu)


@pytest.mark.parametrize("reflect", BORDERS)
@pytest.mark.parametrize("how", ["channel", "pixel_mean"])
@pytest.mark.parametrize(("start", "augment"), [(0, True), (3, True), (0, False)])
def test_batches_have_the_same_bits_on_either_device(start, augment, how, reflect, device):
    digits = replace(load("digits").first(50, 20), flip=True).normalised(how).cropped(2, reflect=reflect)
    options = {"size": 8, "seed": (5, 2), "augment": augment}
    here = list(training_batches(digits, **options))[start:] + list(test_batches(digits, size=8))
    digits = digits.to(device)
    there = [*training_batches(digits, **options, start=start), *test_batches(digits, size=8)]
    for (images, labels), (moved_images, moved_labels) in zip(here, there, strict=True):
        assert device_of(moved_images) == device_of(moved_labels) == device
        assert (moved_images.dtype, moved_labels.dtype) == (np.float32, np.int64)
        assert to_numpy(moved_images).tobytes() == images.tobytes()
        assert to_numpy(moved_labels).tobytes() == labels.tobytes()


def test_only_the_choices_travel_to_the_gpu_and_nothing_comes_back(strict_gpu, monkeypatch):
    digits = load("digits").first(50, 20).to(strict_gpu)
    travelled, asarray = [], strict_cupy.asarray

    def noted(value, *args, **kwargs):
        travelled.append(np.shape(value))
        return asarray(value, *args, **kwargs)

    def get(self, *args, **kwargs):
        pytest.fail("an array came back from the GPU")

    monkeypatch.setattr(strict_cupy, "asarray", noted)
    monkeypatch.setattr(strict_cupy.ndarray, "get", get)
    with reference_only():
        assert len(list(training_batches(digits, size=20, seed=(0,)))) == 3
    # The order; then for each batch a mean, a deviation, and what chance has chosen: mirrored, top, left.
    assert travelled == [(50,)] + [(1,)] * 2 + [(20,)] * 3 + [(1,)] * 2 + [(20,)] * 3 + [(1,)] * 2 + [(10,)] * 3
    del travelled[:]
    with reference_only():
        assert len(list(test_batches(digits, size=20))) == 1
    assert travelled == [(1,), (1,)]


# -- batches ----------------------------------------------------------------------------------------------------------


def numbered(n: int = 50, *, crop_padding: int = 0, flip: bool = False) -> Dataset:
    """Images that are their own number throughout, and so are their labels."""
    images = np.broadcast_to(np.arange(n, dtype=np.uint8)[:, None, None, None], (n, 1, 4, 4))
    labels = np.arange(n)
    return Dataset(
        "numbered", images, labels, images[: n // 2], labels[: n // 2], ("one",), (0.0,), (1.0,), crop_padding, flip
    )


def order_of(batches) -> list[int]:
    """The numbers of the images in the order they come; each must bring its own label."""
    numbers = []
    for images, labels in batches:
        np.testing.assert_array_equal(images[:, 0, 0, 0], labels)
        numbers += labels.tolist()
    return numbers


def test_every_image_comes_once_an_epoch_with_its_own_label():
    assert sorted(order_of(training_batches(numbered(), size=8, seed=(0, 0)))) == list(range(50))


def test_the_order_depends_on_the_seed_and_on_the_epoch():
    orders = [order_of(training_batches(numbered(), size=8, seed=seed)) for seed in [(0, 0), (0, 0), (0, 1), (1, 0)]]
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]
    assert orders[0] != orders[3]
    assert orders[2] != orders[3]
    assert orders[0] != sorted(orders[0])


def test_the_last_batch_holds_what_is_left():
    assert [len(labels) for _, labels in training_batches(numbered(), size=8, seed=(0,))] == [8] * 6 + [2]
    assert [len(labels) for _, labels in training_batches(numbered(), size=25, seed=(0,))] == [25, 25]
    assert [len(labels) for _, labels in training_batches(numbered(), size=80, seed=(0,))] == [50]


@pytest.mark.parametrize("start", [0, 1, 4, 6, 7])
def test_an_epoch_that_starts_at_a_later_batch_goes_on_with_the_same_bits(start):
    digits = load("digits").first(50)
    whole = list(training_batches(digits, size=8, seed=(5, 2)))
    rest = list(training_batches(digits, size=8, seed=(5, 2), start=start))
    assert len(rest) == 7 - start
    for (a, a_labels), (b, b_labels) in zip(whole[start:], rest, strict=True):
        assert a.tobytes() == b.tobytes()
        np.testing.assert_array_equal(a_labels, b_labels)


@pytest.mark.parametrize("start", [0, 2])
def test_each_batch_is_prepared_with_the_key_of_its_number(start):
    """The rule by which a run can be repeated elsewhere, written out."""
    digits = load("digits").first(50)
    order = np.random.default_rng((1, 5, 2)).permutation(50)
    for number, (images, labels) in enumerate(training_batches(digits, size=8, seed=(5, 2), start=start), start):
        key = tuple(np.random.SeedSequence((2, 5, 2, number)).generate_state(2, np.uint64).tolist())
        chosen = order[8 * number : 8 * number + 8]
        expected = prepared(digits.train_images, chosen, digits.mean, digits.std, key=key, padding=1)
        assert images.tobytes() == expected.tobytes()
        np.testing.assert_array_equal(labels, digits.train_labels[chosen])


def test_every_batch_of_every_epoch_and_seed_has_a_key_of_its_own():
    keys = [batch_key((seed, epoch), number) for seed in range(3) for epoch in range(3) for number in range(50)]
    assert len({*keys}) == len({first for first, _ in keys}) == len({second for _, second in keys}) == 450
    assert max(map(max, keys)) >= 2**63  # all 64 bits are used
    assert all(type(half) is int and 0 <= half < 2**64 for key in keys for half in key)


def test_batches_are_float32_images_and_int64_labels():
    for batches in (training_batches(numbered(), size=8, seed=(0,)), test_batches(numbered(), size=8)):
        images, labels = next(batches)
        assert (images.shape, images.dtype) == ((8, 1, 4, 4), np.float32)
        assert (labels.shape, labels.dtype) == ((8,), np.int64)


def test_the_border_is_zero_after_normalising_and_not_black():
    """Padding comes after normalising: the border has the mean colour, where black would be −mean/std."""
    images = np.full((40, 1, 4, 4), 9, np.uint8)
    dataset = Dataset("grey", images, np.zeros(40, int), images, np.zeros(40, int), ("one",), (5.0,), (2.0,), 1, False)
    ((batch, _),) = training_batches(dataset, size=40, seed=(0,))
    assert set(np.unique(batch)) == {0.0, 2.0}  # (9 − 5)/2 inside, 0 around; black would be −2.5


def test_training_batches_crop_and_mirror_as_the_data_set_allows():
    rows = np.tile(np.arange(1, 6, dtype=np.uint8), (5, 1))
    images = np.broadcast_to(rows, (400, 1, 5, 5))  # one of 18 kinds is left out with probability (17/18)^400 = 1e-10

    def kinds(crop_padding, flip, augment=True):
        dataset = Dataset(
            "rows", images, np.zeros(400, int), images, np.zeros(400, int), ("one",), (0.0,), (1.0,), crop_padding, flip
        )
        ((batch, _),) = training_batches(dataset, size=400, seed=(0,), augment=augment)
        return {image.tobytes() for image in batch}

    assert len(kinds(0, False)) == 1
    assert len(kinds(0, True)) == 2
    assert len(kinds(1, False)) == 9
    assert len(kinds(1, True)) == 18
    assert kinds(1, True, augment=False) == {rows.astype(np.float32).tobytes()}


def test_batches_of_one_epoch_are_augmented_differently():
    images = np.broadcast_to(marked_images(1, 1, 4, 4), (40, 1, 4, 4)).astype(np.uint8)
    dataset = Dataset("same", images, np.zeros(40, int), images, np.zeros(40, int), ("one",), (0.0,), (1.0,), 2, True)
    first, second = training_batches(dataset, size=20, seed=(0,))
    assert (first[0] != second[0]).any()


def test_test_batches_come_in_their_own_order_and_are_only_normalised():
    digits = load("digits").first(None, 50)
    batches = list(test_batches(digits, size=16))
    assert [len(labels) for _, labels in batches] == [16, 16, 16, 2]
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in batches]), digits.test_labels)
    images = np.concatenate([images for images, _ in batches])
    np.testing.assert_array_equal(images, normalise(digits.test_images, digits.mean, digits.std))


# -- prefetching ------------------------------------------------------------------------------------------------------


def prefetching_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "minidense-prefetch"]


def wait_until(holds, seconds: float = 10) -> bool:
    """Whether `holds()` comes true in time; usually at once, seconds later on a busy machine."""
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.005)
    return holds()


@pytest.mark.parametrize("ahead", [1, 2, 5])
def test_prefetch_keeps_the_order_and_loses_nothing(ahead):
    assert list(prefetch(range(300), ahead=ahead)) == list(range(300))
    assert list(prefetch([], ahead=ahead)) == []
    assert list(prefetch([None, None], ahead=ahead)) == [None, None]


def test_prefetch_gives_the_same_batches():
    digits = load("digits").first(70)
    plain_batches = training_batches(digits, size=16, seed=(1,))
    for (a, _), (b, _) in zip(plain_batches, prefetch(training_batches(digits, size=16, seed=(1,))), strict=True):
        assert a.tobytes() == b.tobytes()


def test_prefetch_raises_an_exception_in_its_turn():
    def failing():
        yield 1
        yield 2
        raise DataError("the disk is gone")

    items = prefetch(failing())
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(DataError, match="the disk is gone"):
        next(items)
    assert not prefetching_threads()


def test_prefetch_really_runs_ahead_and_not_further_than_allowed():
    made = []

    def items():
        for i in range(100):
            made.append(i)
            yield i

    batches = prefetch(items(), ahead=3)
    assert next(batches) == 0
    assert wait_until(lambda: len(made) >= 4)  # the one handed out and three more, while nobody asks
    time.sleep(0.05)
    assert len(made) <= 5  # and one in the maker's hands, for which there is no room
    batches.close()


def test_prefetch_makes_items_while_the_consumer_computes():
    """The second item is made only after the consumer has taken the first and before it asks again."""
    taken, made = threading.Event(), threading.Event()

    def items():
        yield 1
        assert taken.wait(10)
        made.set()
        yield 2

    batches = prefetch(items())
    assert next(batches) == 1
    taken.set()
    assert made.wait(10)
    assert list(batches) == [2]


@pytest.mark.parametrize("how", ["break", "close", "exception", "forgotten"])
def test_the_thread_ends_when_the_consumer_stops_early(how):
    stopped = prefetch(itertools.count())
    next(stopped)
    assert len(prefetching_threads()) == 1
    if how == "close":
        stopped.close()
    elif how == "exception":
        with pytest.raises(KeyboardInterrupt):
            stopped.throw(KeyboardInterrupt)
    elif how == "break":
        for _ in stopped:
            break
        del stopped
    else:
        del stopped
    assert not prefetching_threads()


def test_no_thread_is_left_after_a_whole_epoch():
    for _ in prefetch(training_batches(numbered(), size=8, seed=(0,))):
        assert len(prefetching_threads()) <= 1  # it may be done already
    assert not prefetching_threads()


def test_the_gpu_needs_no_thread_beside_it():
    made, closed = [], []

    def items():
        try:
            for i in range(5):
                made.append(i)
                yield i
        finally:
            closed.append(True)

    batches = prefetch(items(), device="gpu")
    assert [next(batches), next(batches)] == [0, 1]
    assert made == [0, 1]
    assert not prefetching_threads()
    batches.close()
    assert closed
    assert list(prefetch(range(5), device="gpu")) == list(range(5))


def test_no_thread_starts_before_the_first_item_is_asked_for():
    batches = prefetch(range(3))
    assert not prefetching_threads()
    batches.close()


def test_the_package_reads_no_pickle_with_pythons_own_reader():
    """Whatever a file says, nothing in the package can be made to run it."""
    for file in Path(minidense.__file__).parent.rglob("*.py"):
        source = file.read_text(encoding="utf-8")
        assert "import pickle\n" not in source, file
        assert "allow_pickle=True" not in source, file


def test_a_place_can_be_read_without_write_permission_to_it(binary_folder):
    before = {file: file.stat().st_mtime_ns for file in binary_folder.iterdir()}
    archives.read_cifar10(binary_folder)
    assert {file: file.stat().st_mtime_ns for file in binary_folder.iterdir()} == before
    shutil.rmtree(binary_folder)
