"""Moving MNIST: digits that bounce inside a frame, and the frames that follow; the standard test of video forecasts."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from kseq.data.dataset import Arrays, Entry
from kseq.data.handwritten_digits import handwritten_digits
from kseq.errors import InputError, shorten

if TYPE_CHECKING:
    from kseq.data.batches import Batches

ENTRY = Entry(
    name="moving_digits",
    task="10 frames of a video → the next 10",
    size="any number of sequences, 64×64 frames",
    source="Shi et al. 2015, generated from the embedded MNIST digits",
    licence="CC BY-SA 3.0",
)
SIDE = 28  # pixels of a digit
VALIDATION, TEST = (1,), (2,)  # seeds of the sequences that are always the same


@dataclass(frozen=True)
class DigitMovement:
    """Draws sequences of moving digits. `Batches(augment=…)` calls it with the numbers that it draws from.

    Attributes:
        images: of the digits, uint8 `(images, 28, 28)`.
        frames: number of frames that are given, and of those to be forecast.
        size: height and width of a frame.
        digits: in a sequence.
        speed: pixels a frame, from the first up to, but not with, the second.
    """

    changes_targets: ClassVar[bool] = True  # of `Batches`: draws inputs and targets

    images: np.ndarray
    frames: tuple[int, int] = (10, 10)
    size: int = 64
    digits: int = 2
    speed: tuple[float, float] = (3.0, 5.0)

    def __call__(self, inputs: np.ndarray, targets: np.ndarray, random: np.random.Generator) -> Arrays:
        """As many new sequences as `inputs` has rows, divided into what is given and what is to be forecast."""
        sequences = self.draw(len(inputs), random)
        return sequences[:, : self.frames[0]], sequences[:, self.frames[0] :]

    def draw(self, samples: int, random: np.random.Generator) -> np.ndarray:
        """Sequences float32 `(samples, sum(frames), size, size, 1)`, 0 for paper and 1 for ink."""
        corners = self.paths(samples, random).astype("int32")  # rounded down, as int() does in the authors' generator
        chosen = self.images[random.integers(0, len(self.images), (samples, self.digits))]
        sequences = np.zeros((samples, sum(self.frames), self.size, self.size), "uint8")
        for sample in range(samples):
            for image, path in zip(chosen[sample], corners[sample], strict=True):
                for frame, (top, left) in zip(sequences[sample], path.tolist(), strict=True):
                    window = frame[top : top + SIDE, left : left + SIDE]
                    np.maximum(window, image, out=window)
        return sequences[..., None].astype("float32") / np.float32(255)

    def paths(self, samples: int, random: np.random.Generator) -> np.ndarray:
        """The top left corners of the digits, exact, `(samples, digits, sum(frames), 2)` from 0 to `size` - 28.

        A digit that is reflected by two opposite edges goes as straight as its mirror image beyond them would: fold
        the line x + v t into the frame.
        """
        room = self.size - SIDE
        start = random.uniform(0, room, (samples, self.digits, 2))
        angle = random.uniform(0, 2 * np.pi, (samples, self.digits))
        velocity = random.uniform(*self.speed, (samples, self.digits))[..., None]
        velocity = velocity * np.stack([np.sin(angle), np.cos(angle)], axis=-1)  # (samples, digits, 2)
        time = np.arange(sum(self.frames))[:, None]
        straight = start[:, :, None] + velocity[:, :, None] * time  # (samples, digits, frames, 2)
        return room - np.abs(room - straight % (2 * room))


@dataclass(frozen=True)
class MovingDigits:
    """Sequences of frames and the frames that follow.

    Attributes:
        train: a `keras.utils.PyDataset` of batches `(inputs, targets)`: other sequences in every epoch, always the same
            ones for a seed, an epoch and a batch size.
        validation: `(inputs, targets)`, float32 `(samples, time, size, size, 1)` from 0 to 1, for choosing a model.
        test: the same, for the final figures.
        movement: what draws the training sequences.
        source: where the data come from, and their licence.
    """

    train: "Batches"
    validation: Arrays
    test: Arrays
    movement: DigitMovement
    source: str


def moving_digits(
    count: tuple[int, int, int] = (2_000, 200, 400),
    *,
    batch_size: int = 16,
    frames: tuple[int, int] = (10, 10),
    size: int = 64,
    digits: int = 2,
    speed: tuple[float, float] = (3.0, 5.0),
    seed: int = 0,
) -> MovingDigits:
    """Moving MNIST by the generator of its authors: two digits that bounce in 64×64 frames, 10 frames in, 10 out.

    Each digit starts at a uniform place within the frame, in a uniform direction, with a uniform speed in [3, 5)
    pixels a frame. The edges of the frame reflect its 28×28 square without loss. Where digits overlap, the darker ink
    counts. A frame shows them at whole pixels (the exact place rounded down), values are grey, from 0 to 1.

    The cross-entropy of a forecast, as the paper gives it, is the sum over the pixels of the 10 frames of
    -T ln P - (1 - T) ln(1 - P), mean over the sequences. The targets T are grey, so a perfect forecast does not get 0.

    What differs from the paper: it took the digits of all three sets from the same 500 of MNIST; here those of the
    training sequences (3,500), of the validation (500) and of the test sequences (1,000) are different images, the
    splits of `handwritten_digits`. It trained on 10,000 sequences again and again; here every epoch draws new ones.
    Its sizes are `count=(10_000, 2_000, 3_000)`; its test of what was never seen is `moving_digits(digits=3).test`.

    Arrays are float32 because the targets of a cross-entropy are probabilities; a sequence takes 330 kB.

    Source: Shi et al., "Convolutional LSTM network: a machine learning approach for precipitation nowcasting", NeurIPS
    2015 (arXiv 1506.04214), and the generator that its first author published; the idea is that of Srivastava,
    Mansimov & Salakhutdinov, ICML 2015 (arXiv 1502.04681), whose digits have one speed and lose a step at an edge.

    Args:
        count: sequences of a training epoch, of validation and test.
        batch_size: sequences in a training batch.
        frames: number of frames that are given, and of those to be forecast.
        size: height and width of a frame.
        digits: in a sequence.
        speed: the slowest and the fastest, in pixels a frame.
        seed: of the training sequences. Validation and test do not depend on it: the same arguments before it give
            the same arrays in every run, on every backend.

    Returns:
        A `MovingDigits`. Call `train.set_epoch` when an epoch begins, and `fit` with `shuffle=False`;
        `Run.fit_arguments` does both.

    Raises:
        InputError: if a number is below 1, the frame is too small for a digit to move, or the speeds are not in order.
    """
    count, frames, speed = tuple(count), tuple(frames), tuple(speed)
    if len(count) != 3 or min(count) < 1:
        raise InputError(f"count {count}: give three, of training, validation and test, 1 or more each")
    if len(frames) != 2 or min(frames) < 1:
        raise InputError(f"frames {frames}: give two, given and to be forecast, 1 or more each")
    if size <= SIDE:
        raise InputError(f"size {shorten(size)}: digits of {SIDE} pixels cannot move; give {SIDE + 1} or more")
    if digits < 1:
        raise InputError(f"digits {shorten(digits)}: give 1 or more")
    if len(speed) != 2 or not 0 <= speed[0] <= speed[1] < np.inf:
        raise InputError(f"speed {speed}: give the slowest and the fastest, 0 or more")
    from kseq.data.batches import Batches  # needs Keras, which reading data must not load

    source = handwritten_digits()
    train, validation, test = (
        DigitMovement(images[..., 0], frames, size, digits, speed)
        for images, _ in (source.train, source.validation, source.test)
    )
    numbers = [np.arange(samples) for samples in count]
    return MovingDigits(
        Batches(numbers[0], numbers[0], batch_size, seed=seed, augment=train),
        validation(numbers[1], numbers[1], np.random.default_rng(VALIDATION)),
        test(numbers[2], numbers[2], np.random.default_rng(TEST)),
        train,
        f"{ENTRY.source}; licence: {ENTRY.licence}",
    )
