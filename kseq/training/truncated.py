"""Truncated back-propagation through time by `model.fit`: long sequences in windows, the state carried across.

A sequence of `time` steps is cut into windows of `length`. The model has stateful recurrent layers: the state with
which one window ends begins the next, but no gradient flows back over the edge. Memory and the time of a step grow with
`length`, not with the sequence, while what is computed forwards at valid steps is what one pass over the whole would
compute.

    train = Windows(inputs, targets, batch_size=16, length=50, seed=0)
    model.fit(train, epochs=10, shuffle=False, callbacks=[CarryState(train)])

Source: Williams & Peng 1990, "An efficient gradient-based algorithm for on-line training of recurrent network
trajectories"; here both their lengths h and h' are `length`.
"""

from typing import Literal

import keras
import numpy as np

from kseq.errors import InputError
from kseq.layers.conv_lstm import ConvLSTM
from kseq.layers.recurrent import Recurrence


class Windows(keras.utils.PyDataset):
    """Sequences cut into windows: row i of a batch continues row i of the batch before.

    The first batches are the consecutive windows of the first `batch_size` sequences, then come those of the next
    ones. The order of the sequences in epoch `e` is drawn from `numpy.random.default_rng((seed, e))` alone, as in
    `kseq.data.Batches`. Pass it to `fit` with `shuffle=False` and a `CarryState`.

    A batch is `(inputs, targets)` of shapes `(batch_size, length, …)`. Where `length` does not divide `time`, the
    steps that are left over

    - come first (`"first"`), as a shorter window: exact and without padding; the time axis of the model must be `None`;
    - or are padded with zeros behind to a full last window (`"mask"`); every batch then has sample weights
      `(batch_size, length)`, 0 for padding. The loss of that window is still divided by `length`, so that every step
      counts the same; give metrics to `compile` as `weighted_metrics`;
    - or are left out (`"drop"`), the last of each sequence.

    Args:
        inputs: array `(samples, time, …)`.
        targets: array `(samples, time, …)`.
        batch_size: sequences side by side; the batch size of the model's inputs. It must divide `samples`, because the
            states of a model have a fixed number of rows.
        length: steps in a window, through which gradients flow.
        seed: of the order; `None` keeps the order of the arrays.
        remainder: what to do with the steps that fill no window.

    Raises:
        InputError: if the arrays differ in their first two axes or are empty, if `batch_size` does not divide the
            samples, if `length` is below 1, or if nothing is left.
    """

    def __init__(
        self,
        inputs: np.ndarray,
        targets: np.ndarray,
        batch_size: int,
        length: int,
        *,
        seed: int | None = None,
        remainder: Literal["first", "mask", "drop"] = "first",
    ):
        super().__init__()
        inputs, targets = np.asarray(inputs), np.asarray(targets)
        if inputs.ndim < 2 or inputs.shape[:2] != targets.shape[:2] or 0 in inputs.shape[:2]:
            raise InputError(
                f"inputs {inputs.shape}, targets {targets.shape}: give (samples, time, …) in both, equal in these axes"
            )
        samples, time = inputs.shape[:2]
        if batch_size < 1 or samples % batch_size:
            raise InputError(
                f"batch_size {batch_size}: does not divide the {samples:,} sequences, and the states of a model have a "
                "fixed number of rows; give a divisor, or leave sequences out"
            )
        if length < 1:
            raise InputError(f"length {length}: give 1 or more steps")
        if remainder not in ("first", "mask", "drop"):
            raise InputError(f"remainder {remainder!r}: give 'first', 'mask' or 'drop'")
        if remainder == "drop" and length > time:
            raise InputError(
                f"length {length}: no window fits in {time} steps; give at most {time}, or keep remainders"
            )
        self.inputs, self.targets, self.batch_size, self.length = inputs, targets, batch_size, length
        self.seed, self.remainder = seed, remainder
        left = time % length
        starts = range(left if remainder == "first" else 0, time - left if remainder == "drop" else time, length)
        self.spans = [(start, min(start + length, time)) for start in starts]  # the steps of each window
        if remainder == "first" and left:
            self.spans.insert(0, (0, left))
        self._asked: set[int] = set()
        self._in_epoch = False
        self.out_of_order = False
        self.set_epoch(0)

    @classmethod
    def from_stream(cls, inputs: np.ndarray, targets: np.ndarray, batch_size: int, length: int, **options) -> "Windows":
        """Windows of one long sequence `(time, …)`, cut into `batch_size` equal tracks that are read side by side.

        Up to `batch_size - 1` steps at its end fill no track and are left out.

        Args:
            inputs: array `(time, …)`.
            targets: array `(time, …)`.
            batch_size: number of tracks.
            length: steps in a window.
            **options: as for `Windows`.

        Raises:
            InputError: if the arrays differ in length, or are shorter than `batch_size`.
        """
        inputs, targets = np.asarray(inputs), np.asarray(targets)
        if len(inputs) != len(targets) or batch_size < 1 or len(inputs) < batch_size:
            raise InputError(
                f"inputs, targets: {len(inputs):,} and {len(targets):,} steps for batch_size {batch_size}; "
                "give the same number, at least one a track"
            )
        time = len(inputs) // batch_size
        tracks = (array[: batch_size * time].reshape(batch_size, time, *array.shape[1:]) for array in (inputs, targets))
        return cls(*tracks, batch_size, length, **options)

    @property
    def windows_per_sequence(self) -> int:
        """After how many batches the next sequences begin."""
        return len(self.spans)

    def set_epoch(self, epoch: int) -> None:
        """Put the sequences into the order of `epoch` (counted from 0)."""
        samples = len(self.inputs)
        self.order = (
            np.arange(samples) if self.seed is None else np.random.default_rng((self.seed, epoch)).permutation(samples)
        )

    def on_epoch_begin(self):
        self._in_epoch = True

    def on_epoch_end(self):
        self._in_epoch = False

    def __len__(self) -> int:
        return len(self.inputs) // self.batch_size * len(self.spans)

    def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
        # Keras shuffles batches unless told not to, and does not tell: seen by a window asked for before the one ahead.
        self.out_of_order |= self._in_epoch and self.workers < 2 and index > 0 and index - 1 not in self._asked
        self._asked.add(index)
        group, window = divmod(index, len(self.spans))
        rows = self.order[group * self.batch_size : (group + 1) * self.batch_size]
        start, end = self.spans[window]
        batch = self.inputs[rows, start:end], self.targets[rows, start:end]
        if self.remainder != "mask" or self.inputs.shape[1] % self.length == 0:
            return batch
        weights = np.ones((self.batch_size, end - start), "float32")
        return tuple(self._padded(array) for array in (*batch, weights))

    def _padded(self, array: np.ndarray) -> np.ndarray:
        padding = self.length - array.shape[1]
        return np.pad(array, [(0, 0), (0, padding)] + [(0, 0)] * (array.ndim - 2))


