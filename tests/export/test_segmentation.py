"""Export of segmentation models: windows that slide inside the graph, and masks from files."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import kseq
from kseq import saving
from kseq.errors import InputError
from kseq.export import LabelMap, export, predict
from kseq.export.segmentation import palette
from kseq.inference import SlidingWindow
from tests.conftest import tensorflow_only

CLASSES = ["background", "liver", "spleen", "kidney"]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZES = [(16, 12), (37, 41), (9, 50), (33, 5), (1, 1)]
CARDS = {
    1: {"channels": 1, "window": [16, 12], "mean": [0.13], "std": [0.31], "overlap": 0.5, "weighting": "gaussian"},
    3: {"channels": 3, "window": [16, 12], "mean": MEAN, "std": STD, "overlap": 0.3, "weighting": "constant"},
}


def network(channels: int, auxiliary: bool = False, size=(16, 12)) -> keras.Model:
    """A model whose answer depends on the place in the window: convolutions with padding."""
    entry = keras.Input((*size, channels), name="pixels")
    x = keras.layers.Conv2D(6, 5, padding="same", activation="relu", bias_initializer="normal")(entry)
    logits = keras.layers.Conv2D(4, 5, padding="same", name="head")(x)
    heads = {"auxiliary_0": keras.layers.Conv2D(4, 1, strides=2)(x), "logits": logits}
    return keras.Model(entry, heads if auxiliary else logits)


def expected_logits(model: keras.Model, card: dict, images: np.ndarray) -> np.ndarray:
    sliding = SlidingWindow(model, card["window"], overlap=card["overlap"], weighting=card["weighting"])
    return sliding((images / 255 - card["mean"]) / card["std"])


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model of this backend with auxiliary heads: the model, its card, its file's folder."""
    keras.utils.set_random_seed(0)
    model, card = network(3, auxiliary=True), CARDS[3]
    folder = tmp_path_factory.mktemp("exported")
    saving.save(model, folder / "model.keras", {"segmentation": card, "class_names": CLASSES})
    return model, card, folder


