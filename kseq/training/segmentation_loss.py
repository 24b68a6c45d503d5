"""Losses of models that give logits for every pixel, from maps of whole numbers, of any rank.

Every loss takes the labels y `(batch, *space)` and the logits z `(batch, *space, classes)`, and computes in float32
whatever the precision of the logits, because sums over the pixels of an image overflow in float16. With p = softmax(z),
g the one-hot vectors of y and a weight w of every pixel, that is 0 where the label is ignored, they are made of

    -log p_y   of every pixel,    I_c = Σ w p_c g_c,    P_c = Σ w p_c (or Σ w p_c²),    G_c = Σ w g_c.

Labels of a finer resolution than the logits, as those of auxiliary heads are, are brought to it by taking the pixel in
the middle of each block, so the sizes must divide.

Keras has `Dice`, `Tversky` and `CategoricalFocalCrossentropy` of probabilities and one-hot targets. They are not
used here: they know no pixels to ignore and no weights of pixels, compute in the precision of the logits, and leave no
class out of the mean. `SparseCategoricalCrossentropy(ignore_class=…)` has no class weights.

Inside, classes stand before pixels: sums and softmax over a last axis of few classes are slow. 48³ pixels, 4 classes,
loss and gradient on one core, in ms, this form and the plain one: cross-entropy TensorFlow 4 and 19, PyTorch 9 and 5,
JAX 9 and 3; Dice 8 and 12, 5 and 30, 10 and 8.
"""

from collections.abc import Sequence

import keras
from keras import ops

from kseq.errors import InputError
from kseq.training.pixels import Pixels


class _SegmentationLoss(keras.losses.Loss):
    """A loss that is one number of a whole batch, of labels and logits."""

    def __init__(self, ignore_label: int | None, name: str):
        super().__init__(name=name, dtype="float32")
        self.ignore_label = ignore_label

    def value(self, pixels: Pixels):
        """The loss, a scalar."""
        raise NotImplementedError

    def __call__(self, y_true, y_pred, sample_weight=None):
        # Not `call`: Keras would cast the labels to floats and take the mean over all pixels, ignored ones as well.
        return self.value(Pixels(y_true, y_pred, self.ignore_label, sample_weight))

    def get_config(self):
        return {"ignore_label": self.ignore_label, "name": self.name}


def _class_weights(argument: str, weights: Sequence[float] | None) -> tuple[float, ...] | None:
    if weights is None:
        return None
    weights = tuple(float(weight) for weight in weights)
    if not all(weight >= 0 for weight in weights) or not sum(weights) > 0:
        raise InputError(f"{argument} {weights}: give a number for each class, 0 or more, not all of them 0")
    return weights


def _one_each(argument: str, weights: tuple[float, ...] | None, pixels: Pixels) -> tuple[float, ...] | None:
    """The weights, or an error if the logits are of another number of classes."""
    if weights is not None and len(weights) != pixels.classes:
        raise InputError(
            f"{argument} {weights}: {len(weights)} for logits of {pixels.classes} classes; give one for each class"
        )
    return weights


@keras.saving.register_keras_serializable(package="kseq")
class SegmentationCrossentropy(_SegmentationLoss):
    """The mean cross-entropy of the pixels,

        loss = Σ w a_y (-log p_y) / Σ w a_y,

    with the weights w of the pixels (0 where ignored) and a of the classes.

    Call arguments (of all losses of this file):
        labels: whole numbers `(batch, *space)`, 0 to classes − 1, or the ignored one. Another value makes the loss NaN;
            `kseq.data.check_labels` says which it is.
        logits: `(batch, *space, classes)`, or coarser by a whole number along each axis.
        sample_weight: `(batch,)` or `(batch, *space)`, or `None`.

    Returns:
        A scalar.

    Args:
        class_weights: a, one for each class; `None` for 1.
        ignore_label: of pixels that count nowhere, usually 255.
        name: of the loss.

    Raises:
        InputError: if a weight of a class is negative; in the call, if there is one class only, another number of
            classes than of their weights, or the shapes disagree.
    """

    def __init__(
        self,
        class_weights: Sequence[float] | None = None,
        *,
        ignore_label: int | None = None,
        name: str = "segmentation_crossentropy",
    ):
        super().__init__(ignore_label, name)
        self.class_weights = _class_weights("class_weights", class_weights)

    def value(self, pixels):
        return pixels.crossentropy(_one_each("class_weights", self.class_weights, pixels))

    def get_config(self):
        return super().get_config() | {"class_weights": self.class_weights}


