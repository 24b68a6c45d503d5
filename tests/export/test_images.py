"""Export of image classifiers: signatures of raw images, and predictions from files."""

import json
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from kseq import saving
from kseq.data import ImageEncoder, handwritten_digits
from kseq.errors import InputError
from kseq.export import export, predict
from tests.conftest import tensorflow_only

ENCODERS = {
    1: ImageEncoder((20, 24), 1, (0.13,), (0.31,)),
    3: ImageEncoder((20, 24), 3, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
CLASSES = [f"class {i}" for i in range(10)]


def classifier(channels: int) -> keras.Model:
    entry = keras.Input((20, 24, channels), name="pixels")
    x = keras.layers.Conv2D(8, 3, activation="relu", kernel_initializer="he_normal")(entry)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(entry, keras.layers.Dense(10, kernel_initializer="he_normal")(x))


@pytest.fixture(scope="module", params=[1, 3], ids=["grey", "colours"])
def exported(request, tmp_path_factory):
    """An image classifier of this backend, exported: the model, its encoder, its file, the SavedModel, the record."""
    keras.utils.set_random_seed(0)
    model, encoder = classifier(request.param), ENCODERS[request.param]
    folder = tmp_path_factory.mktemp("exported")
    saving.save(model, folder / "model.keras", {"images": encoder.get_config(), "class_names": CLASSES})
    path, record = export(folder / "model.keras")
    return model, encoder, folder, path, record


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Paths of images of every kind and of several sizes."""
    random = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("pictures")
    colours = Image.fromarray(random.integers(0, 256, (5, 6, 3)).astype("uint8")).resize((61, 47))
    images = {
        "colours.png": colours,
        "right size.png": colours.resize((24, 20)),
        "small.png": colours.resize((7, 5)),
        "grey.png": colours.convert("L").resize((300, 211)),
        "alpha.png": colours.convert("RGBA"),
        "palette.png": colours.quantize(16),
        "16 bits.png": Image.fromarray(random.integers(0, 65_536, (30, 31)).astype("uint16")),
        "colours.jpg": colours.resize((640, 480)),
        "grey.jpg": colours.convert("L"),
    }
    for name, image in images.items():
        image.save(folder / name)
    return [str(folder / name) for name in images]


def probabilities(model: keras.Model, inputs: np.ndarray) -> np.ndarray:
    return keras.ops.convert_to_numpy(keras.ops.softmax(model.predict(inputs, verbose=0)))


def test_the_export_is_verified_with_images_of_two_sizes(exported):
    _, encoder, _, _, record = exported
    c = encoder.channels
    shapes = {(check["signature"], *check["shape"]) for check in record["checks"]}
    assert shapes == {
        ("serve", 1, 20, 24, c),
        ("serve", 5, 20, 24, c),
        ("serving_default", 1, 11, 13, c),
        ("serving_default", 5, 41, 26, c),
        ("encoded", 1),
        ("encoded", 5),
    }
    assert record["largest_difference"] <= 1e-5


def test_tensorflow_alone_serves_it(exported, pictures, tmp_path):
    """In a process where neither Keras nor kseq can be imported, from arrays and files of several sizes."""
    model, encoder, _, path, _ = exported
    shutil.copytree(path, tmp_path / "served")
    random = np.random.default_rng(1)
    arrays = {}
    for i, size in enumerate([(20, 24), (9, 11), (40, 30), (211, 7), (1, 1), (333, 500)]):
        arrays[str(i)] = random.integers(0, 256, (1 + i % 3, *size, encoder.channels)).astype("uint8")
    np.savez(tmp_path / "arrays.npz", **arrays)
    script = textwrap.dedent(f"""
        import sys, json
        sys.modules["keras"] = sys.modules["kseq"] = sys.modules["PIL"] = None
        import numpy as np
        import tensorflow as tf
        served = tf.saved_model.load("served").signatures
        files = [open(path, "rb").read() for path in {pictures!r}]
        answers = [served["serving_default"](tf.constant(images)) for images in np.load("arrays.npz").values()]
        answers.append(served["encoded"](tf.constant(files)))
        refused = []
        channels = {encoder.channels}
        for name, raw in (
            ("serving_default", np.zeros((2, 20, 24, 4 - channels), "uint8")),
            ("serving_default", np.zeros((2, 0, 24, channels), "uint8")),
            ("serving_default", np.zeros((2, 20, 24), "uint8")),
            ("encoded", [files[0], b"hello"]),
            ("encoded", [b""]),
            ("encoded", [files[0][:-200]]),
            ("encoded", [files[-1][:-200]]),
        ):
            try:
                served[name](tf.constant(raw))
            except tf.errors.InvalidArgumentError as error:
                refused.append(str(error))
        np.savez("answers.npz", *[answer["probabilities"] for answer in answers])
        labels = [[label.decode() for label in answer["label"].numpy()] for answer in answers]
        names = [name.decode() for name in answers[0]["classes"].numpy()]
        print(json.dumps([labels, names, refused]))
    """)
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    labels, names, refused = json.loads(done.stdout)
    answers = list(np.load(tmp_path / "answers.npz").values())
    inputs = [encoder(images) for images in arrays.values()]
    inputs.append(encoder([encoder.decode(path) for path in pictures]))
    for got, found, images in zip(answers, labels, inputs, strict=True):
        expected = probabilities(model, images)
        np.testing.assert_allclose(got, expected, atol=1e-5)
        assert found == [CLASSES[i] for i in expected.argmax(axis=1)]
    assert names == CLASSES
    assert len(refused) == 7
    for message in refused[:3]:
        assert f"images: (batch, height, width, {encoder.channels}) can be read, got" in message
    for message in refused[3:5]:
        assert "images: only PNG and JPEG images can be read" in message
    for message, format in zip(refused[5:], ("PNG", "JPEG"), strict=True):
        assert f"Invalid {format} data" in message


@tensorflow_only
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(20, 24), (28, 28), (3, 2), (640, 480), (1201, 1600)])
def test_the_graph_encodes_as_the_encoder(channels, size):
    import tensorflow as tf

    from kseq.export.images import image_graph

    encoder = ENCODERS[channels]
    images = np.random.default_rng(0).integers(0, 256, (2, *size, channels)).astype("uint8")
    encoded = encoder(images)
    np.testing.assert_allclose(image_graph(encoder)(tf.constant(images)), encoded, atol=3e-6)
    # TensorFlow's own resizing is the same equation with coarser coordinates.
    resized = tf.image.resize(tf.cast(images, tf.float32) / 255, encoder.size, antialias=True)
    np.testing.assert_allclose((resized - encoder.mean) / encoder.std, encoded, atol=1e-4)


@tensorflow_only
@pytest.mark.parametrize("channels", [1, 3])
def test_the_graph_decodes_as_the_encoder(pictures, channels):
    from kseq.export.images import decoding_graph

    decode = decoding_graph(ENCODERS[channels])
    for path in pictures:
        got = decode(Path(path).read_bytes()).numpy().astype(int)
        # Bit for bit today; a JPEG may be decoded by another libjpeg one day.
        limit = 3 if path.endswith("jpg") else 0
        np.testing.assert_allclose(got, ENCODERS[channels].decode(path).astype(int), atol=limit, err_msg=path)


def test_all_ways_to_predict_agree(exported, pictures):
    model, encoder, folder, path, _ = exported
    expected = probabilities(model, encoder([encoder.decode(picture) for picture in pictures]))
    for source in (path, folder / "model.keras", folder):
        predictions = predict(source, pictures)
        assert [(prediction.kind, prediction.given) for prediction in predictions] == [("image", p) for p in pictures]
        assert [prediction.label for prediction in predictions] == [CLASSES[i] for i in expected.argmax(axis=1)]
        got = [list(prediction.probabilities.values()) for prediction in predictions]
        np.testing.assert_allclose(got, expected, atol=1e-5)


def test_many_files_are_read_in_parts(exported, pictures, monkeypatch):
    expected = predict(exported[3], pictures)
    monkeypatch.setattr(sys.modules["kseq.export.predict"], "BATCH", 4)
    for got, whole in zip(predict(exported[3], pictures), expected, strict=True):
        assert (got.given, got.label) == (whole.given, whole.label)
        np.testing.assert_allclose(list(got.probabilities.values()), list(whole.probabilities.values()), atol=1e-6)


@tensorflow_only
def test_predictions_from_a_saved_model_need_no_keras(exported, pictures):
    code = f"""
import sys
from kseq.export.predict import predict
assert "keras" not in sys.modules
sys.modules["keras"] = None
print(predict({str(exported[3])!r}, {pictures[:1]!r})[0].label)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == predict(exported[3], pictures[:1])[0].label, done.stderr


def test_onnx(exported, tmp_path):
    import onnxruntime

    model, encoder, folder, _, _ = exported
    path, record = export(folder / "model.keras", tmp_path / "classifier.onnx", format="onnx")
    assert {tuple(check["shape"]) for check in record["checks"]} == {(n, 20, 24, encoder.channels) for n in (1, 5)}
    session = onnxruntime.InferenceSession(str(path))
    inputs = encoder(np.random.default_rng(0).random((3, 50, 60, encoder.channels)))
    (logits,) = session.run(None, {session.get_inputs()[0].name: inputs})
    np.testing.assert_allclose(logits, model.predict(inputs, verbose=0), atol=1e-5)


@tensorflow_only
def test_a_model_of_any_size_is_verified_at_two(tmp_path):
    entry = keras.Input((None, None, 3))
    x = keras.layers.GlobalMaxPooling2D()(keras.layers.Conv2D(4, 9)(entry))
    card = {"images": ENCODERS[3].get_config(), "class_names": ["cat", "dog"]}
    saving.save(keras.Model(entry, keras.layers.Dense(2)(x)), tmp_path / "model.keras", card)
    _, record = export(tmp_path / "model.keras")
    shapes = [check["shape"] for check in record["checks"] if check["signature"] == "serve"]
    assert shapes == [[1, 24, 24, 3], [5, 48, 48, 3]]


@pytest.mark.parametrize(
    ("encoder", "names", "message"),
    [
        (ENCODERS[3], CLASSES, r"its card makes inputs of shape \(20, 24, 3\), the model reads \(20, 24, 1\)"),
        (ENCODERS[1], CLASSES[1:], r"its card names 9 classes, the model answers \(10,\)"),
    ],
)
def test_a_card_that_does_not_fit_is_refused(tmp_path, encoder, names, message):
    card = {"images": encoder.get_config(), "class_names": names}
    saving.save(classifier(1), tmp_path / "model.keras", card)
    with pytest.raises(InputError, match=message):
        export(tmp_path / "model.keras")
    assert [path.name for path in tmp_path.iterdir()] == ["model.keras"]


def test_predict_bad_inputs(exported, pictures, tmp_path):
    _, _, folder, path, _ = exported
    (tmp_path / "half.png").write_bytes(Path(pictures[0]).read_bytes()[:300])
    for source in (path, folder):
        with pytest.raises(InputError, match="images: none given; give at least one PNG or JPEG file"):
            predict(source, [])
        with pytest.raises(InputError, match=r"image 'missing.png': cannot be read \(No such file"):
            predict(source, [pictures[0], "missing.png"])
        with pytest.raises(InputError, match="image '.*kseq.json': not a PNG or JPEG image"):
            predict(source, [str(path / "kseq.json")])
        with pytest.raises(InputError, match="image '.*half.png': damaged"):
            predict(source, [str(tmp_path / "half.png")])


def test_what_only_the_graph_refuses_is_an_input_error(exported, tmp_path, monkeypatch):
    from kseq.export.images import Images

    monkeypatch.setattr(Images, "read", lambda self, paths: [b"hello"])
    with pytest.raises(
        InputError, match=r"saved_model: cannot read one of the images \(.*only PNG and JPEG.*\)"
    ) as caught:
        predict(exported[3], ["hello.png"])
    assert "\n" not in str(caught.value)


@tensorflow_only
def test_the_model_in_the_box_knows_the_test_digits():
    import tensorflow as tf

    images, digits = handwritten_digits().test
    folder = Path(__file__).parents[2] / "saved_models" / "handwritten_digits"
    classify = tf.saved_model.load(str(folder)).signatures["serving_default"]
    labels = classify(tf.constant(images))["label"].numpy()
    assert np.mean([int(label) == digit for label, digit in zip(labels, digits, strict=True)]) == pytest.approx(0.972)
