"""The largest batch that fits on the GPU, measured when one has not."""

import gc
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from .config import TrainConfig
from .data import Dataset, training_batches
from .gpus import available_bytes, peak_bytes
from .nn import Module, has_chance
from .optim import SGD
from .precision import precision
from .step import steps_as_graph, training_step
from .tensor import Tensor, no_grad

SIZES = (1, 2, 4, 8, 16)  # of the batches that are tried
# This share of the memory is left for what is not measured: blocks that the pool has cut and cannot give back, the graphs
# themselves, a second copy of the weights while the forecast is made.
MARGIN = 0.1


@dataclass(frozen=True)
class Need:
    """Bytes that training takes on the GPU: data set, weights and velocities, and what each image of a batch adds."""

    fixed: float
    training: float  # an image, in a step
    testing: float  # an image, in evaluation
    graphs: bool  # are steps replayed? Each shape of batch then keeps the memory of its step
    images: int  # in the training part

    def of(self, n: int) -> float:
        """Of a run with batches of n images. The last one of an epoch may be smaller, and is then a shape of its own."""
        if not self.graphs:
            return self.fixed + max(self.training, self.testing) * n
        return self.fixed + self.training * (n + self.images % n) + self.testing * n


def fitting_batch(
    error: BaseException, config: TrainConfig, build: Callable[[TrainConfig, Dataset], tuple[Module, SGD]]
) -> int | None:
    """The largest ``--batch-size`` below that of `config` that would fit, 0 when not even one image would; None when measuring fails.

    error  what ended the run: all that the calls in its traceback held is let go
    build  makes model and optimiser, see train.build

    One step and one evaluation of small batches are measured, and bytes grow in proportion to images. Above 16 images the
    answer is a multiple of 8.
    """
    try:
        let_go(error)
        dataset = config.dataset()
        most = min(config.batch_size, len(dataset.train_images)) - 1
        found: list[tuple[int, int, int]] = []
        by_chance = False
        with precision(config.precision), steps_as_graph(False):
            for n in SIZES:
                if n <= most:
                    try:
                        model, optimizer = build(config, dataset)
                        by_chance = has_chance(model)  # then no step is replayed
                        found.append((n, *bytes_of_a_step(n, config, dataset, model, optimizer)))
                        del model, optimizer
                    except MemoryError:
                        break
        if len(found) < 2:
            return len(found)  # one image fits, and two do not, or were too many before
        (m, training_m, testing_m), (n, training_n, testing_n) = found[-2:]
        slope = (training_n - training_m) / (n - m)
        if slope <= 0:  # the memory comes from somewhere else
            return None
        need = Need(
            fixed=training_n - slope * n,
            training=slope,
            testing=(testing_n - testing_m) / (n - m),
            graphs=config.graph and not by_chance,
            images=len(dataset.train_images),
        )
        room = (1 - MARGIN) * available_bytes()
        typed = (n for n in range(most, 0, -1) if n <= 16 or n % 8 == 0)
        return next((n for n in typed if need.of(n) <= room), 0)
    except (Exception, KeyboardInterrupt):  # noqa: BLE001  the run has ended for another reason, which is to be told
        return None


def bytes_of_a_step(n: int, config: TrainConfig, dataset: Dataset, model: Module, optimizer: SGD) -> tuple[int, int]:
    """What CuPy's pool holds at most in a step of training with n images, and in their evaluation."""
    images, labels = next(training_batches(dataset, size=n, seed=(config.seed,), augment=config.augment))
    training = peak_bytes(lambda: training_step(model, optimizer, images, labels))
    model.eval()
    with no_grad():
        return training, peak_bytes(lambda: model(Tensor(images)))


def let_go(error: BaseException | None) -> None:
    """Free what the calls that ended with `error` held in their variables."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
    gc.collect()