@keras.saving.register_keras_serializable(package="kseq")
class DiceLoss(_SegmentationLoss):
    """1 less the soft Dice coefficient, the mean over classes of

        (2 I_c + s) / (P_c + G_c + s),   I_c = Σ w p_c g_c,   P_c = Σ w p_c or Σ w p_c²,   G_c = Σ w g_c.

    Two conventions are usual. nnU-Net (Isensee et al. 2021): `squared=False, background=False`, s = 1e-5, of each
    sample or of the batch. TransUNet (Chen et al. 2021): `squared=True, batch=True`, s = 1e-5. Squares (Milletari
    et al. 2016) push weaker where p is small. A class that a sample does not have costs almost 1 there
    unless p_c is 0 everywhere; over the batch that is seldom, so `batch=True` where crops are small and classes rare.

    Weights of samples weigh the mean over samples, or with `batch` their pixels. Call arguments: those of
    `SegmentationCrossentropy`.

    Args:
        squared: whether the denominator has squares.
        batch: whether the sums go over the batch, not over each sample.
        background: whether class 0 counts in the mean.
        smooth: s.
        ignore_label: of pixels that count nowhere.
        name: of the loss.

    Raises:
        InputError: if `smooth` is not above 0.
    """

    def __init__(
        self,
        *,
        squared: bool = False,
        batch: bool = False,
        background: bool = True,
        smooth: float = 1e-5,
        ignore_label: int | None = None,
        name: str = "dice_loss",
    ):
        super().__init__(ignore_label, name)
        if not smooth > 0:
            raise InputError(f"smooth {smooth!r}: give a number above 0, or a class that is nowhere divides 0 by 0")
        self.squared, self.batch, self.background, self.smooth = squared, batch, background, smooth

    def value(self, pixels):
        s = self.smooth
        return pixels.overlap(
            lambda I, P, G: (2 * I + s) / (P + G + s),  # noqa: E741
            self.squared,
            self.batch,
            self.background,
        )

    def get_config(self):
        own = {"squared": self.squared, "batch": self.batch, "background": self.background, "smooth": self.smooth}
        return super().get_config() | own


@keras.saving.register_keras_serializable(package="kseq")
class CrossentropyDice(DiceLoss):
    """`crossentropy_weight` times `SegmentationCrossentropy` plus `dice_weight` times `DiceLoss`, p computed once.

    TransUNet: `CrossentropyDice(squared=True, batch=True)`. Swin-Unet: the same with 0.4 and 0.6. nnU-Net:
    `CrossentropyDice(1, 1, background=False)`.

    Args:
        crossentropy_weight: of the cross-entropy.
        dice_weight: of the Dice loss.
        class_weights: of the cross-entropy, one for each class.
        name: of the loss.
        **dice: `squared`, `batch`, `background`, `smooth` and `ignore_label` of `DiceLoss`.

    Raises:
        InputError: if a weight is negative; in the call, if the logits have another number of classes than weights.
    """

    def __init__(
        self,
        crossentropy_weight: float = 0.5,
        dice_weight: float = 0.5,
        *,
        class_weights: Sequence[float] | None = None,
        name: str = "crossentropy_dice",
        **dice,
    ):
        super().__init__(name=name, **dice)
        for argument, weight in (("crossentropy_weight", crossentropy_weight), ("dice_weight", dice_weight)):
            if not weight >= 0:
                raise InputError(f"{argument} {weight!r}: give 0 or more")
        self.crossentropy_weight, self.dice_weight = crossentropy_weight, dice_weight
        self.class_weights = _class_weights("class_weights", class_weights)

    def value(self, pixels):
        crossentropy = pixels.crossentropy(_one_each("class_weights", self.class_weights, pixels))
        return self.crossentropy_weight * crossentropy + self.dice_weight * super().value(pixels)

    def get_config(self):
        return super().get_config() | {
            "crossentropy_weight": self.crossentropy_weight,
            "dice_weight": self.dice_weight,
            "class_weights": self.class_weights,
        }


@keras.saving.register_keras_serializable(package="kseq")
class TverskyLoss(_SegmentationLoss):
    """1 less the Tversky index, the mean over classes of

        (I_c + s) / (I_c + α F_c + β M_c + s),   F_c = P_c − I_c (false positives),   M_c = G_c − I_c (misses).

    β above α punishes misses more, as small lesions need. With α = β = 1/2 it is the Dice loss (with 2 s), with 1 the
    Jaccard loss. Source: Salehi et al. 2017 (arXiv 1706.05721), equation 2. Call arguments: those of
    `SegmentationCrossentropy`.

    Args:
        alpha: α, of what is found and is not there.
        beta: β, of what is there and is not found.
        batch: whether the sums go over the batch, not over each sample.
        background: whether class 0 counts in the mean.
        smooth: s.
        ignore_label: of pixels that count nowhere.
        name: of the loss.

    Raises:
        InputError: if `alpha` or `beta` is negative, or `smooth` is not above 0.
    """

    def __init__(
        self,
        alpha: float = 0.3,
        beta: float = 0.7,
        *,
        batch: bool = False,
        background: bool = True,
        smooth: float = 1e-5,
        ignore_label: int | None = None,
        name: str = "tversky_loss",
    ):
        super().__init__(ignore_label, name)
        if not (alpha >= 0 and beta >= 0 and smooth > 0):
            raise InputError(f"alpha {alpha!r}, beta {beta!r}, smooth {smooth!r}: give 0 or more, and smooth above 0")
        self.alpha, self.beta = alpha, beta
        self.batch, self.background, self.smooth = batch, background, smooth

    def value(self, pixels):
        a, b, s = self.alpha, self.beta, self.smooth
        return pixels.overlap(
            lambda I, P, G: (I + s) / (I + a * (P - I) + b * (G - I) + s),  # noqa: E741
            False,
            self.batch,
            self.background,
        )

    def get_config(self):
        own = {"alpha": self.alpha, "beta": self.beta, "batch": self.batch, "background": self.background}
        return super().get_config() | own | {"smooth": self.smooth}


