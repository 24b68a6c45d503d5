"""Batches in an order that depends on the seed and the epoch only, so that a run can be resumed or repeated exactly."""

from collections.abc import Callable

import keras
import numpy as np

from kseq.errors import InputError

POOL = 50  # batches among which samples are sorted by length; more would pad less and mix less
BUCKETS = (5, 3)  # of two different lengths: buckets of the targets', and of the other in each; 15 shapes at most


class Batches(keras.utils.PyDataset):
    """Arrays cut into shuffled batches, the same on every backend, sequences of like length together.

    Keras shuffles arrays with the random state of the process, which differs between backends and is lost when a run
    is killed. Here the order of epoch `e` is drawn from `numpy.random.default_rng((seed, e))` alone. Pass it to `fit`
    with `shuffle=False`, and call `set_epoch` when an epoch begins (`Run.fit_arguments` does both).

    With `lengths`, the shuffled samples are sorted by length in pools of 50 batches, the batches of a pool are cut from
    them and shuffled again, and each batch ends at its longest sequence (rounded up to a multiple of 3): less padding
    to compute.

    Pairs of sequences, whose two lengths differ, are sorted by both, and there are at most 15 pairs of lengths that a
    batch ends at, the same in every epoch, because JAX compiles each: the 5 of the targets (of the last input, without
    `target_lengths`) that pad the whole set least, and for each of them the 3 of the other that do.

    Args:
        inputs: array of shape `(samples, …)`, with `lengths` `(samples, time, …)`; or a tuple of them, one for each
            input of the model.
        targets: array of shape `(samples, …)`, with `target_lengths` `(samples, time, …)`.
        batch_size: samples in a batch; one batch of an epoch may be smaller.
        seed: of the order; `None` keeps the order of the arrays.
        lengths: integers `(samples,)`, the length of each sequence of `inputs`; what lies behind it is cut off. With a
            tuple of inputs a tuple of them; `None` in it leaves an input as it is.
        target_lengths: integers `(samples,)`, the length of each sequence of `targets`, which are then cut as well.
        augment: `augment(inputs, random) -> inputs` changes the inputs of a batch by chance, as `RandomAffine` does;
            or, if it has the attribute `changes_targets = True`, `augment(inputs, targets, random) -> (inputs,
            targets)` changes both, as `SegmentationAugmentation` does. `random` is drawn from `(seed, epoch, batch)`
            alone, so it needs a seed.
        target_names: for a model that answers a dict: the targets are given under each of these names, a dict, as for
            a segmentation model with auxiliary heads: `("logits", "auxiliary_0")`.

    Raises:
        InputError: if the arrays differ in length or are empty, there is not one entry of `lengths` for each input,
            more than two of the lengths differ from each other, one is longer than its array, `batch_size` is below 1,
            or `augment` has no `seed`.
    """

    step = 3  # lengths are rounded up to a multiple of it: few shapes to compile, little padding

    def __init__(
        self,
        inputs: np.ndarray | tuple[np.ndarray, ...],
        targets: np.ndarray,
        batch_size: int,
        *,
        seed: int | None = None,
        lengths: np.ndarray | tuple[np.ndarray | None, ...] | None = None,
        target_lengths: np.ndarray | None = None,
        augment: Callable | None = None,
        target_names: tuple[str, ...] | None = None,
    ):
        super().__init__()
        several = isinstance(inputs, tuple)
        arrays = (*inputs, targets) if several else (inputs, targets)
        if isinstance(lengths, tuple) != several and lengths is not None:
            raise InputError("lengths: give an array for one input, for a tuple of inputs a tuple of as many")
        ends = (*lengths, target_lengths) if isinstance(lengths, tuple) else (lengths, target_lengths)
        if lengths is None:
            ends = (*[None] * (len(arrays) - 1), target_lengths)
        if len(ends) != len(arrays):
            raise InputError(f"lengths: {len(ends) - 1} for {len(arrays) - 1} inputs; give one for each, or None")
        samples = {len(array) for array in (*arrays, *ends) if array is not None}
        if len(samples) != 1 or 0 in samples:
            raise InputError(f"inputs, targets, lengths: {sorted(samples)} samples; give the same number, at least one")
        if batch_size < 1:
            raise InputError(f"batch_size {batch_size}: give 1 or more")
        if augment is not None and seed is None:
            raise InputError("seed None: augment draws random numbers; give a seed")
        self.inputs, self.targets, self.batch_size = inputs, targets, batch_size
        self.seed, self.lengths, self.target_lengths, self.augment = seed, lengths, target_lengths, augment
        self.target_names = target_names
        self.arrays, self.samples = arrays, samples.pop()
        self._find_axes(ends)
        self.set_epoch(0)

    def _find_axes(self, ends: tuple[np.ndarray | None, ...]) -> None:
        """Number the lengths that differ, the targets' first, and find where they may end."""
        self.axes: list[np.ndarray] = []
        axis_of = {}
        for i in reversed(range(len(ends))):
            if ends[i] is None:
                continue
            lengths = np.maximum(ends[i], 1)  # one step stays of an empty sequence, or a batch of them would have none
            axis = next((a for a, known in enumerate(self.axes) if np.array_equal(known, lengths)), len(self.axes))
            self.axes += [lengths] * (axis == len(self.axes))
            axis_of[i] = axis
            if (longest := int(self.axes[axis].max())) > self.arrays[i].shape[1]:
                raise InputError(f"lengths: {longest} in an array of length {self.arrays[i].shape[1]}; give shorter")
        if len(self.axes) > 2:
            raise InputError(f"lengths: {len(self.axes)} that differ; give at most two, as of pairs of sequences")
        self.axis_of = [axis_of.get(i) for i in range(len(ends))]
        if len(self.axes) == 2:
            first, second = self.axes
            self.bounds = _bounds(first, BUCKETS[0])
            self.bucket = np.searchsorted(self.bounds, first)
            self.second_bounds = [
                # A batch may reach into the bucket before, so its longest has to fit, too.
                np.append(_bounds(second[self.bucket == i], BUCKETS[1])[:-1], second[self.bucket <= i].max())
                for i in range(len(self.bounds))
            ]

    def set_epoch(self, epoch: int) -> None:
        """Put the samples into the order of `epoch` (counted from 0)."""
        samples, size, self.epoch = self.samples, self.batch_size, epoch
        random = None if self.seed is None else np.random.default_rng((self.seed, epoch))
        order = np.arange(samples) if random is None else random.permutation(samples)
        if not self.axes:
            self.batches = [order[start : start + size] for start in range(0, samples, size)]
            return
        self.batches = []
        for start in range(0, samples, POOL * size):
            pool = order[start : start + POOL * size]
            pool = pool[self._by_length(pool)]
            batches = [pool[first : first + size] for first in range(0, len(pool), size)]
            if random is not None:
                batches = [batches[i] for i in random.permutation(len(batches))]
            self.batches += batches
        # The longest first and the shortest second: Keras on TensorFlow takes the time axis for fixed if the first two
        # batches agree in it, and memory that does not suffice is seen at once.
        times = [self._times(batch) for batch in self.batches]
        self.batches.insert(0, self.batches.pop(int(np.argmax([sum(time) for time in times]))))
        times = [self._times(batch) for batch in self.batches]
        agree = [sum(a == b for a, b in zip(time, times[0], strict=True)) for time in times]
        second = min(range(len(times)), key=lambda i: (agree[i], sum(times[i])))
        self.batches.insert(1, self.batches.pop(second))

    def _by_length(self, pool: np.ndarray) -> np.ndarray:
        if len(self.axes) == 1:
            return np.argsort(self.axes[0][pool], kind="stable")
        return np.lexsort((self.axes[1][pool], self.bucket[pool]))

    def _times(self, batch: np.ndarray) -> tuple[int, ...]:
        """Where the sequences of a batch are cut, for each of `axes`."""
        longest = [int(axis[batch].max()) for axis in self.axes]
        if len(longest) == 1:
            limit = min(a.shape[1] for a, axis in zip(self.arrays, self.axis_of, strict=True) if axis is not None)
            return (min(-(-longest[0] // self.step) * self.step, limit),)
        bucket = int(np.searchsorted(self.bounds, longest[0]))
        bounds = self.second_bounds[bucket]
        return int(self.bounds[bucket]), int(bounds[np.searchsorted(bounds, longest[1])])

    @property
    def padding(self) -> float:
        """The share of padding among all the tokens of an epoch, over all sequences that are cut."""
        kept = computed = 0
        for batch in self.batches:
            for axis in self.axis_of:
                if axis is not None:
                    kept += int(self.axes[axis][batch].sum())
                    computed += len(batch) * self._times(batch)[axis]
        return 1 - kept / computed if computed else 0.0

    def __len__(self) -> int:
        return -(-self.samples // self.batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray | tuple[np.ndarray, ...], np.ndarray | dict[str, np.ndarray]]:
        batch = self.batches[index]
        times = self._times(batch) if self.axes else ()
        *inputs, targets = (
            array[batch] if axis is None else array[batch, : times[axis]]
            for array, axis in zip(self.arrays, self.axis_of, strict=True)
        )
        inputs = tuple(inputs) if isinstance(self.inputs, tuple) else inputs[0]
        if self.augment is not None:
            random = np.random.default_rng((self.seed, self.epoch, 1 + index))
            if getattr(self.augment, "changes_targets", False):
                inputs, targets = self.augment(inputs, targets, random)
            else:
                inputs = self.augment(inputs, random)
        return inputs, targets if self.target_names is None else dict.fromkeys(self.target_names, targets)


def _bounds(lengths: np.ndarray, count: int) -> np.ndarray:
    """The at most `count` lengths to which all `lengths` are rounded up with the least padding, in order.

    By dynamic programming: the best bounds up to a length follow from the best ones, one fewer, up to each shorter one.
    """
    values, numbers = np.unique(lengths, return_counts=True)
    below = np.concatenate(([0], np.cumsum(numbers)))
    # padded[i, j]: tokens if values i to j are all rounded up to values[j]
    padded = (below[None, 1:] - below[:-1, None]) * values[None].astype("float64")
    padded[np.tril_indices(len(values), -1)] = np.inf
    best, begins = padded[0], []
    for _ in range(min(count, len(values)) - 1):
        total = np.concatenate(([np.inf], best[:-1]))[:, None] + padded
        begins.append(total.argmin(axis=0))
        best = total.min(axis=0)
    bounds = [len(values) - 1]
    for begin in reversed(begins):
        bounds.append(begin[bounds[-1]] - 1)
    return values[bounds[::-1]]
