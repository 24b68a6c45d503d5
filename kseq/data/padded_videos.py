"""Batches of videos of unlike length: padded behind, the padding without weight."""

from collections.abc import Callable, Sequence

import numpy as np

from kseq.data.batches import Batches
from kseq.errors import InputError


class PaddedVideos(Batches):
    """Videos of like length together, padded with zeros behind, as `(inputs, targets, weights)`.

    The weights, float32 `(batch, time)`, are 1 for a frame and 0 for padding. So compile with `weighted_metrics`, and
    with a loss whose `reduction` is `"mean_with_sample_weight"`: the mean over the frames that are there.

    All videos are kept in memory at the length of the longest, in the type that they are given in: give bytes, and let
    `encode` make float32 of a batch at a time.

    Args:
        inputs: frames or features of each video, `(time, …)`.
        targets: of each video, `(time, …)`.
        batch_size: videos in a batch.
        encode: what becomes of frames `(frames, …)` before the model reads them, as `ImageEncoder` does; `None` leaves
            them as they are.
        masked: whether the model has a second input, booleans `(batch, time)`, true where there are frames, as models
            that read backwards do.
        multiple: lengths are rounded up to a multiple of it: few shapes, because JAX compiles each.
        arguments: of `Batches`: `seed` and `target_names`; with these the weights are a dict, too.

    Raises:
        InputError: if there is no video, a video has no frames, or another number of targets than frames, `multiple`
            is below 1, and for what `Batches` refuses.
    """

    step = 1  # lengths are rounded up before

    def __init__(
        self,
        inputs: Sequence[np.ndarray],
        targets: Sequence[np.ndarray],
        batch_size: int,
        *,
        encode: Callable[[np.ndarray], np.ndarray] | None = None,
        masked: bool = False,
        multiple: int = 32,
        **arguments,
    ):
        if len(inputs) != len(targets) or not len(inputs):
            raise InputError(f"inputs, targets: {len(inputs)} and {len(targets)} videos; give as many, at least one")
        for i, (video, of_video) in enumerate(zip(inputs, targets, strict=True)):
            if len(video) != len(of_video) or not len(video):
                raise InputError(f"video {i}: {len(video)} frames, {len(of_video)} targets; give as many, at least one")
        if multiple < 1:
            raise InputError(f"multiple {multiple}: give 1 or more")
        self.encode, self.masked, self.frames = encode, masked, [len(video) for video in inputs]
        ends = -(-np.array(self.frames) // multiple) * multiple
        there = [np.ones(count, bool) for count in self.frames]
        inputs, there, targets = (_padded(part, max(ends)) for part in (inputs, there, targets))
        super().__init__((inputs, there), targets, batch_size, lengths=(ends, ends), target_lengths=ends, **arguments)

    def __getitem__(self, index: int) -> tuple:
        (inputs, there), targets = super().__getitem__(index)
        if self.encode is not None:
            frames = self.encode(inputs.reshape(-1, *inputs.shape[2:]))
            inputs = frames.reshape(*inputs.shape[:2], *frames.shape[1:])
        weights = there.astype("float32")
        if self.target_names is not None:  # each head its own, which Keras on PyTorch multiplies by a mask in place
            weights = {name: weights.copy() for name in self.target_names}
        return ((inputs, there) if self.masked else inputs), targets, weights


def _padded(videos: Sequence[np.ndarray], length: int) -> np.ndarray:
    """Videos with zeros behind them, `(videos, length, …)`."""
    padded = np.zeros((len(videos), length, *videos[0].shape[1:]), videos[0].dtype)
    for row, video in zip(padded, videos, strict=True):
        row[: len(video)] = video
    return padded
