"""Videos as raw inputs of a tagger of frames: clips, camera frames and encoded frames in, phases out."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from numbers import Real
from pathlib import Path

import numpy as np

from kseq.data import ImageEncoder, read_video
from kseq.data.videos import MOST
from kseq.data.videos import Video as VideoFile
from kseq.errors import InputError
from kseq.export.images import decoding_graph, image_graph, png
from kseq.export.verification import BATCHES, LENGTHS, check, check_outputs, difference

SETTINGS = {"size", "channels", "mean", "std", "frame_rate"}


@dataclass(frozen=True)
class Interval:
    """Frames in a row with the same most probable phase.

    Attributes:
        start: seconds from the first frame of the video to the first of these.
        end: seconds to the next interval; of the last one to the end of its last frame, which at the frame rate of the
            model may be a part of a frame behind the end of the file.
        phase: name of the class.
        probability: of that class, the mean over these frames.
    """

    start: float
    end: float
    phase: str
    probability: float


@dataclass(frozen=True)
class Timeline:
    """The answer for one video.

    Attributes:
        kind: "video".
        given: the path of the video, as it was given.
        intervals: one after the other, without gaps.
        error: why the file could not be read behind the last interval; `None` if it was read to its end.
    """

    kind: str
    given: str
    intervals: list[Interval]
    error: str | None = None


class Video:
    """What a tagger of frames reads whose card has `"video"`, and what it answers; see `kseq.export.raw_input`.

    The card holds `{"size": [height, width], "channels": 1 or 3, "mean": […], "std": […], "frame_rate": …}`: mean and
    std of each channel, of values scaled to 0–1, and the frames a second that the model reads.

    A `kseq.models.VideoTagger` in one direction is stepped frame by frame (`kseq.inference.OnlineVideoTagger`). What
    reads a video from its end too, or keeps more of it than states, has no signature `frame`, and `kseq predict`, which
    never holds a whole video, refuses it.

    Attributes:
        track: what `kseq predict` passes the frames of a file through, to show how far it is: a function of them, of
            how many there should be (`None` if unknown) and of the path, that gives them again.
    """

    kind = "video"
    batch = 1  # a file at a time

    def __init__(self, card: dict):
        settings = dict(card["video"])
        if set(settings) != SETTINGS:
            raise InputError(
                f"card: 'video' holds {', '.join(sorted(settings)) or 'nothing'}; give {', '.join(sorted(SETTINGS))}"
            )
        self.frame_rate = settings.pop("frame_rate")
        if not (isinstance(self.frame_rate, Real) and 0 < self.frame_rate <= MOST):
            raise InputError(f"card: frame_rate {self.frame_rate!r}: give a number above 0 and up to {MOST:,}")
        self.encoder = ImageEncoder(**settings)
        self.shape = (*self.encoder.size, self.encoder.channels)
        self.class_names = card["class_names"]
        self.track: Callable = lambda frames, count, path: frames
        self._tagger = None

    def highest(self, name: str) -> int:
        """Above the integers that a frame may hold."""
        return 256

    def check(self, model, path: Path) -> None:
        """Raise `InputError` if the card of the file at `path` does not fit its model."""
        check_outputs(model, path)
        reads, answers = [tuple(x.shape) for x in model.inputs], tuple(model.outputs[0].shape)
        if reads != [(None, None, *self.shape)]:
            raise InputError(
                f"{path}: its card makes clips of shape {(None, None, *self.shape)}, the model reads "
                f"{', '.join(map(str, reads))}; save it with another card, a VideoTagger built with masked=False and "
                "stateful=False"
            )
        if len(answers) != 3 or answers[-1] != len(self.class_names):
            raise InputError(
                f"{path}: its card names {len(self.class_names)} classes at each frame, the model answers "
                f"{answers[1:]}; save it with another card"
            )

    def read(self, arguments: list[str]) -> list[VideoFile]:
        """The files, opened and closed again, if all of them are videos."""
        if not arguments:
            raise InputError("videos: none given; give at least one file")
        settings = {"size": self.encoder.size, "frame_rate": self.frame_rate, "channels": self.encoder.channels}
        return [read_video(path, **settings) for path in arguments]

    def signatures(self, model) -> dict[str, tuple[list, Callable]]:
        """`clip` (also `serving_default`), `jpeg`, and for a model that can be stepped `frame`.

        Frames of any size are resized as by `ImageEncoder`. Each answers `label`, `probabilities` and `classes`:

        - `clip`: uint8 `(batch, time, height, width, channels)` to labels `(batch, time)`, probabilities
          `(batch, time, classes)`.
        - `jpeg`: the bytes of the JPEG or PNG files of one clip `(time,)` to labels `(time,)`, probabilities
          `(time, classes)`.
        - `frame`: uint8 `(batch, height, width, channels)`, the next frame of each video, and `state_0`, `state_1`, …
          `(batch, units)`, to labels `(batch,)`, probabilities `(batch, classes)` and the new states by the same names.
          A video begins with zeros.
        """
        import tensorflow as tf

        encode, decode, names = image_graph(self.encoder), decoding_graph(self.encoder), tf.constant(self.class_names)

        def answer(logits: tf.Tensor) -> dict[str, tf.Tensor]:
            probabilities = tf.nn.softmax(tf.cast(logits, tf.float32))
            label = tf.gather(names, tf.argmax(probabilities, axis=-1))
            return {"label": label, "probabilities": probabilities, "classes": tf.identity(names)}

        def some(frames: tf.Tensor, axis: int) -> tf.Tensor:
            message = "frames: none given, shape"
            with tf.control_dependencies(
                [tf.debugging.Assert(tf.shape(frames)[axis] > 0, [message, tf.shape(frames)])]
            ):
                return tf.identity(frames)

        @tf.function(autograph=False)  # the graph that both of its names call
        def clip(frames: tf.Tensor) -> dict[str, tf.Tensor]:
            shape = tf.shape(some(frames, axis=1))
            images = tf.reshape(frames, tf.concat([[shape[0] * shape[1]], shape[2:]], axis=0))
            return answer(model(tf.reshape(encode(images), (shape[0], shape[1], *self.shape)), training=False))

        def jpeg(frames: tf.Tensor) -> dict[str, tf.Tensor]:
            each = tf.TensorSpec(self.shape, tf.float32)
            read = tf.map_fn(lambda x: encode(decode(x)[None])[0], some(frames, axis=0), fn_output_signature=each)
            return answer(model(read[None], training=False)[0])

        clips = [tf.TensorSpec([None] * 5, tf.uint8, name="frames")]
        signatures = {
            "serving_default": (clips, clip),
            "clip": (clips, clip),
            "jpeg": ([tf.TensorSpec([None], tf.string, name="frames")], jpeg),
        }
        tagger = _steppable(model)
        if tagger is None:
            return signatures

        def frame(frame: tf.Tensor, *states: tf.Tensor) -> dict[str, tf.Tensor]:
            logits, states = tagger.compute(encode(frame), states)
            return answer(logits) | {f"state_{i}": state for i, state in enumerate(states)}

        states = [
            tf.TensorSpec([None, *state.shape[1:]], state.dtype, name=f"state_{i}")
            for i, state in enumerate(tagger.begin())
        ]
        return signatures | {"frame": ([tf.TensorSpec([None] * 4, tf.uint8, name="frame"), *states], frame)}

    def verify(self, model, signatures: dict[str, Callable]) -> Iterator[dict]:
        """Compare the signatures of a loaded SavedModel with `model`, which reads each clip as a whole.

        Clips of two batch sizes and lengths, of frames smaller and larger than the model reads them; a label must be
        the most probable class. In half precision a clip as a whole rounds otherwise than frame by frame, so `frame` is
        then compared with the model that is stepped.
        """
        import keras
        import tensorflow as tf

        def shares(logits) -> np.ndarray:
            return keras.ops.convert_to_numpy(keras.ops.softmax(keras.ops.cast(logits, "float32")))

        random, tagger = np.random.default_rng(1), _steppable(model)
        is_half = any(layer.compute_dtype != "float32" for layer in model.layers)
        (height, width), channels = self.encoder.size, self.encoder.channels
        sizes = ((height // 2 + 1, width // 2 + 1), (height + height // 2 + 1, width + 2))
        for batch, time, size in zip(BATCHES, LENGTHS, sizes, strict=True):
            clips = random.integers(0, 256, (batch, time, *size, channels)).astype("uint8")
            encoded = self.encoder(clips.reshape(-1, *clips.shape[2:])).reshape(batch, time, *self.shape)
            expected = shares(model(encoded, training=False))
            files = [png(frame) for frame in clips[0]]
            answers = {
                "clip": (clips.shape, signatures["clip"](tf.constant(clips)), expected),
                "jpeg": (clips.shape[1:], signatures["jpeg"](tf.constant(files)), expected[0]),
            }
            if "frame" in signatures:
                step, steps = _serving(signatures["frame"], batch), range(time)
                told = [step(clips[:, t]) for t in steps]
                stacked = {
                    name: tf.stack([answer[name] for answer in told], axis=1) for name in ("label", "probabilities")
                }
                stepped, states = [], tagger.begin(batch)
                for t in steps if is_half else ():
                    logits, states = tagger.compute(encoded[:, t], states)
                    stepped.append(shares(logits))
                answers["frame"] = (clips.shape, stacked, np.stack(stepped, axis=1) if is_half else expected)
            for name, (shape, got, wanted) in answers.items():
                probabilities = got["probabilities"].numpy()
                yield check(name, shape, difference(probabilities, wanted))
                labels = np.array(self.class_names)[probabilities.argmax(axis=-1)]
                if not np.array_equal(got["label"].numpy().astype(str), labels):
                    yield check(f"{name} label", shape, float("inf"))

    def serve(self, signatures: dict[str, Callable], raw: list[VideoFile], given: list[str]) -> list[Timeline]:
        """The answers of a loaded SavedModel.

        Raises:
            InputError: if it has no signature `frame`.
        """
        if "frame" not in signatures:
            raise InputError(
                f"{given[0]}: the model reads a video as a whole, and files are read frame by frame; export a "
                "VideoTagger with bidirectional=False, or give short clips to the signature 'clip' in Python"
            )

        def begin() -> Callable:
            step = _serving(signatures["frame"], 1)
            return lambda frame: step(frame[None])["probabilities"][0].numpy()

        return [self._timeline(begin(), video, name) for video, name in zip(raw, given, strict=True)]

    def answer(self, model, raw: list[VideoFile], given: list[str]) -> list[Timeline]:
        """The answers of a Keras model."""
        from kseq.inference import OnlineVideoTagger

        if self._tagger is None or self._tagger.model is not model:  # what is compiled is kept
            self._tagger = OnlineVideoTagger(model)
        return [
            self._timeline(self._stepping(self._tagger), video, name) for video, name in zip(raw, given, strict=True)
        ]

    def _stepping(self, tagger) -> Callable[[np.ndarray], np.ndarray]:
        """A function from the next uint8 frame of a video to its probabilities, by a Keras model."""
        from keras import ops

        states = tagger.begin()

        def step(frame: np.ndarray) -> np.ndarray:
            nonlocal states
            logits, states = tagger.step(self.encoder(frame[None]), states)
            return ops.convert_to_numpy(ops.softmax(logits))[0]

        return step

    def _timeline(self, step: Callable[[np.ndarray], np.ndarray], video: VideoFile, given: str) -> Timeline:
        """What `step` says to the frames of a file, one in memory at a time."""
        runs, error = [], None  # class, number of frames, sum of its probabilities
        try:
            for frame, _ in self.track(video, video.expected, given):
                probabilities = step(frame)
                phase = int(probabilities.argmax())
                if not runs or runs[-1][0] != phase:
                    runs.append([phase, 0, 0.0])
                runs[-1][1] += 1
                runs[-1][2] += float(probabilities[phase])
        except InputError as damage:  # what was read before is not lost
            error = str(damage)
        ends = np.cumsum([count for _, count, _ in runs]) / self.frame_rate
        intervals = [
            Interval(float(start), float(end), self.class_names[phase], total / count)
            for start, end, (phase, count, total) in zip([0.0, *ends], ends, runs, strict=False)
        ]
        return Timeline(self.kind, given, intervals, error)


def _steppable(model):
    """The `OnlineVideoTagger` of a Keras model; `None` if it must read videos as a whole."""
    from kseq.inference import OnlineVideoTagger

    try:
        return OnlineVideoTagger(model)
    except InputError:
        return None


def _serving(signature: Callable, batch: int) -> Callable[[np.ndarray], dict]:
    """A function from the next frames of so many videos to the answers of the signature `frame`."""
    import tensorflow as tf

    specs = signature.structured_input_signature[1]
    states = {name: tf.zeros((batch, *spec.shape[1:]), spec.dtype) for name, spec in specs.items() if name != "frame"}

    def step(frames: np.ndarray) -> dict:
        nonlocal states
        answer = signature(frame=tf.constant(frames), **states)
        states = {name: answer[name] for name in states}
        return answer

    return step
