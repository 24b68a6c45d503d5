"""Multi-stage temporal convolutional network: the class of every frame, from features, refined stage by stage.

    h^0_t = W x_t + b,   h^l = DilatedResidualLayer(h^(l−1)) with dilation 2^(l−1), l = 1 … L,   logits_t = V h^L_t + c
    x of every further stage: softmax(logits) of the one before

A stage sees 2^(L+1) − 1 frames, S stages S (2^(L+1) − 2) + 1: causal ones the current frame and those before it, others
half of the rest on each side.

Sources: Farha & Gall, "MS-TCN: multi-stage temporal convolutional network for action segmentation", CVPR 2019 (arXiv
1903.01945), which looks both ways; Czempiel et al., "TeCNO: surgical phase recognition with multi-stage temporal
convolutional networks", MICCAI 2020 (arXiv 2003.10751), which is causal and so can run in the operating room. Reference
implementations: yabufarha/ms-tcn, `model.py`; tobiascz/TeCNO, `models/mstcn.py`.

Deviations: masked frames are 0 in front of every convolution. MS-TCN has the bias b there in front of the first of each
stage, so that its answers at the end of a video depend on how far that is padded. How both papers train is no part of
the model: MS-TCN adds to the cross-entropy of each stage a truncated mean squared error between the log-probabilities
of neighbouring frames (`kseq.training.SmoothedCrossentropy`), and TeCNO weights the classes.
"""

import keras

from kseq.errors import InputError
from kseq.layers import Dense
from kseq.layers.mask_steps import MaskSteps
from kseq.layers.temporal_convolution import DilatedResidualLayer
from kseq.models.registry import Variant


def MultiStageTCN(
    input_dim: int,
    num_classes: int,
    *,
    stages: int = 2,
    layers: int = 8,
    filters: int = 32,
    causal: bool = True,
    dropout: float = 0.5,
    masked: bool = False,
    deep_supervision: bool = False,
    name: str = "multi_stage_tcn",
) -> keras.Model:
    """Build a multi-stage temporal convolutional network.

    Both papers train all stages alike: compile with `deep_supervision(loss, model, auxiliary_weight=1.0)` of
    `kseq.training`. `kseq.inference.video_tagger.OnlineMultiStageTCN` runs a causal one frame by frame.

    Args:
        input_dim: size of the features of a frame: 2048 of a ResNet-50.
        num_classes: number of classes.
        stages: number of stages, S.
        layers: dilated residual layers of a stage, L; as "layers" of the paper, where other models have a `depth`.
        filters: size of h.
        causal: whether a frame is classified by what came up to it alone.
        dropout: share of the values set to zero while training, in each of these layers.
        masked: whether the model has a second input, `mask`, for videos that are padded. A causal network trained on
            videos padded behind needs none: give the padding a sample weight of 0.
        deep_supervision: whether to return the logits of all stages.
        name: name of the model.

    Returns:
        A model from `features` `(batch, time, input_dim)` to logits `(batch, time, num_classes)`, those of the last
        stage; with `masked` from `[features, mask]`, mask `(batch, time)` true at frames that are there; with
        `deep_supervision` to a dict of them, `"logits"`, and of those of the earlier stages, `"auxiliary_0"` of the
        first, and so on. Padding cannot change the logits of a frame.

    Raises:
        InputError: for an argument out of range.
    """
    sizes = {"input_dim": input_dim, "num_classes": num_classes, "stages": stages, "layers": layers, "filters": filters}
    for argument, size in sizes.items():
        if size < 1:
            raise InputError(f"{argument} {size!r}: give 1 or more")
    if not 0 <= dropout < 1:
        raise InputError(f"dropout {dropout!r}: give a share from 0 to below 1")

    inputs = features = keras.Input((None, input_dim), name="features")
    if masked:
        inputs = [features, keras.Input((None,), dtype="bool", name="mask")]
    x = MaskSteps(name="masking")(inputs)
    answers = []
    for stage in range(stages):
        if stage:  # in float32, as a softmax is
            x = keras.layers.Activation("softmax", dtype="float32", name=f"stage_{stage}_probabilities")(x)
        x = Dense(filters, name=f"stage_{stage}_projection")(x)
        for level in range(layers):
            x = DilatedResidualLayer(2**level, causal=causal, dropout=dropout, name=f"stage_{stage}_layer_{level}")(x)
        x = Dense(num_classes, name=f"stage_{stage}_logits")(x)  # (batch, time, num_classes)
        answers.append(x)
    *auxiliary, logits = answers
    if not deep_supervision:
        return keras.Model(inputs, logits, name=name)
    outputs = {"logits": logits} | {f"auxiliary_{stage}": x for stage, x in enumerate(auxiliary)}
    return keras.Model(inputs, outputs, name=name)


_FEATURES = {"input_dim": 2048}  # of a ResNet-50, and of I3D

VARIANTS = {
    "tecno": Variant(MultiStageTCN, _FEATURES | {"num_classes": 7}, 132_846, "Czempiel et al. 2020"),  # Cholec80
    "ms_tcn": Variant(  # 50Salads
        MultiStageTCN,
        _FEATURES | {"num_classes": 19, "stages": 4, "layers": 10, "filters": 64, "causal": False},
        800_396,
        "Farha & Gall 2019",
    ),
}
