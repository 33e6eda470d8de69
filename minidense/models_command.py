"""The command: minidense models. Every network by family, with its size and what its paper reached."""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from . import models
from .command import DONE, ended, show
from .config import Parser
from .models.published import CIFAR_COLUMNS, IMAGENET_COLUMNS, published

PROGRAM = "minidense models"
WIDTH = 120
SHORT = {"top-1 10-crop": "10 crops", "top-5 10-crop": "10 crops"}

FOOTER = (
    "Multiply-adds are those of convolutions and linear layers for one image, nothing else; FLOPs are twice as many. Counts are for 10 "
    "classes, for ImageNet 1000. Errors in per cent are the papers', + with augmentation. minidense summary NAME says more about one."
)


def parser() -> argparse.ArgumentParser:
    made = Parser(
        prog=PROGRAM,
        usage=f"{PROGRAM} [options]",
        description="List the networks with their parameters, multiply-adds and the errors that their papers report.",
        epilog="More names work: any densenet_DEPTH_K, densenet_bc_DEPTH_K, resnetDEPTH, preresnetDEPTH, wrnDEPTH_WIDTH.\n"
        "resnet50 is such a network for 32×32 pixels; that of ImageNet is resnet50_imagenet.\n\n"
        "examples:\n"
        "  minidense models\n"
        "  minidense models --json",
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=30, width=WIDTH),
        allow_abbrev=False,
    )
    made.add_argument("--json", action="store_true", help="print one JSON object instead (default: tables)")
    return made


def catalogue() -> list[dict[str, Any]]:
    """Every name with what is known about it, in the order of ``names()``."""
    found = []
    for name in models.names():
        entry, known = models.about(name), published(name)
        parameters, work = known.counts[entry.classes] if known else (None, None)
        found.append(
            {
                "name": name,
                "family": entry.family,
                "image": list(entry.image_shape),
                "classes": entry.classes,
                "parameters": parameters,
                "macs": work,
                "parameters_in_paper": known.millions * 1e6 if known and known.millions else None,
                "errors": dict(known.errors) if known else {},
                "source": known.source if known else "",
                "note": known.note if known else "",
            }
        )
    return found


def tables(found: list[dict[str, Any]]) -> Iterator[str]:
    """A table for each family and size of images, then the notes."""
    wide = max(len(one["name"]) for one in found)
    for (family, image), group in groupby(found, lambda one: (one["family"], one["image"])):
        columns = IMAGENET_COLUMNS if image[-1] == 224 else CIFAR_COLUMNS
        head = f"{family}, {'×'.join(map(str, image))}"
        yield f"{head:{wide}}  {'parameters':>12}  {'multiply-adds':>14}" + "".join(
            f"{SHORT.get(column, column):>10}" for column in columns
        )
        for one in group:
            errors = (f"{one['errors'][column]:.2f}" if column in one["errors"] else "-" for column in columns)
            sizes = ("-" if one[key] is None else f"{one[key]:,}" for key in ("parameters", "macs"))
            yield "{:{}}  {:>12}  {:>14}".format(one["name"], wide, *sizes) + "".join(f"{e:>10}" for e in errors)
        yield ""
    yield "Notes"
    for one in found:
        if one["note"]:
            yield textwrap.fill(f"{one['name']:{wide}}  {one['note']}", WIDTH, subsequent_indent=" " * (wide + 2))
    yield ""
    yield textwrap.fill(FOOTER, WIDTH)


def main(argv: Sequence[str] | None = None) -> int:
    """minidense models. Exit codes: 0 done, 2 wrong command line, 4 cannot write, 130 interrupted."""

    def work() -> int:
        given = parser().parse_args(argv)
        found = catalogue()
        show(json.dumps({"models": found}, ensure_ascii=False) if given.json else "\n".join(tables(found)))
        return DONE

    return ended(PROGRAM, work)
