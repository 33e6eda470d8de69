"""What a person reads: the machine in three lines, then a row for each contender."""

import importlib.metadata
import os
import platform
import sys
from pathlib import Path
from typing import Any

import numpy
import threadpoolctl

from ..version import __version__
from .contest import MINIDENSE

BUSY = 0.2  # cores that other programs may use before we say so

HEAD = (
    f"{'':27} {'images/s':>9} {'(from – to)':>19} {'GFLOP/s':>8} {'of matmul':>9} "
    f"{'ns/mult-add':>11} {'rel.':>6} {'peak MB':>8} {'kept MB':>8}"
)


def machine(*, with_torch: bool) -> dict[str, Any]:
    """Where this runs, with what."""
    return {
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "minidense": __version__,
        "numpy": numpy.__version__,
        "blas": blas_name(),
        "torch": importlib.metadata.version("torch") if with_torch else None,
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY"),
    }


def cpu_name() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def blas_name() -> str:
    for library in threadpoolctl.threadpool_info():
        if library["user_api"] == "blas":
            kind = library.get("architecture")
            return f"{library['internal_api']} {library['version'] or '?'}{f' ({kind})' if kind else ''}"
    build: Any = numpy.show_config(mode="dicts")
    return build["Build Dependencies"]["blas"]["name"]


def heading(where: dict[str, Any], settings: dict[str, Any]) -> str:
    """The lines above the table."""
    threads, rounds = settings["threads"], settings["rounds"]
    torch = f", PyTorch {where['torch']}" if where["torch"] else ""
    return (
        f"{where['cpu']}, {where['cores']} cores, {where['system']}\n"
        f"minidense {where['minidense']}, Python {where['python']}, NumPy {where['numpy']}, {where['blas']}{torch}\n"
        f"{threads} {'thread' if threads == 1 else 'threads'}, batch {settings['batch_size']}, float32, "
        f"{rounds} {'round' if rounds == 1 else 'rounds in turn; medians'}"
    )


def rows(result: dict[str, Any], first: dict[str, Any]) -> str:
    """One model in one mode. `first` is the first model's result in that mode, to which "rel." compares."""
    lines = [
        f"{result['model']}, {result['mode']}: {result['parameters']:,} parameters, "
        f"{result['multiply_adds_per_image'] / 1e6:,.1f} M multiply-adds an image of {result['image_size']}²; "
        f"matmul {result['matrix_gflop_per_second']:.1f} GFLOP/s"
    ]
    for name, one in result["contenders"].items():
        low, high = one["images_per_second_range"]
        relative = one["nanoseconds_per_multiply_add"] / first["contenders"][name]["nanoseconds_per_multiply_add"]
        lines.append(
            f"  {name:25} {one['images_per_second']:9.4g} {f'({low:.4g} – {high:.4g})':>19} "
            f"{one['gflop_per_second']:8.1f} {one['share_of_matrix_product']:9.1%} "
            f"{one['nanoseconds_per_multiply_add']:11.4f} {relative:6.2f} "
            f"{megabytes(one['peak_bytes']):>8} {megabytes(one.get('kept_bytes')):>8}"
        )
    if versus := result["against_torch"]:
        low, high = versus["speed_ratio_range"]
        memory = f"; peak memory ×{versus['memory_ratio']:.2f}" if versus["memory_ratio"] else ""
        lines.append(
            f"  {MINIDENSE} / {versus['layout']}: speed ×{versus['speed_ratio']:.2f} "
            f"(rounds ×{low:.2f} – ×{high:.2f}, median ×{versus['speed_ratio_median_of_rounds']:.2f}){memory}"
        )
    if (others := result["cores_of_other_programs"] or 0) > BUSY:
        lines.append(f"  Other programs kept {others:.1f} cores busy meanwhile: measure again on a quiet machine.")
        if versus:
            lines.append(
                "  PyTorch's threads wait actively and suffer most, so this ratio says nothing; see benchmarks/README.md."
            )
    return "\n".join(lines)


def megabytes(count: int | None) -> str:
    """10⁶ bytes."""
    return "–" if count is None else f"{count / 1e6:,.0f}" if count >= 1e7 else f"{count / 1e6:.1f}"
