"""Contenders in turn on one GPU: minidense, PyTorch eager, and PyTorch compiled, the latter two in channels_last."""

from __future__ import annotations

import statistics
from contextlib import ExitStack
from typing import Any

from .contest import MINIDENSE, ROUND_SECONDS, Work, worker

EAGER, COMPILED = "torch eager", "torch.compile"
WARM_UP = 3  # times two steps: minidense notes its graph down in the second, torch.compile compiles in the first


def contest_on_gpu(
    work: Work, mode: str, *, batch_size: int, image_size: int, rounds: int, precision: str, against_torch: bool
) -> dict[str, Any]:
    """All contenders at one model in one mode, in one precision: every raw round, and what follows. Plain values, for JSON."""
    common = {"model": work.model, "batch_size": batch_size, "image_size": image_size, "mode": mode}
    common |= {"threads": 1, "precision": precision}
    tasks: dict[str, dict[str, Any]] = {MINIDENSE: {"contender": "minidense", "device": "gpu"}}
    if against_torch:
        torch = {"contender": "torch", "trace_file": work.trace_file, "channels_last": True, "device": "cuda"}
        tasks |= {EAGER: {**torch, "compiled": False}, COMPILED: {**torch, "compiled": True}}
    contenders: dict[str, dict[str, Any]] = {}
    with ExitStack() as stack:
        workers = {name: stack.enter_context(worker(f"{name} at {work.model}")) for name in tasks}
        for name, task in tasks.items():  # one after another, so that what is new on the card is this one's
            before = workers[name].ask("card", contender=task["contender"])["bytes"]
            known = workers[name].ask("prepare", **task, **common)
            for _ in range(WARM_UP):
                workers[name].ask("warm_up")
            after = workers[name].ask("card", contender=task["contender"])["bytes"]
            contenders[name] = {"bytes": after - before, "version": known.get("version"), "rounds": []}
        for _ in range(rounds):
            for name in tasks:
                contenders[name]["rounds"].append(workers[name].ask("measure", seconds=ROUND_SECONDS))
    for one in contenders.values():
        rates = [batch_size * r["steps"] / r["seconds"] for r in one["rounds"]]
        median = statistics.median(rates)
        one["images_per_second"], one["images_per_second_range"] = median, [min(rates), max(rates)]
        one["milliseconds_a_step"] = 1e3 * batch_size / median
        one["tflop_per_second"] = 2e-12 * work.multiply_adds[mode] * median
    return {
        "model": work.model,
        "mode": mode,
        "precision": precision,
        "batch_size": batch_size,
        "image_size": image_size,
        "parameters": work.parameters,
        "multiply_adds_per_image": work.multiply_adds[mode],
        "contenders": contenders,
        "against": {name: compared(contenders[MINIDENSE], contenders[name]) for name in tasks if name != MINIDENSE},
    }


def compared(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """Ratios of the medians, of each round, and of memory."""
    ratios = [
        (our["steps"] / our["seconds"]) / (their["steps"] / their["seconds"])
        for our, their in zip(ours["rounds"], theirs["rounds"], strict=True)
    ]
    return {
        "speed_ratio": ours["images_per_second"] / theirs["images_per_second"],
        "speed_ratio_range": [min(ratios), max(ratios)],
        "speed_ratios": ratios,
        "memory_ratio": ours["bytes"] / theirs["bytes"] if theirs["bytes"] else None,
    }


HEAD = f"{'':20} {'images/s':>9} {'(from – to)':>19} {'ms a step':>10} {'TFLOP/s':>8} {'GPU MB':>8}   minidense is"


def rows(result: dict[str, Any]) -> str:
    """One model in one mode as a few lines under HEAD."""
    lines = [
        f"{result['model']}, {result['mode']}, {result['precision']}, batch {result['batch_size']}: "
        f"{result['parameters']:,} parameters, {result['multiply_adds_per_image'] / 1e6:,.1f} M multiply-adds "
        f"an image of {result['image_size']}²"
    ]
    for name, one in result["contenders"].items():
        low, high = one["images_per_second_range"]
        line = (
            f"  {name:18} {one['images_per_second']:9,.0f} {f'({low:,.0f} – {high:,.0f})':>19} "
            f"{one['milliseconds_a_step']:10.2f} {one['tflop_per_second']:8.1f} {one['bytes'] / 1e6:8,.0f}"
        )
        if name in result["against"]:
            versus = result["against"][name]
            low, high = versus["speed_ratio_range"]
            memory = f", memory ×{versus['memory_ratio']:.2f}" if versus["memory_ratio"] else ""
            line += f"   ×{versus['speed_ratio']:.2f} as quick (×{low:.2f} – ×{high:.2f}){memory}"
        lines.append(line)
    return "\n".join(lines)
