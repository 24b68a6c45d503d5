"""Batches in an order that depends on the seed and the epoch only, so that a run can be resumed or repeated exactly."""

from collections.abc import Callable

import keras
import numpy as np

from kseq.errors import InputError

POOL = 50  # batches among which samples are sorted by length; more would pad less and mix less
STEP = 3  # lengths are rounded up to a multiple of it: few shapes to compile, little padding


class Batches(keras.utils.PyDataset):
    """Arrays cut into shuffled batches, the same on every backend, sequences of like length together.

    Keras shuffles arrays with the random state of the process, which differs between backends and is lost when a run
    is killed. Here the order of epoch `e` is drawn from `numpy.random.default_rng((seed, e))` alone. Pass it to `fit`
    with `shuffle=False`, and call `set_epoch` when an epoch begins (`Run.fit_arguments` does both).

    With `lengths`, the shuffled samples are sorted by length in pools of 50 batches, the batches of a pool are cut from
    them and shuffled again, and each batch ends at its longest sequence (rounded up to a multiple of 3): less padding
    to compute.

    Args:
        inputs: array of shape `(samples, …)`; with `lengths`, `(samples, time, …)`.
        targets: array of shape `(samples, …)`.
        batch_size: samples in a batch; one batch of an epoch may be smaller.
        seed: of the order; `None` keeps the order of the arrays.
        lengths: integers `(samples,)`, the length of each sequence of `inputs`; what lies behind it is cut off.
        augment: `augment(inputs, random) -> inputs` changes the inputs of a batch by chance; `random` is drawn from
            `(seed, epoch, batch)` alone, so it needs a seed.

    Raises:
        InputError: if the arrays differ in length or are empty, `batch_size` is below 1, or `augment` has no `seed`.
    """

    def __init__(
        self,
        inputs: np.ndarray,
        targets: np.ndarray,
        batch_size: int,
        *,
        seed: int | None = None,
        lengths: np.ndarray | None = None,
        augment: Callable[[np.ndarray, np.random.Generator], np.ndarray] | None = None,
    ):
        super().__init__()
        samples = {len(array) for array in (inputs, targets, lengths) if array is not None}
        if len(samples) != 1 or 0 in samples:
            raise InputError(f"inputs, targets, lengths: {sorted(samples)} samples; give the same number, at least one")
        if batch_size < 1:
            raise InputError(f"batch_size {batch_size}: give 1 or more")
        if augment is not None and seed is None:
            raise InputError("seed None: augment draws random numbers; give a seed")
        self.inputs, self.targets, self.batch_size = inputs, targets, batch_size
        self.seed, self.lengths, self.augment = seed, lengths, augment
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Put the samples into the order of `epoch` (counted from 0)."""
        samples, size, self.epoch = len(self.inputs), self.batch_size, epoch
        random = None if self.seed is None else np.random.default_rng((self.seed, epoch))
        order = np.arange(samples) if random is None else random.permutation(samples)
        if self.lengths is None:
            self.batches = [order[start : start + size] for start in range(0, samples, size)]
            return
        self.batches = []
        for start in range(0, samples, POOL * size):
            pool = order[start : start + POOL * size]
            pool = pool[np.argsort(self.lengths[pool], kind="stable")]
            batches = [pool[first : first + size] for first in range(0, len(pool), size)]
            if random is not None:
                batches = [batches[i] for i in random.permutation(len(batches))]
            self.batches += batches
        # The longest first and the shortest second: Keras on TensorFlow takes the time axis for fixed if the first two
        # batches agree in it, and memory that does not suffice is seen at once.
        time = [self._time(batch) for batch in self.batches]
        self.batches.insert(0, self.batches.pop(int(np.argmax(time))))
        time = [self._time(batch) for batch in self.batches]
        self.batches.insert(1, self.batches.pop(int(np.argmin(time))))

    def _time(self, batch: np.ndarray) -> int:
        longest = int(self.lengths[batch].max())
        return min(-(-longest // STEP) * STEP, self.inputs.shape[1])

    def __len__(self) -> int:
        return -(-len(self.inputs) // self.batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        batch = self.batches[index]
        inputs = self.inputs[batch]
        if self.lengths is not None:
            inputs = inputs[:, : self._time(batch)]
        if self.augment is not None:
            inputs = self.augment(inputs, np.random.default_rng((self.seed, self.epoch, 1 + index)))
        return inputs, self.targets[batch]
