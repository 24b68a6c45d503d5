import keras
import numpy as np
import pytest

from kseq.data import ImageEncoder, PaddedVideos
from kseq.errors import InputError

random = np.random.default_rng(3)
COUNTS = (5, 9, 2, 12, 7)
VIDEOS = [random.integers(1, 256, (count, 4, 4, 1), "uint8") for count in COUNTS]
PHASES = [random.integers(1, 3, count) for count in COUNTS]
ENCODER = ImageEncoder((4, 4), 1, mean=(0.5,), std=(0.25,))


def test_every_frame_is_there_once_and_padding_has_no_weight():
    batches = PaddedVideos(VIDEOS, PHASES, 2, encode=ENCODER, multiple=4, seed=1)
    assert batches.frames == list(COUNTS)
    for epoch in range(2):
        batches.set_epoch(epoch)
        seen = []
        for index, rows in enumerate(batches.batches):
            frames, phases, weights = batches[index]
            longest = max(COUNTS[row] for row in rows)
            assert frames.shape[1] == -(-longest // 4) * 4  # no longer than the longest asks for
            for row, x, y, w in zip(rows, frames, phases, weights, strict=True):
                count = COUNTS[row]
                np.testing.assert_allclose(x[:count], ENCODER(VIDEOS[row]), rtol=1e-6)
                np.testing.assert_array_equal(y[:count], PHASES[row])
                np.testing.assert_array_equal(w, np.arange(len(w)) < count)
                assert not y[count:].any()
            seen += rows.tolist()
        assert sorted(seen) == list(range(5))


def test_masks_and_weights_of_each_head():
    batches = PaddedVideos(VIDEOS, PHASES, 2, masked=True, target_names=("logits", "auxiliary_0"))
    (frames, there), phases, weights = batches[0]
    assert frames.dtype == "uint8"
    assert there.dtype == bool
    assert set(phases) == set(weights) == {"logits", "auxiliary_0"}
    assert weights["logits"] is not weights["auxiliary_0"]
    for of_head in weights.values():
        np.testing.assert_array_equal(of_head, there)


def test_the_loss_is_the_mean_over_the_frames_that_are_there():
    """A model that gives every phase the same logit has log 3 at each frame, and 0 padding in the mean."""
    model = keras.Sequential([keras.Input((None, 4, 4, 1)), keras.layers.Reshape((-1, 16)), keras.layers.Dense(3)])
    model.set_weights([np.zeros((16, 3)), np.array([1.0, 0.0, 0.0])])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="mean_with_sample_weight")
    model.compile("sgd", loss, weighted_metrics=["accuracy"])
    batches = PaddedVideos(VIDEOS, PHASES, 5, encode=ENCODER)
    found = model.evaluate(batches, verbose=0, return_dict=True)
    assert found["accuracy"] == 0  # no phase is 0, but all padding is
    assert found["loss"] == pytest.approx(np.log(np.e + 2), rel=1e-5)


@pytest.mark.parametrize(
    ("inputs", "targets", "arguments", "message"),
    [
        ([], [], {}, "0 and 0 videos"),
        (VIDEOS, PHASES[:2], {}, "5 and 2 videos"),
        (VIDEOS, [PHASES[0], *PHASES[:4]], {}, "video 1: 9 frames, 5 targets"),
        ([VIDEOS[0][:0]], [PHASES[0][:0]], {}, "video 0: 0 frames"),
        (VIDEOS, PHASES, {"multiple": 0}, "multiple 0"),
    ],
)
def test_bad_videos(inputs, targets, arguments, message):
    with pytest.raises(InputError, match=message):
        PaddedVideos(inputs, targets, 2, **arguments)
