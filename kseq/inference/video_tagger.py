"""Taggers of video frames while the camera runs: one frame at a time, what was seen kept as a state.

    tagger = online(model)
    states = tagger.begin()
    for frame in camera:
        logits, states = tagger.step(frame[None], states)

The answers are those that the model gives for the whole video at once.
"""

import re

import keras
from keras import ops

from kseq.backend.compile import compiled
from kseq.errors import InputError
from kseq.layers.frame_encoder import FrameEncoder
from kseq.layers.mask_steps import MaskSteps
from kseq.layers.recurrent import Recurrence
from kseq.layers.temporal_convolution import DilatedResidualLayer

PARTS = (  # of a tagger, beside its heads
    keras.layers.InputLayer,
    MaskSteps,
    FrameEncoder,
    Recurrence,
    keras.layers.Bidirectional,
    keras.layers.Dropout,
)


def online(model: keras.Model) -> "OnlineVideoTagger | OnlineMultiStageTCN":
    """The tagger that runs `model`, a `kseq.models.VideoTagger` or `MultiStageTCN`, one frame at a time.

    Raises:
        InputError: if it is another model, or one that looks at frames to come.
    """
    is_convolution = any(isinstance(layer, DilatedResidualLayer) for layer in model.layers)
    return (OnlineMultiStageTCN if is_convolution else OnlineVideoTagger)(model)


class OnlineVideoTagger:
    """Steps a unidirectional `kseq.models.VideoTagger`: its state is h, for an LSTM h and c, of each layer.

    A stateful model starts from zeros like any other; the states it carries in training are left alone.

    Args:
        model: the tagger, built or loaded.

    Attributes:
        model: the same.
        step: `compute`, compiled as each backend does; frames may be a NumPy array.

    Raises:
        InputError: if it is another model, or a bidirectional one.
    """

    def __init__(self, model: keras.Model):
        layers = {layer.name: layer for layer in model.layers}
        heads = [name for name in ("logits", "remaining_duration") if name in layers]
        others = {name for name, layer in layers.items() if not isinstance(layer, PARTS)}
        if "frames" not in layers or not heads or others != set(heads):
            raise InputError(f"model {model.name!r}: no tagger of video frames; give one of kseq.models.VideoTagger")
        for layer in model.layers:
            if isinstance(layer, keras.layers.Bidirectional):
                raise InputError(
                    f"model {model.name!r}: {layer.name} is bidirectional, and reads the video from its end too; build "
                    "and train it with bidirectional=False to run it frame by frame"
                )
        self.model = model
        self.encoder = layers.get("encoder")
        self.layers = [layer for layer in model.layers if isinstance(layer, Recurrence)]
        self.heads = {name: layers[name] for name in heads}
        self.dtype, self.frame = layers["frames"].dtype, layers["frames"].batch_shape[2:]
        self.state_shapes = [(size,) for layer in self.layers for size in _sizes(layer)]
        self.step = compiled(self.compute, model.variables)

    def begin(self, batch_size: int = 1) -> tuple:
        """The states before the first frame, zeros for so many videos side by side."""
        sizes = [(layer, size) for layer in self.layers for size in _sizes(layer)]
        return tuple(ops.zeros((batch_size, size), layer.compute_dtype) for layer, size in sizes)

    def compute(self, frames, states: tuple) -> tuple:
        """The answers at a frame of each video, and the new states.

        Args:
            frames: `(batch, *input_shape)`.
            states: of `begin`, or of the frame before.

        Returns:
            Logits `(batch, num_classes)` in float32, or a dict of what the model gives; and the states.

        Raises:
            InputError: if frames or states have another shape, or are of different batches.
        """
        x = ops.cast(frames, self.dtype)
        _check("frames", x, self.frame, states, self.state_shapes)
        if self.encoder is not None:
            x = self.encoder(x[:, None], training=False)[:, 0]  # (batch, dim)
        states, new = list(states), []
        for layer in self.layers:
            own = [states.pop(0) for _ in _sizes(layer)]
            x, own = layer.cell(x, own, training=False)
            new += own
        answers = {name: ops.cast(head(x), "float32") for name, head in self.heads.items()}
        return (answers if isinstance(self.model.output, dict) else answers["logits"]), tuple(new)


