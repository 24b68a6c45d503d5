import keras
import numpy as np
import pytest

from kseq.errors import InputError
from kseq.models import SETR
from kseq.models.registry import variants
from tests import conformance
from tests.conftest import thinned
from tests.numpy_initializers import numpy_initializers

random = np.random.default_rng(8)
IMAGES = random.normal(size=(2, 12, 8, 3)).astype("float32")
SMALL = {"patch_size": 4, "embed_dim": 12, "depth": 4, "num_heads": 3, "channels": 8}
MILLIONS = {  # of the reference, with one head
    "setr_naive_l": 305.74,
    "setr_pup_l": 309.61,
    "setr_mla_l": 310.75,
    "setr_naive_b": 87.63,
    "setr_pup_b": 90.97,
    "setr_mla_b": 92.44,
}


@pytest.fixture(autouse=True, scope="module")
def fast_building():
    with numpy_initializers():
        yield


def trainable(**arguments):
    return sum(int(np.prod(v.shape)) for v in SETR(**arguments).trainable_variables)


@pytest.mark.parametrize("decoder", ["pup", "mla"])
def test_conformance(decoder, tmp_path):
    """With frozen statistics: those of a batch take away the β of a layer normalisation, whose gradient is then 0."""

    def make():
        model = SETR(IMAGES.shape[1:], 5, decoder=decoder, **SMALL)
        for layer in model.layers:
            layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)
        return model

    conformance.check_model(make, IMAGES, tmp_path)


@pytest.mark.parametrize("name", MILLIONS)
def test_parameter_counts(name):
    """Counted on tiny models: what a block has and what grows with the width follows from their shapes.

    The reference also counts what has no use: `conv_seg` of the head, of MLA a class token and its position, of the
    others the bias of every convolution with a normalisation behind it.
    """
    arguments = variants()[name].arguments
    decoder, D, channels, classes = arguments["decoder"], arguments["embed_dim"], 256, arguments["num_classes"]
    block = 4 * D * (D + 1) + 2 * 4 * D * D + 5 * D + 2 * 2 * D
    tokens = 48 * 48 + 2 * (decoder != "mla")
    total = arguments["depth"] * block + (3 * 16 * 16 + 1) * D + tokens * D
    convolution = {size: size**2 * channels * channels + 2 * channels for size in (1, 3)}
    first = {size: size**2 * D * channels + 2 * channels for size in (1, 3)}
    if decoder == "mla":
        half = channels // 2
        level = 2 * D + first[1] + convolution[3] + 9 * half * (channels + half) + 4 * half
        total += 4 * level + 9 * 4 * half * classes + classes
    else:
        steps = first[1] if decoder == "naive" else first[3] + 3 * convolution[3]
        total += 2 * D + steps + (channels + 1) * classes
    assert total == variants()[name].parameters
    unused = 513 * classes + {"naive": channels, "pup": 4 * channels, "mla": 2 * D}[decoder]
    assert round((total + unused) / 1e6, 2) == MILLIONS[name]


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="only PyTorch builds models without their weights")
@pytest.mark.parametrize("decoder", ["naive", "pup", "mla"])
def test_the_counted_variant_is_the_model(decoder):
    variant = variants()[f"setr_{decoder}_b"]
    with keras.device("meta"):
        four, five = (trainable(**variant.arguments | {"depth": depth}) for depth in (4, 5))
    assert four + 8 * (five - four) == variant.parameters


@pytest.mark.parametrize("decoder", thinned(["naive", "pup", "mla"]))
def test_every_output_depends_on_every_patch(decoder):
    model = SETR(IMAGES.shape[1:], 5, decoder=decoder, **SMALL)
    model.set_weights([w + 0.3 * random.normal(size=w.shape) ** 2 for w in model.get_weights()])
    changed = np.concatenate([IMAGES[:1]] * 7)
    for patch in range(6):
        row, column = divmod(patch, 2)
        changed[1 + patch, 4 * row + 1, 4 * column + 2] += random.normal(size=3)
    outputs = model.predict(changed, verbose=0)
    assert outputs.shape == (7, 12, 8, 5)
    assert (np.abs(outputs[1:] - outputs[:1]).max(axis=-1) > 0).mean() > 0.99


def test_auxiliary_heads():
    model = SETR(IMAGES.shape[1:], 5, decoder="pup", auxiliary=True, **SMALL)
    shapes = {name: output.shape for name, output in model.output.items()}
    names = ("logits", "auxiliary_0", "auxiliary_1", "auxiliary_2", "auxiliary_3")
    assert shapes == {name: (None, 12, 8, 5) for name in names[: len(shapes)]}
    model.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = [w.copy() for w in model.get_layer("auxiliary_0_logits").get_weights()]
    model.fit(IMAGES, dict.fromkeys(shapes, random.integers(0, 5, (2, 12, 8))), verbose=0)
    assert np.abs(model.get_layer("auxiliary_0_logits").get_weights()[0] - before[0]).max() > 0


def test_which_blocks_auxiliary_heads_read():
    from kseq.models.setr import _read_by_auxiliary_heads as read

    assert read("naive", 24, True) == [9, 14, 19]  # as the reference's configurations
    assert read("pup", 24, True) == [9, 14, 19, 23]
    assert read("pup", 12, True) == [4, 7, 9, 11]
    assert read("naive", 4, [2, 0]) == [2, 0]


def test_volumes():
    model = SETR((4, 8, 12, 1), 3, decoder="naive", **SMALL | {"depth": 1})
    assert model.output_shape == (None, 4, 8, 12, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"decoder": "unet"}, "decoder 'unet': choose one of naive, pup, mla"),
        ({"num_classes": 0}, "num_classes 0: give 1 or more"),
        ({"decoder": "mla", "depth": 3}, "depth 3: decoder 'mla' reads four blocks"),
        ({"decoder": "mla", "channels": 7}, "channels 7"),
        ({"decoder": "mla", "auxiliary": [1]}, r"auxiliary \[1\]: the heads of decoder 'mla'"),
        ({"auxiliary": [4]}, r"auxiliary \[4\]: give numbers of blocks from 0 to 3"),
        ({"patch_size": 5}, r"does not divide the input of \(12, 8\); give an input of \(10, 5\) or \(15, 10\)"),
        ({"num_heads": 5}, "num_heads 5: does not divide"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        SETR(**{"input_shape": (12, 8, 3), "num_classes": 5} | SMALL | arguments)
