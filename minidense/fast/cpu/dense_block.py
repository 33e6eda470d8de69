"""Dense blocks, alone and with the transition behind them: which of them one_buffer.py can do, and the step on Tensors.

The definitions are models.densenet.dense_block and block_and_transition.
"""

from ...models.densenet import block_and_transition, dense_block
from ...ops.norm import refuse_single_value
from ...speed import fast_path
from ...tensor import apply, recording
from .. import examples
from ..known import inputs_of, is_known_block, is_known_stage, layers_of, pairs_of
from .one_buffer import BlockInOneBuffer
from .pieces import on_cpu


def fits(x, layers):
    """On the CPU, and known."""
    return on_cpu(x) and is_known_block(x, layers)


@fast_path(dense_block, fits=fits, examples=examples.dense_blocks)
def dense_block_in_one_buffer(x, layers):
    """models.densenet.dense_block as one step."""
    return run(x, layers)


def fits_with_transition(block, transition, x):
    """The same, with the transition of x's type."""
    return (
        on_cpu(x)
        and is_known_stage(block, transition, x)
        and all(on_cpu(t) and t.dtype == x.dtype for t in transition.parameters())
    )


@fast_path(block_and_transition, fits=fits_with_transition, examples=examples.stages)
def block_and_transition_in_one_buffer(block, transition, x):
    """models.densenet.block_and_transition as one step: the transition reads the buffer, and knows its statistics."""
    return run(x, layers_of(block), transition)


def run(x, layers, transition=None):
    """The step on Tensors, and what training leaves in the norms."""
    pairs = pairs_of(layers, transition)
    inputs = inputs_of(x, pairs)
    op = BlockInOneBuffer(layers, transition, keep=recording(*inputs))
    if op.training:
        refuse_single_value(x)
    y = apply(op, *inputs)
    if op.training:
        for (norm, _), (mean, var) in zip(pairs, op.batch_moments, strict=True):
            norm.track(mean, var, op.m)
    return y
