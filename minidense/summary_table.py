"""What was counted of a network, and the table made of it: rows that are alike as one, sums, and what the numbers mean."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from typing import Any

# So many neighbours that are alike become one row.
FOLDED = 3
NUMBER = r"\d+(?:\.\d+)?"

MULTIPLY_ADDS = (
    "multiply-adds: of convolutions (C_out·H_out·W_out·C_in·K·K) and linear layers (in·out) for one image, nothing else;\n"
    "               FLOPs = 2 × multiply-adds"
)
KEPT = (
    "kept: bytes an image of all arrays that the recorded graph holds for backward, by the definitions, each memory once,\n"
    "      without parameters and the images themselves"
)


@dataclass(frozen=True)
class Row:
    """A module, or several alike under one name, with all that is below it.

    name           its last part: "conv1"; empty for what a module with children does besides calling them
    layer          what it is, with its settings in short: "Conv2d 3×3, 24→48, stride 2"
    shape          of its result for one image; None where that is no single Tensor, or it was not called.
                   "24…204" is a size that grows from the first to the last of several alike
    parameters     learned numbers
    multiply_adds  for one image
    kept           bytes an image that training keeps for backward, counted where they are made
    rows           the modules below
    """

    name: str
    layer: str
    shape: tuple[int | str, ...] | None
    parameters: int
    multiply_adds: int
    kept: int
    rows: tuple[Row, ...] = ()


@dataclass(frozen=True)
class Summary:
    """What ``summarise`` found; ``str`` makes the table of it.

    model            the row of the whole network; what training does besides it, such as the loss, is in there
    image_shape      (C, H, W)
    batch_size       images in a training step, for the last line of the table
    kept_once        bytes that the definitions keep besides, whatever the number of images: channel means, rearranged weights
    kept_by_twins    bytes an image that the quick twins keep where they stand in for definitions
    measured         was what is kept counted at all? Where not it is 0, and the table leaves it out
    """

    name: str
    model: Row
    image_shape: tuple[int, ...]
    batch_size: int
    kept_once: int
    kept_by_twins: int
    measured: bool = True

    parameters = property(lambda self: self.model.parameters)
    multiply_adds = property(lambda self: self.model.multiply_adds)
    flops = property(lambda self: 2 * self.model.multiply_adds)
    kept = property(lambda self: self.model.kept)
    classes = property(lambda self: None if self.model.shape is None else self.model.shape[-1])

    def __str__(self) -> str:
        return self.table()

    def table(self, *, depth: int | None = None, fold: bool = True) -> str:
        """Everything in lines.

        depth  levels of modules to show, 1 for those of the network itself; all where it is not given
        fold   show rows that are alike, such as the layers of a dense block, as one
        """
        lines = [
            ("", "", "result", "parameters", "multiply-adds", "kept"),
            *cells(self.model.rows, depth=depth, fold=fold),
            ("total", "", "", *numbers(self.model)),
        ]
        lines = lines if self.measured else [line[:-1] for line in lines]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        table = [
            "  ".join(
                f"{cell:{'<' if i < 3 else '>'}{width}}"
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
            for line in lines
        ]
        table.insert(-1, "-" * len(table[0]))
        heading = f"{self.name}: {self.model.layer} from images of {times(self.image_shape)} to {self.classes} classes"
        return "\n".join([heading, "", *table, "", *self.footer()])

    def footer(self) -> Iterator[str]:
        """What the numbers mean, and the totals in units a person thinks in."""
        yield MULTIPLY_ADDS
        if not self.measured:
            yield f"FLOPs: {self.flops:,} an image"
            return
        yield KEPT
        step = self.kept * self.batch_size + self.kept_once
        yield f"FLOPs: {self.flops:,} an image"
        yield f"a training step with {self.batch_size} images keeps {in_units(step)}" + (
            f" by the definitions, and about {in_units(self.kept_by_twins * self.batch_size)}\n"
            f"with the quick twins that stand in for them on this device ({self.kept_by_twins:,} bytes an image)"
            if self.kept_by_twins != self.kept
            else ""
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.name,
            "classes": self.classes,
            "image": list(self.image_shape),
            "batch_size": self.batch_size,
            "parameters": self.parameters,
            "macs": self.multiply_adds,
            "flops": self.flops,
            "bytes_kept": self.kept,
            "bytes_kept_once": self.kept_once,
            "bytes_kept_by_twins": self.kept_by_twins,
            "layers": [layer(row) for row in self.model.rows],
        }


def layer(row: Row) -> dict[str, Any]:
    """A row and those below it for JSON, with the names of ``as_dict``."""
    found = asdict(replace(row, rows=()))
    found["macs"], found["bytes_kept"] = found.pop("multiply_adds"), found.pop("kept")
    found["layers"] = [layer(below) for below in row.rows]
    del found["rows"]
    return found


def sums(rows: Sequence[Row]) -> tuple[int, int, int]:
    return sum(r.parameters for r in rows), sum(r.multiply_adds for r in rows), sum(r.kept for r in rows)


def cells(rows: Sequence[Row], *, depth: int | None, fold: bool, level: int = 0) -> Iterator[tuple[str, ...]]:
    """The rows and those below them as text, indented by level."""
    for row in folded(rows) if fold else rows:
        shape = "" if row.shape is None else times(row.shape)
        yield "  " * level + (row.name or "and"), row.layer, shape, *numbers(row)
        if depth is None or level + 1 < depth:
            yield from cells(row.rows, depth=depth, fold=fold, level=level + 1)


def numbers(row: Row) -> tuple[str, str, str]:
    return f"{row.parameters:,}", f"{row.multiply_adds:,}", f"{row.kept:,}"


def folded(rows: Sequence[Row]) -> Iterator[Row]:
    """The rows with neighbours of one build and equally large results as one."""
    for _, group in groupby(rows, lambda row: (build(row), row.shape)):
        alike = list(group)
        if len(alike) < FOLDED or not alike[0].rows:
            yield from alike
        else:
            yield replace(merged(alike), layer=f"{len(alike)} × {alike[0].layer}")


def build(row: Row) -> tuple:
    """What two rows have in common when only sizes differ."""
    name, layer = (re.sub(NUMBER, "#", text) for text in (row.name, row.layer))
    return name, layer, row.shape and len(row.shape), tuple(map(build, row.rows))


def merged(rows: Sequence[Row]) -> Row:
    """Rows of one build as one: the sums, and sizes from the first to the last."""
    first, last = rows[0], rows[-1]
    shape = first.shape
    if shape is not None and last.shape is not None:
        shape = tuple(a if a == b else f"{a}…{b}" for a, b in zip(shape, last.shape, strict=True))
    below = tuple(merged(alike) for alike in zip(*(row.rows for row in rows), strict=True))
    return Row(from_to(first.name, last.name), from_to(first.layer, last.layer), shape, *sums(rows), below)


def from_to(first: str, last: str) -> str:
    """Two texts of one build as one: "Conv2d 1×1, 24→48" and "Conv2d 1×1, 204→48" become "Conv2d 1×1, 24…204→48"."""
    ends = iter(re.findall(NUMBER, last))
    return re.sub(NUMBER, lambda start: start[0] if (end := next(ends)) == start[0] else f"{start[0]}…{end}", first)


def times(sizes: Sequence[int | str]) -> str:
    return "×".join(map(str, sizes))


def in_units(size: int) -> str:
    """Bytes in the unit a person would choose; a kB is 1000."""
    for unit, power in (("GB", 9), ("MB", 6), ("kB", 3)):
        if size >= 10**power:
            return f"{size / 10**power:.3g} {unit}"
    return f"{size} bytes"
