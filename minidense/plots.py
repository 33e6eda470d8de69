"""Pictures. Colours are those of Okabe & Ito, which colour-blind readers can tell apart. matplotlib is imported only when one is drawn."""

import io
from collections.abc import Sequence
from typing import Any

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#777777"


def learning_curves(history: Sequence[dict[str, Any]], *, title: str = "") -> bytes:
    """Loss, error and learning rate by epoch, from the records of log.jsonl, as the bytes of a PNG."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    epochs = [record["epoch"] for record in history]
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    loss, error, rate = figure.subplots(1, 3)
    marker = "o" if len(epochs) < 40 else None
    for part, colour in (("train", BLUE), ("test", ORANGE)):
        line = {"color": colour, "marker": marker, "markersize": 3, "label": part}
        loss.plot(epochs, [record[f"{part}_loss"] for record in history], **line)
        error.plot(epochs, [100 * (1 - record[f"{part}_accuracy"]) for record in history], **line)
    loss.set(title="cross-entropy loss", xlabel="epoch", ylabel="nats", ylim=(0, None))
    error.set(
        title=f"error (test: {error_of(history[-1]):.2f} % at the end)",
        xlabel="epoch",
        ylabel="% of images",
        ylim=(0, None),
    )
    rate.step(epochs, [record["learning_rate"] for record in history], where="mid", color=GREY)
    rate.set(title="learning rate", xlabel="epoch", yscale="log")
    for axes in (loss, error, rate):
        axes.grid(alpha=0.3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[["top", "right"]].set_visible(False)
    loss.legend(frameon=False)
    figure.suptitle(title)
    png = io.BytesIO()
    figure.savefig(
        png, format="png", dpi=120, metadata={"Title": title, "Description": "Loss, error and learning rate by epoch"}
    )
    return png.getvalue()


def error_of(record: dict[str, Any]) -> float:
    """Test error in percent."""
    return 100 * (1 - record["test_accuracy"])
