import keras
import numpy as np
import pytest
from keras import ops

from kseq.data import Batches, check_labels
from kseq.errors import InputError
from kseq.training import (
    CrossentropyDice,
    DiceLoss,
    DiceScore,
    FocalLoss,
    SegmentationCrossentropy,
    TverskyLoss,
    deep_supervision,
)
from tests.gradients import gradients

CLASSES, IGNORED = 3, 255
random = np.random.default_rng(0)
LABELS = random.integers(0, CLASSES, (2, 4, 6)).astype("uint8")
LABELS[random.random(LABELS.shape) < 0.2] = IGNORED
LOGITS = (2 * random.normal(size=(2, 4, 6, CLASSES))).astype("float32")
PIXEL_WEIGHTS = random.uniform(0.5, 2, LABELS.shape).astype("float32")
CLASS_WEIGHTS = (0.5, 1.0, 3.0)


def terms(labels, logits, weights=None):
    """Softmax, one-hot targets and weights of the pixels that count, in float64, `(batch, pixels, …)`."""
    logits = logits.astype("float64").reshape(len(logits), -1, logits.shape[-1])
    p = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    labels = labels.reshape(len(labels), -1)
    weights = np.ones(labels.shape) if weights is None else weights.reshape(labels.shape).astype("float64")
    return p, np.eye(256)[labels][..., : logits.shape[-1]], weights * (labels != IGNORED)


def crossentropy_of(labels, logits, weights=None, class_weights=(1, 1, 1)):
    p, g, w = terms(labels, logits, weights)
    w = w * (g @ np.array(class_weights))
    return (w * -np.log((p * g).sum(axis=-1) + (w == 0))).sum() / w.sum()


def focal_of(labels, logits, weights=None, gamma=2.0, alpha=(1, 1, 1)):
    p, g, w = terms(labels, logits, weights)
    p_y = (p * g).sum(axis=-1) + (w == 0)
    return (w * (g @ np.array(alpha)) * (1 - p_y) ** gamma * -np.log(p_y)).sum() / w.sum()


def overlap_of(score, labels, logits, weights=None, squared=False, batch=False, first=0):
    p, g, w = terms(labels, logits, weights)
    axes = (0, 1) if batch else 1
    I, P, G = ((w[..., None] * x).sum(axis=axes) for x in (p * g, p**2 if squared else p, g))  # noqa: E741
    return 1 - score(I, P, G)[..., first:].mean()


def dice(I, P, G):  # noqa: E741
    return (2 * I + 1e-5) / (P + G + 1e-5)


def tversky(I, P, G):  # noqa: E741
    return (I + 1e-5) / (I + 0.3 * (P - I) + 0.7 * (G - I) + 1e-5)


CASES = {
    "crossentropy": (SegmentationCrossentropy(ignore_label=IGNORED), crossentropy_of),
    "class weights": (
        SegmentationCrossentropy(CLASS_WEIGHTS, ignore_label=IGNORED),
        lambda *a: crossentropy_of(*a, class_weights=CLASS_WEIGHTS),
    ),
    "nnU-Net": (DiceLoss(background=False, ignore_label=IGNORED), lambda *a: overlap_of(dice, *a, first=1)),
    "TransUNet": (
        DiceLoss(squared=True, batch=True, ignore_label=IGNORED),
        lambda *a: overlap_of(dice, *a, squared=True, batch=True),
    ),
    "both": (
        CrossentropyDice(0.4, 0.6, class_weights=CLASS_WEIGHTS, squared=True, batch=True, ignore_label=IGNORED),
        lambda *a: (
            0.4 * crossentropy_of(*a, class_weights=CLASS_WEIGHTS)
            + 0.6 * overlap_of(dice, *a, squared=True, batch=True)
        ),
    ),
    "Tversky": (TverskyLoss(ignore_label=IGNORED), lambda *a: overlap_of(tversky, *a)),
    "focal": (
        FocalLoss(1.5, CLASS_WEIGHTS, ignore_label=IGNORED),
        lambda *a: focal_of(*a, gamma=1.5, alpha=CLASS_WEIGHTS),
    ),
}


def value(loss, *arguments) -> float:
    return float(ops.convert_to_numpy(loss(*arguments)))


