import keras
import numpy as np
import pytest
from keras import ops

from kseq.errors import InputError
from kseq.models import MultiStageTCN
from kseq.training import SmoothedCrossentropy, deep_supervision
from tests.gradients import gradients

CLASSES, IGNORED = 3, 255
LAMBDA, TAU = 0.7, 2.0


@pytest.fixture
def drawn():
    """Targets with padding behind one row and a hole in the other, logits with jumps above τ and below, weights."""
    random = np.random.default_rng(4)
    targets = random.integers(0, CLASSES, (2, 6)).astype("int32")
    targets[0, 4:] = targets[1, 2] = IGNORED
    logits = (2 * random.normal(size=(2, 6, CLASSES))).astype("float32")
    return targets, logits, random.uniform(0.5, 2, (2, 6)).astype("float32")


def log_softmax(logits):
    logits = logits.astype("float64")
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def by_loop(targets, logits, weights=None, before=None):
    """The definition, frame by frame; `before` are the log-probabilities that stand for those of frame t − 1."""
    log_p = log_softmax(logits)
    before = log_p if before is None else before
    w = (targets != IGNORED) * (1.0 if weights is None else np.broadcast_to(weights, targets.shape))
    entropy = smooth = pairs = 0.0
    for row, t in np.ndindex(targets.shape):
        if w[row, t]:
            entropy -= w[row, t] * log_p[row, t, targets[row, t]]
        if t and w[row, t] and w[row, t - 1]:
            smooth += w[row, t] * (np.minimum(abs(log_p[row, t] - before[row, t - 1]), TAU) ** 2).mean()
            pairs += w[row, t]
    return entropy / w.sum() + LAMBDA * smooth / pairs


def test_it_is_the_definition(drawn):
    targets, logits, weights = drawn
    loss = SmoothedCrossentropy(LAMBDA, TAU, ignore_label=IGNORED)
    jumps = abs(np.diff(log_softmax(logits), axis=1))
    assert (jumps > TAU).any()
    assert (jumps < TAU).any()
    assert float(loss(targets, logits)) == pytest.approx(by_loop(targets, logits), rel=1e-5)
    for given in (weights, weights[:, :1], weights[:, 0]):
        expected = by_loop(targets, logits, given.reshape(2, -1))
        assert float(loss(targets, logits, given)) == pytest.approx(expected, rel=1e-5)
    # A weight of 0 is as good as an ignored label, whatever class stands there.
    classes, valid = np.where(targets == IGNORED, 1, targets), (targets != IGNORED).astype("float32")
    plain = SmoothedCrossentropy(LAMBDA, TAU)
    assert float(plain(classes, logits, valid)) == pytest.approx(by_loop(targets, logits), rel=1e-5)


def test_the_frame_before_is_a_constant_and_a_jump_above_the_threshold_has_no_gradient(drawn):
    targets, logits, _ = drawn
    loss = SmoothedCrossentropy(LAMBDA, TAU, ignore_label=IGNORED)
    (gradient,) = gradients(lambda logits: loss(ops.convert_to_tensor(targets), logits), [logits])
    before, step = log_softmax(logits), 1e-6
    for at in np.ndindex(logits.shape):
        shifted = np.zeros(logits.shape)
        shifted[at] = step
        values = [by_loop(targets, logits + sign * shifted, before=before) for sign in (1, -1)]
        assert gradient[at] == pytest.approx((values[0] - values[1]) / (2 * step), abs=1e-5), at
    assert (gradient[targets == IGNORED] == 0).all()


def test_nothing_to_learn_from_costs_nothing(drawn):
    targets, logits, _ = drawn
    loss = SmoothedCrossentropy(ignore_label=IGNORED)
    nothing = np.full_like(targets, IGNORED)
    assert float(loss(nothing, logits)) == 0
    (gradient,) = gradients(lambda logits: loss(ops.convert_to_tensor(nothing), logits), [logits])
    assert (gradient == 0).all()
    expected = -log_softmax(logits)[:, 0][[0, 1], targets[:, 0]].mean()
    assert float(loss(targets[:, :1], logits[:, :1])) == pytest.approx(expected, rel=1e-5)  # a frame without another


def test_all_stages_of_videos_of_any_length_train_by_it(tmp_path):
    random = np.random.default_rng(5)
    model = MultiStageTCN(4, CLASSES, stages=2, layers=1, filters=3, dropout=0.0, deep_supervision=True)
    loss = SmoothedCrossentropy(LAMBDA, TAU, ignore_label=IGNORED)
    model.compile(keras.optimizers.SGD(0.0), **deep_supervision(loss, model, auxiliary_weight=1.0))

    def videos():  # whose length TensorFlow does not know when it traces
        for time in (3, 5):
            x = random.normal(size=(1, time, 4)).astype("float32")
            yield x, dict.fromkeys(model.output, random.integers(0, CLASSES, (1, time)))

    found = list(videos())
    history = model.fit((video for video in found), steps_per_epoch=2, shuffle=False, verbose=0).history
    totals = [sum(by_loop(y[name], logits) for name, logits in model.predict(x, verbose=0).items()) for x, y in found]
    assert history["loss"][0] == pytest.approx(np.mean(totals), rel=1e-5)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras").loss["logits"]
    assert again.get_config() == loss.get_config()


@pytest.mark.parametrize(
    ("arguments", "message"), [({"smoothing": -1.0}, r"smoothing -1\.0"), ({"threshold": 0}, "threshold 0")]
)
def test_bad_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        SmoothedCrossentropy(**arguments)


@pytest.mark.parametrize(
    ("targets", "logits", "weights", "message"),
    [
        ((2, 3), (2, 3), None, r"logits of shape \(2, 3\): give logits \(batch, time, classes\)"),
        ((1, 6, 1), (1, 6, 4), None, r"targets of shape \(1, 6, 1\): .* targets \(batch, time\)"),
        ((2, 6), (2, 6, 4), (2, 6, 1), r"sample_weight of shape \(2, 6, 1\)"),
    ],
)
def test_bad_shapes(targets, logits, weights, message):
    with pytest.raises(InputError, match=message):
        SmoothedCrossentropy()(np.zeros(targets), np.zeros(logits), weights and np.ones(weights))
