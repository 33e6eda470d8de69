"""A dense block in one buffer: every feature map is written once, its statistics are taken once, its gradient is corrected once.

docs/dense-block.md tells the algebra and what each part of it bought.
"""

import itertools
from typing import Any

import numpy

from ...models.densenet import BottleneckLayer
from ...ops import Op
from ...threads import in_parallel, scratch, single_threaded_blas
from ..known import norms_of
from . import moments
from .norm_relu_conv import halved
from .pieces import empty_pieces, in_pieces, pieces_of, shared_out
from .unit import Unit
from .ways import PooledPointwise, keeping_size


class BlockInOneBuffer(Op):
    """All layers of a dense block as one step: x (N, c₀, H, W) gives (N, c₀ + L·k, H, W), or what a transition makes of that.

    Inputs after x: γ, β, weight of each layer's norm and convolution, of both where there is a bottleneck, then the transition's.
    Kept for backward: the feature maps, and what the 1×1 convolutions made. Everything else is computed once more.
    ``batch_moments`` lists (mean, var) for every norm in order, for whoever keeps running statistics, where `training`.
    """

    def __init__(self, layers, transition=None, *, keep):
        self.layers, self.transition, self.keep = layers, transition, keep
        self.training = layers[0].norm1.training
        self.bottleneck = isinstance(layers[0], BottleneckLayer)

    # -- forward --------------------------------------------------------------------------------------------------

    def forward(self, x, *arrays):
        triples = [arrays[i : i + 3] for i in range(0, len(arrays), 3)]
        self.exit: Any = None if self.transition is None else Unit(*triples.pop(), way=PooledPointwise)
        units = [Unit(*triple, way=keeping_size) for triple in triples]
        self.units = list(zip(units[::2], units[1::2], strict=True)) if self.bottleneck else [(u,) for u in units]
        x = numpy.ascontiguousarray(x)
        n, self.c0, h, w = x.shape
        self.growth = units[-1].outputs
        self.channels = self.c0 + len(self.layers) * self.growth
        self.m, self.dtype = n * h * w, x.dtype
        # A quarter instead of half the channels at both ends: a layer has many short steps, so its pieces are longer than elsewhere.
        self.pieces = pieces_of(x.shape, (self.c0 + self.channels) // 4)
        self.features: Any = (
            empty_pieces(self.channels, self.pieces, self.dtype) if self.training or self.keep else None
        )
        self.made = self.space_for_made()
        self.masks = [self.draw_masks(layer, x.shape) for layer in self.layers]
        self.batch_moments = []
        y = numpy.empty(
            (n, self.channels, h, w) if self.exit is None else (n, self.exit.outputs, h // 2, w // 2), x.dtype
        )
        with single_threaded_blas():
            if self.training:
                self.layer_by_layer(x, y)
            else:
                self.share_by_share(x, y)
        return y

    def layer_by_layer(self, x, y):
        """Training: a layer needs the statistics of all images before it can begin."""

        def load(i, piece):
            old = self.features[i][: self.c0]
            piece.rows(old)[...] = piece.of(x)
            return moments.of_rows(old)

        self.mean, self.var, self.inv_std = (numpy.empty(self.channels) for _ in range(3))
        self.learn(slice(0, self.c0), in_pieces(load, self.pieces))
        for i, units in enumerate(self.units):
            c = self.c0 + i * self.growth
            units[0].fold(self.mean[:c], self.inv_std[:c])
            units[0].prepare_forward(shifted=self.may_shift(i))
            self.batch_moments.append((self.mean[:c], self.var[:c]))
            if self.bottleneck:
                mean, var = moments.merge(in_pieces(self.first_half(i), self.pieces))
                units[1].fold(mean, 1 / numpy.sqrt(var + self.layers[i].norm2.eps))
                units[1].prepare_forward()
                self.batch_moments.append((mean + units[0].offset, var))  # norm2 itself does not mind an offset
            self.learn(slice(c, c + self.growth), in_pieces(self.second_half(i), self.pieces))
            for unit in units:
                unit.done()
        if self.exit is not None:
            self.exit.fold(self.mean, self.inv_std)
            self.exit.prepare_forward(shifted=True)
            self.batch_moments.append((self.mean, self.var))
        in_pieces(self.leave(y), self.pieces)
        if self.exit is not None:
            self.exit.done()

    def share_by_share(self, x, y):
        """Evaluation: all statistics are there, so some images go through the whole block while they are in the cache."""

        def prepare(number):
            units, offset = self.units[number], 0
            for unit, norm in zip(units, norms_of(self.layers[number]), strict=True):
                fold_running(unit, norm, offset)
                unit.prepare_forward(shifted=unit is not units[-1] and self.may_shift(number))
                offset = unit.offset

        in_parallel(prepare, range(len(self.layers)))
        if self.exit is not None:
            fold_running(self.exit, self.transition.norm)
            self.exit.prepare_forward(shifted=True)
        leave = self.leave(y)

        def whole_block(i, piece):
            piece.rows(self.features_of(i, piece)[: self.c0])[...] = piece.of(x)
            for number in range(len(self.layers)):
                if self.bottleneck:
                    self.first_half(number)(i, piece)
                self.second_half(number)(i, piece)
            leave(i, piece)

        in_pieces(whole_block, self.pieces)
        for unit in itertools.chain.from_iterable(self.units):
            unit.done()
        if self.exit is not None:
            self.exit.done()

    def leave(self, y):
        """Bring a piece's feature maps to the result, through the transition where there is one."""
        if self.exit is None:

            def copy(i, piece):
                piece.of(y)[...] = piece.rows(self.features_of(i, piece))

            return copy
        offset = self.exit.offset[:, None].astype(self.dtype)

        def work(i, piece):
            result = halved(piece)
            out = result.place(y, "out")
            self.exit.forward(piece.rows(self.features_of(i, piece)), piece, result, out)
            if self.exit.shifted:
                out += offset
            result.put(out, y)

        return work

    def features_of(self, i, piece):
        if self.features is None:  # evaluation without a graph: nobody will ask again
            return scratch("features", (self.channels, piece.pixels), self.dtype)
        return self.features[i]

    def may_shift(self, number):
        """A constant that the 1×1 convolution leaves out does no harm to norm2, but dropout between them would see it."""
        return self.bottleneck and self.masks[number] == (None, None)

    def first_half(self, number):
        """BN-ReLU-Conv1×1 of a layer: everything before it to 4k channels."""
        unit, (mask, _) = self.units[number][0], self.masks[number]

        def work(i, piece):
            out = self.made_by(number, i, piece)
            unit.forward(piece.rows(self.features_of(i, piece)[: unit.channels]), piece, piece, out)
            drop(out, mask, piece)
            return moments.of_rows(out) if self.training else None

        return work

    def second_half(self, number):
        """BN-ReLU-Conv3×3 of a layer: into its own k channels of the buffer."""
        unit, (_, mask) = self.units[number][-1], self.masks[number]
        c = self.c0 + number * self.growth

        def work(i, piece):
            features = self.features_of(i, piece)
            x = self.made_by(number, i, piece) if self.bottleneck else features[:c]
            out = features[c : c + self.growth]
            unit.forward(piece.rows(x), piece, piece, out)
            drop(out, mask, piece)
            return moments.of_rows(out) if self.training else None

        return work

    def learn(self, channels, parts):
        """The statistics of channels that have just been written; every later layer shares them."""
        mean, var = moments.merge(parts)
        self.mean[channels], self.var[channels] = mean, var
        self.inv_std[channels] = 1 / numpy.sqrt(var + self.layers[0].norm1.eps)

    def space_for_made(self):
        """For what the 1×1 convolutions make: of all layers for backward, else of one, else none."""
        if not self.bottleneck or not (self.training or self.keep):
            return None
        outputs = self.units[0][0].outputs
        return empty_pieces(len(self.layers) * outputs if self.keep else outputs, self.pieces, self.dtype)

    def made_by(self, number, i, piece):
        outputs = self.units[number][0].outputs
        if self.made is None:  # as in features_of
            return scratch("made", (outputs, piece.pixels), self.dtype)
        start = number * outputs if self.keep else 0
        return self.made[i][start : start + outputs]

    def draw_masks(self, layer, shape):
        """What dropout keeps after the layer's convolutions, drawn in the order in which the definition draws."""
        p, sizes = layer.drop.p, (self.units[0][0].outputs, self.growth) if self.bottleneck else (self.growth,)
        if not layer.drop.drawing:
            return None, None
        n, _, h, w = shape
        masks = [(layer.drop.rng.random((n, c, h, w), numpy.float32) >= p, self.dtype.type(1 / (1 - p))) for c in sizes]
        return masks[0], masks[-1]

    # -- backward -------------------------------------------------------------------------------------------------

    def backward(self, dy):
        self.gradients = empty_pieces(self.channels, self.pieces, self.dtype)
        # What every batch norm takes away from dx, A + x̂·B, is the same for all layers but for two numbers a channel.
        self.a, self.b = numpy.zeros(self.channels), numpy.zeros(self.channels)
        dparams: list = []
        dy = numpy.ascontiguousarray(dy)

        def load(i, piece):
            piece.rows(self.gradients[i])[...] = piece.of(dy)

        with single_threaded_blas():
            if self.exit is not None:
                dparams = [*self.back_through_transition(dy)]
            else:
                in_pieces(load, self.pieces)
            if self.bottleneck:
                dmade = empty_pieces(self.units[0][0].outputs, self.pieces, self.dtype)
            for number in reversed(range(len(self.layers))):
                first, last = self.units[number][0], self.units[number][-1]
                for unit in self.units[number]:
                    unit.prepare_backward()
                if self.bottleneck:
                    dlast = last.gradients(shared_out(self.back_to_made(number, dmade), self.pieces, last.new_sums))
                    dfirst = first.gradients(
                        shared_out(self.back_to_features(number, dmade), self.pieces, first.new_sums)
                    )
                    dparams = [*dfirst, *dlast, *dparams]
                else:
                    dfirst = first.gradients(shared_out(self.back_from_output(number), self.pieces, first.new_sums))
                    dparams = [*dfirst, *dparams]
                self.owe(first)
                for unit in self.units[number]:
                    unit.done()
            dx = None
            if self.wants(0):
                correct = self.correction(slice(0, self.c0))
                in_pieces(lambda i, piece: correct(i, self.gradients[i][: self.c0]), self.pieces)
                dx = joined([g[: self.c0] for g in self.gradients], self.pieces)
        return dx, *dparams

    def back_through_transition(self, dy):
        """Into the gradients of all channels; (dγ, dβ, dweight) of the transition."""
        unit = self.exit
        unit.prepare_backward()

        def work(i, piece, sums):
            result = halved(piece)
            unit.backward(piece.rows(self.features[i]), result.of(dy), piece, result, sums, self.gradients[i])

        gradients = unit.gradients(shared_out(work, self.pieces, unit.new_sums))
        self.owe(unit)
        unit.done()
        return gradients

    def owe(self, unit):
        """Add to A and B what this norm takes."""
        if self.training:
            self.a[: unit.channels] += unit.s_dbeta / self.m
            self.b[: unit.channels] += unit.s_dgamma / self.m

    def output_gradient(self, number):
        """dL/d(what a layer's last convolution made), complete: all later layers have given their share."""
        c, (_, mask) = self.c0 + number * self.growth, self.masks[number]
        own = slice(c, c + self.growth)
        correct = self.correction(own)

        def of(i, piece):
            dy = correct(i, self.gradients[i][own])
            drop(dy, mask, piece)
            return dy

        return of

    def correction(self, channels):
        """Take A + x̂·B from the gradient of these channels, in place."""
        if not self.training:
            return lambda i, dx: dx
        a, b, mean, inv_std = (v[channels] for v in (self.a, self.b, self.mean, self.inv_std))
        slope, level = ((v[:, None]).astype(self.dtype) for v in (b * inv_std, a - b * inv_std * mean))

        def correct(i, dx):
            lost = scratch("lost", dx.shape, self.dtype)
            numpy.multiply(self.features[i][channels], slope, out=lost)
            numpy.add(lost, level, out=lost)
            numpy.subtract(dx, lost, out=dx)
            return dx

        return correct

    def back_to_made(self, number, dmade):
        """Through Conv3×3-ReLU-BN of a bottleneck layer, but for the part that needs the sums over all images."""
        unit, output_gradient = self.units[number][1], self.output_gradient(number)

        def work(i, piece, sums):
            unit.backward(
                piece.rows(self.made_by(number, i, piece)), output_gradient(i, piece), piece, piece, sums, dmade[i]
            )

        return work

    def back_to_features(self, number, dmade):
        """Through the rest of norm2, and through Conv1×1-ReLU-BN into the gradients of all channels before."""
        first, last = self.units[number]
        mask, _ = self.masks[number]
        if self.training:
            slope = -last.s_dgamma * last.inv_std / self.m
            level = -last.s_dbeta / self.m - slope * last.mean
            slope, level = (v.astype(self.dtype)[:, None] for v in (slope, level))

        def work(i, piece, sums):
            dz, z = dmade[i], self.made_by(number, i, piece)
            if self.training:
                lost = scratch("lost", z.shape, self.dtype)
                numpy.multiply(z, slope, out=lost)
                numpy.add(lost, level, out=lost)
                numpy.add(dz, lost, out=dz)
            drop(dz, mask, piece)
            self.add_back(first, i, dz, piece, sums)

        return work

    def back_from_output(self, number):
        """Through Conv3×3-ReLU-BN of a layer without bottleneck."""
        unit, output_gradient = self.units[number][0], self.output_gradient(number)
        return lambda i, piece, sums: self.add_back(unit, i, output_gradient(i, piece), piece, sums)

    def add_back(self, unit, i, dy, piece, sums):
        dx = scratch("dx", (unit.channels, piece.pixels), self.dtype)
        unit.backward(piece.rows(self.features[i][: unit.channels]), dy, piece, piece, sums, dx)
        gradient = self.gradients[i][: unit.channels]
        numpy.add(gradient, dx, out=gradient)


def drop(x, mask, piece):
    """Dropout, in place."""
    if mask is not None:
        kept, scale = mask
        rows = piece.rows(x)
        numpy.multiply(rows, piece.of(kept) * scale, out=rows)


def fold_running(unit, norm, offset=0):
    """Set thresholds for running statistics, where the convolution before has left out an offset."""
    mean, var = (b.data.astype(numpy.float64) for b in (norm.running_mean, norm.running_var))
    unit.fold(mean - offset, 1 / numpy.sqrt(var + norm.eps))


def joined(parts, pieces):
    """The parts (C, n·H·W) of all pieces as one array (N, C, H, W)."""
    y = numpy.empty((pieces[-1].stop, len(parts[0]), pieces[0].height, pieces[0].width), parts[0].dtype)

    def store(i, piece):
        piece.of(y)[...] = piece.rows(parts[i])

    in_pieces(store, pieces)
    return y