@keras.saving.register_keras_serializable(package="kseq")
class FocalLoss(_SegmentationLoss):
    """Cross-entropy that pixels got right count little in,

        loss = Σ w α_y (1 − p_y)^γ (−log p_y) / Σ w.

    Unlike weights of classes in `SegmentationCrossentropy`, α does not divide. Source: Lin et al. 2017 (arXiv
    1708.02002), equation 5, with softmax. Call arguments: those of `SegmentationCrossentropy`.

    Args:
        gamma: γ; 0 is cross-entropy.
        alpha: α, one for each class; `None` for 1.
        ignore_label: of pixels that count nowhere.
        name: of the loss.

    Raises:
        InputError: if `gamma` or an α is negative; in the call, if there is not one α for each class.
    """

    def __init__(
        self,
        gamma: float = 2.0,
        alpha: Sequence[float] | None = None,
        *,
        ignore_label: int | None = None,
        name: str = "focal_loss",
    ):
        super().__init__(ignore_label, name)
        if not gamma >= 0:
            raise InputError(f"gamma {gamma!r}: give 0 or more")
        self.gamma, self.alpha = gamma, _class_weights("alpha", alpha)

    def value(self, pixels):
        log_p = ops.sum(pixels.g * pixels.log_p, axis=1, keepdims=True)
        # The power of 0 has no gradient below γ = 1.
        missing = ops.power(ops.maximum(-ops.expm1(log_p), 1e-7), self.gamma) if self.gamma else 1.0
        return pixels.mean(-missing * log_p, _one_each("alpha", self.alpha, pixels), normalise_classes=False)

    def get_config(self):
        return super().get_config() | {"gamma": self.gamma, "alpha": self.alpha}


def deep_supervision(
    loss: keras.losses.Loss,
    model: keras.Model,
    *,
    decay: float = 0.5,
    auxiliary_weight: float | None = None,
) -> dict:
    """What `model.compile` needs to train all heads of a model that answers `{"logits": …, "auxiliary_0": …, …}`.

    `loss` of every head against the labels at the head's own resolution, summed with the weights decay^i for the head i
    (0 for "logits", i + 1 for "auxiliary_i"), divided by their sum: 1, 1/2, 1/4, … before that. nnU-Net has these, but
    sets the weight of its lowest resolution to 0 before it divides.

    Give the targets under the same names: `Batches(target_names=tuple(model.output))`. Metrics of the main head:
    `metrics={"logits": [DiceScore(…)]}`, which `fit` calls "logits_dice".

    Args:
        loss: one of this file.
        model: that returns a dict.
        decay: of the weight from a head to the next.
        auxiliary_weight: in place of it, 1 for the main head and this for every other: SETR's 0.4.

    Returns:
        `{"loss": {name: loss}, "loss_weights": {name: weight}}`.

    Raises:
        InputError: if the model has one output, or a weight is negative.
    """
    outputs = getattr(model, "output", None)
    if not isinstance(outputs, dict) or "logits" not in outputs:
        raise InputError('model: its output is no dict {"logits", "auxiliary_0", …}; build it with its auxiliary heads')
    for argument, value in (("decay", decay), ("auxiliary_weight", auxiliary_weight)):
        if value is not None and not value >= 0:
            raise InputError(f"{argument} {value!r}: give 0 or more")
    names = ["logits", *sorted(outputs.keys() - {"logits"}, key=lambda name: int(name.rsplit("_", 1)[1]))]
    if auxiliary_weight is not None:
        weights = [1.0, *[auxiliary_weight] * (len(names) - 1)]
    else:
        weights = [decay**i for i in range(len(names))]
        weights = [weight / sum(weights) for weight in weights]
    return {"loss": dict.fromkeys(names, loss), "loss_weights": dict(zip(names, weights, strict=True))}