@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient_are_those_of_the_definition(name):
    loss, definition = CASES[name]
    assert value(loss, LABELS, LOGITS) == pytest.approx(definition(LABELS, LOGITS), rel=1e-5)
    weighted = definition(LABELS, LOGITS, PIXEL_WEIGHTS)
    assert value(loss, LABELS, LOGITS, PIXEL_WEIGHTS) == pytest.approx(weighted, rel=1e-5)
    (gradient,) = gradients(lambda z: loss(LABELS, z, PIXEL_WEIGHTS), [LOGITS])
    assert np.abs(gradient[LABELS == IGNORED]).max() == 0
    for at in [(0, 0, 0, 0), (0, 2, 3, 1), (1, 3, 5, 2), (1, 1, 4, 0)]:
        step = np.zeros(LOGITS.shape)
        step[at] = 1e-5
        slope = definition(LABELS, LOGITS + step, PIXEL_WEIGHTS) - definition(LABELS, LOGITS - step, PIXEL_WEIGHTS)
        assert gradient[at] == pytest.approx(slope / 2e-5, rel=1e-3, abs=1e-6)
    copied = type(loss).from_config(loss.get_config())
    assert copied.get_config() == loss.get_config()
    assert value(copied, LABELS, LOGITS) == value(loss, LABELS, LOGITS)