@pytest.fixture(scope="module")
def exported(saved):
    """The same, exported, and the record."""
    return *saved, export(saved[2] / "model.keras")[1]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Paths of images of odd sizes."""
    random, folder = np.random.default_rng(0), tmp_path_factory.mktemp("pictures")
    paths = []
    for i, size in enumerate(SIZES):
        paths.append(folder / f"picture {i}.png")
        Image.fromarray(random.integers(0, 256, (*size, 3)).astype("uint8")).save(paths[-1])
    return [str(path) for path in paths]


@tensorflow_only
def test_the_export_is_verified_at_two_odd_sizes(exported):
    model, card, _, record = exported
    c = card["channels"]
    shapes = {(check["signature"], *check["shape"]) for check in record["checks"]}
    sizes = [(1, 25, 7, c), (2, 9, 23, c)]
    assert shapes == {
        ("serve", 1, 16, 12, c),
        ("serve", 5, 16, 12, c),
        *[(name, *size) for size in sizes for name in ("serving_default", "probabilities")],
        *[("encoded", *size[1:]) for size in sizes],
    }
    assert record["largest_difference"] <= 1e-5
    assert record["class_names"] == CLASSES
    assert len(model.weights) > 4  # the head that is not exported


@tensorflow_only
def test_tensorflow_alone_serves_it(exported, pictures, tmp_path):
    """In a process where neither Keras nor kseq can be imported, from arrays and files of odd sizes."""
    model, card, folder, _ = exported
    random = np.random.default_rng(1)
    arrays = {str(i): random.integers(0, 256, (1 + i % 3, *s, 3)).astype("uint8") for i, s in enumerate(SIZES)}
    np.savez(tmp_path / "arrays.npz", **arrays)
    script = textwrap.dedent(f"""
        import sys, json
        sys.modules["keras"] = sys.modules["kseq"] = sys.modules["PIL"] = None
        import numpy as np
        import tensorflow as tf
        loaded = tf.saved_model.load({str(folder / "saved_model")!r})
        served, refused, answers = loaded.signatures, [], {{}}
        for i, images in np.load("arrays.npz").items():
            answers["labels " + i] = served["serving_default"](tf.constant(images))["labels"]
            answers["probabilities " + i] = served["probabilities"](tf.constant(images))["probabilities"]
        for i, path in enumerate({pictures!r}):
            answer = served["encoded"](tf.constant(open(path, "rb").read()))
            answers["encoded " + str(i)] = answer["labels"]
        answers["logits"] = served["serve"](tf.zeros((2, 16, 12, 3)))["logits"]
        for name, raw in (
            ("serving_default", np.zeros((2, 20, 24, 1), "uint8")),
            ("serving_default", np.zeros((2, 0, 24, 3), "uint8")),
            ("encoded", b"hello"),
        ):
            try:
                served[name](tf.constant(raw))
            except tf.errors.InvalidArgumentError as error:
                refused.append(str(error))
        np.savez("answers.npz", **answers)
        print(json.dumps([[name.decode() for name in answer["classes"].numpy()], refused]))
    """)
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    names, refused = json.loads(done.stdout)
    assert names == CLASSES
    assert len(refused) == 3
    assert all("images: (batch, height, width, 3) can be read, got" in text for text in refused[:2])
    assert "only PNG and JPEG images can be read" in refused[2]
    answers = dict(np.load(tmp_path / "answers.npz"))
    for i, images in arrays.items():
        expected = keras.ops.convert_to_numpy(keras.ops.softmax(expected_logits(model, card, images)))
        np.testing.assert_allclose(answers[f"probabilities {i}"], expected, atol=1e-5)
        agrees_where_sure(answers[f"labels {i}"], expected)
    for i, path in enumerate(pictures):
        agrees_where_sure(answers[f"encoded {i}"], expected_logits(model, card, np.asarray(Image.open(path))))
    logits = model(np.zeros((2, 16, 12, 3), "float32"), training=False)["logits"]
    np.testing.assert_allclose(answers["logits"], logits, atol=1e-5)


def agrees_where_sure(labels: np.ndarray, scores: np.ndarray) -> None:
    assert labels.dtype == np.uint8
    ranked = np.sort(scores, axis=-1)
    sure = ranked[..., -1] - ranked[..., -2] > 1e-4
    np.testing.assert_array_equal(labels[sure], scores.argmax(axis=-1)[sure])
    assert sure.mean() > 0.9
    assert labels.shape == scores.shape[:-1]


@tensorflow_only
@pytest.mark.parametrize("overlap", [0, 0.3, 0.5, 0.9])
def test_the_windows_of_the_graph_are_those_of_sliding_window(overlap):
    import tensorflow as tf

    from kseq.export.window_graph import axis_graph
    from kseq.inference.sliding_window import window_shares, window_starts, window_weights

    for window in (1, 2, 7, 16):
        weights = window_weights(window, "gaussian")
        for size in (window, window + 1, 2 * window - 1, 5 * window + 3):
            starts, shares = axis_graph(tf.constant(size), weights, overlap)
            expected = window_starts(size, window, overlap)
            np.testing.assert_array_equal(starts, expected)
            np.testing.assert_allclose(shares, window_shares(expected, weights), rtol=1e-6)


@tensorflow_only
@pytest.mark.parametrize(("overlap", "batch_size"), [(0, 3), (0.5, 1), (0.9, 7)])
def test_the_graph_is_sliding_window_however_batches_lie_in_the_images(overlap, batch_size):
    import tensorflow as tf

    from kseq.data import ImageEncoder
    from kseq.export.window_graph import window_graph

    model, encoder = network(1), ImageEncoder((16, 12), 1, [0.13], [0.31])
    settings = {"overlap": overlap, "weighting": "gaussian", "batch_size": batch_size}
    slide = window_graph(model, encoder, **settings)
    shape = tf.TensorSpec([None, None, None, None], tf.uint8)
    graph = tf.function(lambda images: slide(images, tf.identity), input_signature=[shape], autograph=False)
    sliding = SlidingWindow(model, **settings)
    random = np.random.default_rng(0)
    for size in ((5, 16, 12), (2, 40, 12), (2, 31, 25), (3, 9, 30), (1, 50, 5)):
        images = random.integers(0, 256, (*size, 1)).astype("uint8")
        np.testing.assert_allclose(graph(images), sliding((images / 255 - 0.13) / 0.31), atol=1e-5)
    assert graph(np.zeros((0, 20, 20, 1), "uint8")).shape == (0, 20, 20, 4)


@tensorflow_only
def test_a_fault_of_the_graph_is_found(tmp_path, monkeypatch):
    from kseq.errors import KseqError
    from kseq.export import window_graph

    saving.save(network(1), tmp_path / "model.keras", {"segmentation": CARDS[1], "class_names": CLASSES})
    monkeypatch.setattr(window_graph, "window_weights", lambda window, weighting: np.arange(1.0, window + 1))
    with pytest.raises(KseqError, match="not written, the export differs from the model by"):
        export(tmp_path / "model.keras")
    assert [path.name for path in tmp_path.iterdir()] == ["model.keras"]


def test_all_ways_to_predict_agree(saved, pictures, tmp_path, request):
    folder = path = saved[2]
    if keras.backend.backend() == "tensorflow":  # elsewhere an export is a process of its own
        request.getfixturevalue("exported")
        path = folder / "saved_model"
    served = predict(path, pictures, tmp_path / "masks")
    kept = predict(folder, pictures)
    for i, (given, answer, same) in enumerate(zip(pictures, served, kept, strict=True)):
        assert isinstance(answer, LabelMap)
        assert (answer.kind, answer.given, answer.labels.shape) == ("image", given, SIZES[i])
        assert (same.kind, same.given, same.mask) == ("image", given, None)
        assert np.mean(answer.labels == same.labels) > 0.99
        assert list(answer.shares) == CLASSES
        assert answer.shares["spleen"] == pytest.approx(np.mean(answer.labels == 2))
        assert answer.mask == str(tmp_path / "masks" / f"picture {i}.png")
        with Image.open(answer.mask) as image:
            assert image.mode == "P"
            np.testing.assert_array_equal(np.asarray(image), answer.labels)
            np.testing.assert_array_equal(np.asarray(image.convert("RGB")), palette()[answer.labels])
    assert len(list((tmp_path / "masks").iterdir())) == len(pictures)
    single = predict(path, pictures[1:2], tmp_path / "one.PNG")[0]
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "one.PNG")), served[1].labels)
    assert single.mask == str(tmp_path / "one.PNG")


def test_the_palette_has_256_colours():
    colours = palette()
    assert len({tuple(colour) for colour in colours.tolist()}) == 256
    # the first of PASCAL VOC: background, aeroplane, bicycle, bird; and its border
    assert colours[[0, 1, 2, 3, 255]].tolist() == [
        [0, 0, 0],
        [128, 0, 0],
        [0, 128, 0],
        [128, 128, 0],
        [224, 224, 192],
    ]


def test_masks_that_cannot_be_written_leave_everything_as_it_was(saved, pictures, tmp_path):
    folder = saved[2]
    (tmp_path / "mask.png").write_text("precious")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "picture 1.png").write_text("precious")
    (tmp_path / "half.png").write_bytes(Path(pictures[1]).read_bytes()[:300])
    (tmp_path / "picture 0.png").write_bytes(Path(pictures[1]).read_bytes())
    before = sorted(tmp_path.rglob("*"))
    for given, output, message in (
        (pictures[:1], "mask.png", "output .*mask.png: exists; remove it or give another"),
        (pictures[:1], "mask.jpg", r"output .*mask.jpg: masks are PNG files; give a name that ends in .png"),
        (pictures[:1], "missing/mask.png", "there is no folder .*missing; create it"),
        (pictures[:2], "mask.png", "output .*mask.png: a file, and there are 2 images; give a folder"),
        (pictures[:2], "full", "output .*picture 1.png: exists; remove it"),
        ([pictures[0], str(tmp_path / "picture 0.png")], "new", "two images would be written to picture 0.png"),
        ([pictures[0], str(tmp_path / "half.png")], "new", "half.png': damaged"),
        ([], "new", "images: none given"),
    ):
        with pytest.raises(InputError, match=message):
            predict(folder, given, tmp_path / output)
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "mask.png").read_text() == (tmp_path / "full" / "picture 1.png").read_text() == "precious"


@tensorflow_only
def test_onnx(exported, tmp_path):
    import onnxruntime

    model, card, folder, _ = exported
    path, record = export(folder / "model.keras", tmp_path / "segmentation.onnx", format="onnx")
    assert record["largest_difference"] <= 1e-5
    session = onnxruntime.InferenceSession(str(path))
    images = np.random.default_rng(0).integers(0, 256, (1, 25, 13, card["channels"])).astype("uint8")
    name = session.get_inputs()[0].name
    windows = ((images / 255 - card["mean"]) / card["std"]).astype("float32")
    sliding = SlidingWindow(lambda x: session.run(None, {name: x})[0], card["window"], overlap=card["overlap"])
    expected = expected_logits(model, card | {"weighting": "gaussian"}, images)
    np.testing.assert_allclose(sliding(windows), expected, atol=1e-5)


@tensorflow_only
def test_a_grey_model_of_free_size_takes_the_window_of_its_card(tmp_path):
    model = network(1, size=(None, None))
    saving.save(model, tmp_path / "model.keras", {"segmentation": CARDS[1], "class_names": CLASSES})
    _, record = export(tmp_path / "model.keras")
    assert [check["shape"] for check in record["checks"] if check["signature"] == "serve"] == [
        [1, 16, 16, 1],
        [5, 32, 32, 1],
    ]
    encoded = [check["shape"] for check in record["checks"] if check["signature"] == "encoded"]
    assert encoded == [[25, 7, 1], [9, 23, 1]]


@tensorflow_only
@pytest.mark.parametrize(
    ("changed", "names", "message"),
    [
        ({"window": [16, 16]}, CLASSES, r"makes windows of shape \(16, 16, 1\), the model reads \(16, 12, 1\)"),
        ({}, CLASSES[1:], r"its card names 3 classes at each pixel .*, the model answers \(16, 12, 4\)"),
        ({"resize": True}, CLASSES, "card: 'segmentation' has no 'resize'; leave it out"),
        ({"overlap": 1}, CLASSES, "overlap 1: give a share"),
        ({"std": [0.0]}, CLASSES, "std .*: values are divided by it"),
    ],
)
def test_a_card_that_does_not_fit_is_refused(tmp_path, changed, names, message):
    saving.save(network(1), tmp_path / "model.keras", {"segmentation": CARDS[1] | changed, "class_names": names})
    with pytest.raises(InputError, match=message):
        export(tmp_path / "model.keras")
    assert [path.name for path in tmp_path.iterdir()] == ["model.keras"]


@tensorflow_only
def test_the_model_in_the_box_knows_the_test_slices():
    import tensorflow as tf

    images, labels = kseq.data.brain_slices().test
    folder = Path(__file__).parents[2] / "saved_models" / "organ_segmentation"
    segment = tf.saved_model.load(str(folder)).signatures["serving_default"]
    found = segment(tf.constant(images))["labels"].numpy()
    assert (found == labels).mean() == pytest.approx(0.859, abs=0.003)  # 0.8585 with the black margin of the app