class CarryState(keras.callbacks.Callback):
    """Carries the states of stateful layers from window to window, and clears them where sequences begin.

    States are zero at the first window of every group of sequences, so also when an epoch begins. It goes by the number
    of the batch, since Keras asks a `PyDataset` for batches ahead of time. It also sets the order of the epoch.

    Evaluation, in `fit` or by `evaluate`, starts from zero and gives training its states back. Its batches are those of
    `validation`, or if that is `None` whole sequences, each from zero.

    The layers must be those of `kseq.layers`: those of Keras 3.15 lose their states in `fit` on JAX and cannot be
    trained on PyTorch. After `fit` they hold the last states; `layer.reset_state()` clears them.

    Args:
        train: the windows that `fit` is given; `None` for `evaluate` alone.
        validation: the windows that are evaluated; `None` if they are not `Windows`.

    Raises:
        InputError: when training begins, if no layer is stateful, one is Keras's or runs backwards, the batches are
            shuffled, or `steps_per_epoch` or `steps_per_execution` cut across sequences.
    """

    def __init__(self, train: Windows | None = None, validation: Windows | None = None):
        super().__init__()
        self.train, self.validation = train, validation

    def on_train_begin(self, logs=None):
        self._find_states()
        if self.train is None:
            raise InputError("train None: give CarryState the Windows that fit is given")
        self.train.out_of_order = False
        steps, windows = self.params.get("steps"), self.train.windows_per_sequence
        if steps != len(self.train):
            raise InputError(f"steps_per_epoch {steps}: the windows have {len(self.train)} batches; leave it out")
        if windows % self.model.steps_per_execution:
            raise InputError(
                f"steps_per_execution {self.model.steps_per_execution}: sequences end between its steps, each has "
                f"{windows} windows; compile with 1 or a divisor"
            )

    def on_epoch_begin(self, epoch, logs=None):
        self.train.set_epoch(epoch)

    def on_train_batch_begin(self, batch, logs=None):
        if batch % self.train.windows_per_sequence == 0:
            self._assign(None)

    def on_train_batch_end(self, batch, logs=None):
        if self.train.out_of_order:
            raise InputError("shuffle True: windows must follow each other; call fit with shuffle=False")

    def on_test_begin(self, logs=None):
        self._find_states()
        self._kept = [keras.ops.convert_to_numpy(state).copy() for state in self._states]
        self._assign(None)

    def on_test_batch_begin(self, batch, logs=None):
        if self.validation is None or batch % self.validation.windows_per_sequence == 0:
            self._assign(None)

    def on_test_end(self, logs=None):
        self._assign(self._kept)

    def _assign(self, values: list[np.ndarray] | None) -> None:
        # On JAX the variables are empty during an epoch; this fills them, and has the next step read them again.
        getattr(self.model, "jax_state_sync", lambda: None)()
        for number, state in enumerate(self._states):
            state.assign(np.zeros(state.shape) if values is None else values[number])

    def _find_states(self) -> None:
        layers = [
            layer
            for layer in self.model._flatten_layers(include_self=False)
            if isinstance(layer, (keras.layers.RNN, ConvLSTM)) and layer.stateful
        ]
        if not layers:
            raise InputError(f"model {self.model.name}: no layer is stateful; make its layers with stateful=True")
        for layer in layers:
            if layer.go_backwards:
                raise InputError(
                    f"{layer.name}: runs backwards, so its state comes from the wrong end; use layers that run forwards"
                )
            if not isinstance(layer, (Recurrence, ConvLSTM)):
                raise InputError(f"{layer.name}: Keras does not carry its states in fit; take the layer of kseq.layers")
        getattr(self.model, "jax_state_sync", lambda: None)()
        self._states = [state for layer in layers for state in layer.states]