class OnlineMultiStageTCN:
    """Steps a causal `kseq.models.MultiStageTCN`: its state are the last 2 d frames in front of each convolution.

    Args:
        model: the network, built or loaded.

    Attributes:
        model: the same.
        step: `compute`, compiled as each backend does; features may be a NumPy array.

    Raises:
        InputError: if it is another model, or one that is not causal.
    """

    def __init__(self, model: keras.Model):
        self.stages = _stages(model)
        for layer in (layer for _, layers, _ in self.stages for layer in layers):
            if not layer.causal:
                raise InputError(
                    f"model {model.name!r}: {layer.name} is not causal, and looks at frames to come; build and train "
                    "it with causal=True to run it frame by frame"
                )
        self.model = model
        features = model.get_layer("features")
        self.dtype, self.frame = features.dtype, features.batch_shape[2:]
        self.state_shapes = [(layer.reach, layer.pointwise.units) for _, layers, _ in self.stages for layer in layers]
        self.step = compiled(self.compute, model.variables)

    def begin(self, batch_size: int = 1) -> tuple:
        """The states before the first frame, zeros for so many videos side by side."""
        return tuple(layer.make_past(batch_size) for _, layers, _ in self.stages for layer in layers)

    def compute(self, features, states: tuple) -> tuple:
        """The answers at a frame of each video, and the new states.

        Args:
            features: `(batch, input_dim)`.
            states: of `begin`, or of the frame before.

        Returns:
            Logits `(batch, num_classes)` in float32, or a dict of those of all stages; and the states.

        Raises:
            InputError: if features or states have another shape, or are of different batches.
        """
        x = ops.cast(features, self.dtype)
        _check("features", x, self.frame, states, self.state_shapes)
        x = x[:, None]  # (batch, 1, input_dim)
        states, new, answers = list(states), [], []
        for projection, layers, logits in self.stages:
            x = projection(ops.softmax(ops.cast(x, "float32")) if answers else x)
            for layer in layers:
                x, past = layer(x, past=states.pop(0), training=False)
                new.append(past)
            x = logits(x)
            answers.append(ops.cast(x[:, 0], "float32"))
        *auxiliary, last = answers
        if not isinstance(self.model.output, dict):
            return last, tuple(new)
        return {"logits": last} | {f"auxiliary_{stage}": x for stage, x in enumerate(auxiliary)}, tuple(new)


def _stages(model: keras.Model) -> list[tuple]:
    """Projection, dilated residual layers and logits of each stage."""
    found: dict[int, dict] = {}
    for layer in model.layers:
        if match := re.fullmatch(r"stage_(\d+)_(projection|layer_\d+|logits)", layer.name):
            found.setdefault(int(match[1]), {})[match[2]] = layer
    if not found or any(not {"projection", "layer_0", "logits"} <= stage.keys() for stage in found.values()):
        raise InputError(f"model {model.name!r}: no network of stages; give one of kseq.models.MultiStageTCN")
    stages = [found[number] for number in sorted(found)]
    return [
        (stage["projection"], [stage[f"layer_{level}"] for level in range(len(stage) - 2)], stage["logits"])
        for stage in stages
    ]


def _check(argument, x, frame, states, state_shapes) -> None:
    """Raise an error unless frames and states fit the model and each other."""
    if not _fits(x, (None, *frame)):
        raise InputError(f"{argument} of shape {tuple(x.shape)}: give (batch, *{tuple(frame)}), a frame of each video")
    expected = [(x.shape[0], *shape) for shape in state_shapes]
    if len(states) != len(expected) or not all(map(_fits, states, expected)):
        found = [tuple(state.shape) for state in states]
        raise InputError(
            f"states of shapes {found}: with {argument} of shape {tuple(x.shape)} go {expected}; give what begin gave "
            "for so many videos, or the step before"
        )


def _fits(tensor, expected) -> bool:
    """Whether a tensor has a shape; an unknown size fits any."""
    shape = tuple(tensor.shape)
    same = len(shape) == len(expected)
    return same and all(None in pair or pair[0] == pair[1] for pair in zip(shape, expected, strict=True))


def _sizes(layer: Recurrence) -> list[int]:
    size = layer.cell.state_size
    return list(size) if isinstance(size, (list, tuple)) else [size]