@pytest.mark.parametrize("name", CASES)
def test_what_an_ignored_pixel_holds_is_nowhere(name):
    other = np.where((LABELS == IGNORED)[..., None], 7 * random.normal(size=LOGITS.shape), LOGITS).astype("float32")
    assert value(CASES[name][0], LABELS, other) == pytest.approx(value(CASES[name][0], LABELS, LOGITS), rel=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_a_sample_of_weight_0_or_without_pixels_that_count_is_not_there(name):
    loss = CASES[name][0]
    alone = value(loss, LABELS[:1], LOGITS[:1])
    assert value(loss, LABELS, LOGITS, np.array([2.0, 0.0], "float32")) == pytest.approx(alone, rel=1e-5)
    assert value(loss, LABELS, LOGITS, np.array([[2.0], [0.0]], "float32")) == pytest.approx(alone, rel=1e-5)
    empty = np.stack([LABELS[0], np.full_like(LABELS[1], IGNORED)])
    assert value(loss, empty, LOGITS) == pytest.approx(alone, rel=1e-5)
    assert value(loss, np.full_like(LABELS, IGNORED), LOGITS) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("rank", [1, 3])
def test_other_ranks_are_the_same_pixels(rank):
    space = (24,) if rank == 1 else (2, 3, 4)
    for loss, _ in CASES.values():
        got = value(loss, LABELS.reshape(2, *space), LOGITS.reshape(2, *space, CLASSES))
        assert got == pytest.approx(value(loss, LABELS, LOGITS), rel=1e-6)


def test_labels_come_to_the_resolution_of_the_logits():
    loss = CrossentropyDice(ignore_label=IGNORED)
    fine = np.full((2, 12, 12), IGNORED, "uint8")
    fine[:, 1::3, 1::2] = LABELS  # the middle of blocks of 3 x 2
    assert value(loss, fine, LOGITS) == pytest.approx(value(loss, LABELS, LOGITS), rel=1e-6)
    weights = np.zeros(fine.shape, "float32")
    weights[:, 1::3, 1::2] = PIXEL_WEIGHTS
    assert value(loss, fine, LOGITS, weights) == pytest.approx(value(loss, LABELS, LOGITS, PIXEL_WEIGHTS), rel=1e-6)
    with pytest.raises(InputError, match="sizes must divide"):
        loss(np.zeros((2, 4, 7), "uint8"), LOGITS)
    with pytest.raises(InputError, match="give whole numbers"):
        loss(np.zeros((2, 4, 6, 1), "uint8"), LOGITS)
    with pytest.raises(InputError, match="the background's too"):
        loss(LABELS, LOGITS[..., :1])
    for two in (SegmentationCrossentropy((1, 2)), CrossentropyDice(class_weights=(1, 2)), FocalLoss(alpha=(1, 2))):
        with pytest.raises(InputError, match=r"(class_weights|alpha) \(1.0, 2.0\): 2 for logits of 3 classes"):
            two(LABELS, LOGITS)
    with pytest.raises(InputError, match="num_classes 4: .* give 3"):
        DiceScore(4).update_state(LABELS, LOGITS)
    with pytest.raises(InputError, match="sample_weight of shape"):
        loss(LABELS, LOGITS, np.ones((2, 4), "float32"))


def test_half_precision_does_not_overflow():
    """300,000 pixels: their number is above the largest float16 (65,504)."""
    logits, labels = np.zeros((1, 300_000, 2), "float16"), np.zeros((1, 300_000), "int32")
    assert value(CrossentropyDice(), labels, logits) == pytest.approx(
        0.5 * np.log(2) + 0.5 * (1 - 0.5 * 2 / 3), rel=1e-3
    )


def test_a_label_that_is_no_class_is_seen():
    for bad in (3, IGNORED):
        labels = np.where(LABELS == IGNORED, 0, LABELS)
        labels[1, 2, 3] = bad
        assert np.isnan(value(CrossentropyDice(), labels, LOGITS))
        with pytest.raises(InputError, match=f"labels hold {bad}; 3 classes are 0 to 2"):
            check_labels(labels, CLASSES)
    check_labels(LABELS, CLASSES, IGNORED)
    with pytest.raises(InputError, match="labels hold -1, 7; .* and the ignored 255"):
        check_labels(np.array([[-1, 0, 7, 255]]), CLASSES, IGNORED)
    with pytest.raises(InputError, match="float32: give integers"):
        check_labels(np.zeros(3, "float32"), CLASSES)


def test_the_score_does_not_depend_on_the_batches():
    score = DiceScore(CLASSES, ignore_label=IGNORED)
    score.update_state(LABELS[:1], LOGITS[:1])
    score.update_state(LABELS[1:], LOGITS[1:])
    valid, answers = LABELS != IGNORED, LOGITS.argmax(-1)
    expected = [
        2 * ((c == LABELS) & (answers == c)).sum() / ((c == LABELS).sum() + ((answers == c) & valid).sum())
        for c in range(CLASSES)
    ]
    assert float(score.result()) == pytest.approx(np.mean(expected[1:]), rel=1e-6)
    whole = DiceScore(CLASSES + 1, ignore_label=IGNORED, background=True)  # a class that is nowhere does not count
    far = np.full((*LABELS.shape, 1), -99, "float32")
    whole.update_state(LABELS, np.concatenate((LOGITS, far), axis=-1), sample_weight=np.array([1.0, 1.0]))
    assert float(whole.result()) == pytest.approx(np.mean(expected), rel=1e-6)
    assert DiceScore.from_config(whole.get_config()).get_config() == whole.get_config()


def two_heads() -> keras.Model:
    image = keras.Input((8, 8, 1))
    deep = keras.layers.Conv2D(6, 3, 2, padding="same", activation="relu", name="down")(image)
    auxiliary = keras.layers.Dense(CLASSES, name="auxiliary")(deep)
    up = keras.layers.UpSampling2D(name="up")(deep)
    logits = keras.layers.Dense(CLASSES, name="head")(keras.layers.Concatenate(name="join")([up, image]))
    return keras.Model(image, {"logits": logits, "auxiliary_0": auxiliary})


def test_deep_supervision_trains_every_head_at_its_resolution():
    images = random.random((12, 8, 8, 1)).astype("float32")
    labels = np.digitize(images[..., 0], (0.4, 0.7)).astype("uint8")
    model = two_heads()
    given = deep_supervision(CrossentropyDice(), model)
    assert given["loss_weights"] == pytest.approx({"logits": 2 / 3, "auxiliary_0": 1 / 3})
    model.compile(keras.optimizers.Adam(0.05), **given, metrics={"logits": [DiceScore(CLASSES)]})
    outputs = model.predict(images, batch_size=12, verbose=0)
    batches = Batches(images, labels, 12, seed=0, target_names=tuple(model.output))
    history = model.fit(batches, epochs=60, shuffle=False, verbose=0).history
    one, other = (value(CrossentropyDice(), labels, outputs[name]) for name in ("logits", "auxiliary_0"))
    assert history["loss"][0] == pytest.approx(2 / 3 * one + 1 / 3 * other, rel=1e-4)
    assert history["logits_loss"][0] == pytest.approx(one, rel=1e-4)
    assert history["logits_loss"][-1] < 0.8 * one
    assert history["auxiliary_0_loss"][-1] < 0.95 * other
    assert history["logits_dice"][-1] > history["logits_dice"][0]
    setr = deep_supervision(DiceLoss(), model, auxiliary_weight=0.4)["loss_weights"]
    assert setr == {"logits": 1.0, "auxiliary_0": 0.4}
    with pytest.raises(InputError, match="auxiliary heads"):
        deep_supervision(DiceLoss(), keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Dense(2)]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DiceLoss(smooth=0), "smooth 0"),
        (lambda: CrossentropyDice(-1), "crossentropy_weight -1"),
        (lambda: SegmentationCrossentropy((1, -1)), "class_weights"),
        (lambda: TverskyLoss(-0.1), "alpha -0.1"),
        (lambda: FocalLoss(-1), "gamma -1"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(InputError, match=message):
        make()
