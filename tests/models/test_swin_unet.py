from functools import partial

import keras
import numpy as np
import pytest

from kseq.errors import InputError
from kseq.models import Swin, SwinUnet, create
from kseq.models.registry import variants
from tests import conformance
from tests.conftest import torch_only

random = np.random.default_rng(5)
IMAGES = random.normal(size=(2, 16, 8, 1)).astype("float32")
SMALL = {
    "patch_size": 2,
    "embed_dim": 4,
    "depths": (2, 1),
    "num_heads": (1, 2),
    "window_size": 2,
    "mlp_ratio": 2.0,
    "drop_path": 0.0,
}


def test_conformance(tmp_path):
    """With the most kinds of layers; what the plain model has besides, `PatchExpanding`, ends this one too."""

    def make():
        model = SwinUnet(IMAGES.shape[1:], 3, **SMALL, global_tokens=2, upsampling="non_local")
        for weight in model.trainable_variables:
            if len(weight.shape) > 1:  # so few channels and so small kernels make gradients below float32's rounding
                weight.assign(10 * weight)
        return model

    conformance.check_model(make, IMAGES, tmp_path)


@torch_only
@pytest.mark.parametrize(("name", "parameters"), [("swin_unet_t", 27_168_900), ("glam_swin_unet_t", 35_006_328)])
def test_parameter_counts(name, parameters):
    """The first is published. PyTorch counts without memory; elsewhere the second costs too much for what it adds."""
    assert variants()[name].parameters == parameters
    on_torch = keras.backend.backend() == "torch"
    if on_torch or name == "swin_unet_t":
        with keras.device("meta") if on_torch else keras.name_scope("count"):
            assert create(name).count_params() == parameters


@torch_only
@pytest.mark.parametrize("build", [Swin, partial(SwinUnet, upsampling="non_local"), SwinUnet])
def test_every_product_begins_as_it_is_told(build):
    sizes = {"patch_size": 4, "embed_dim": 32, "depths": (2, 2), "num_heads": (2, 4), "window_size": 4}

    def deviations(**options):
        model = build((32, 32, 3), 40, **sizes, global_tokens=2, **options)
        kernels = [weight for weight in model.weights if weight.path.endswith("kernel")]
        assert len(kernels) > 20
        return [np.sqrt(np.prod(kernel.shape[:-1])) * np.std(kernel) for kernel in kernels], kernels

    found, _ = deviations(kernel_initializer="lecun_normal")
    np.testing.assert_allclose(found, 1, rtol=0.1)
    found, kernels = deviations()
    papers = 0.02 * 0.8796  # of the truncated normal
    np.testing.assert_allclose([np.std(kernel) for kernel in kernels], papers, rtol=0.1)


def test_volumes():
    model = SwinUnet((4, 8, 8, 2), 3, **SMALL | {"patch_size": (1, 2, 2)}, upsampling="non_local")
    assert model.output_shape == (None, 4, 8, 8, 3)


def test_the_decoder_mirrors_the_encoder():
    sizes = SMALL | {"depths": (2, 3, 1), "num_heads": (1, 1, 1), "drop_path": 0.5}
    model = SwinUnet((16, 16, 1), 2, **sizes)
    paths = {layer.name: layer.drop_path for layer in model.layers if "_block_" in layer.name}
    names = ["stage_0_block_0", "stage_0_block_1", "stage_1_block_0", "stage_1_block_1", "stage_1_block_2"]
    np.testing.assert_allclose([paths[name] for name in names], [0, 0.1, 0.2, 0.3, 0.4])
    np.testing.assert_allclose([paths[f"decoder_{name}"] for name in names], [0, 0.1, 0.2, 0.3, 0.4])
    assert len(paths) == 11
    model = SwinUnet((16, 16, 1), 2, **sizes, decoder_depths=(1, 2))
    paths = {
        layer.name: layer.drop_path
        for layer in model.layers
        if layer.name.startswith("decoder_stage") and "_block_" in layer.name
    }
    assert paths == {"decoder_stage_1_block_0": 0.2, "decoder_stage_1_block_1": 0.4, "decoder_stage_0_block_0": 0.0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_shape": (16, 8)}, r"input_shape \(16, 8\): give \(height, width, channels\)"),
        ({"input_shape": (18, 8, 1)}, r"input_shape of \(18, 8\): .* multiples of \(4, 4\); .* \(16, 8\) or \(20, 8\)"),
        ({"input_shape": (2, 8, 1)}, r"give an input of \(4, 8\), or fewer stages"),
        ({"num_classes": 0}, "num_classes 0: give 1 or more"),
        ({"embed_dim": 0}, "embed_dim 0"),
        ({"patch_size": (2, 2, 2)}, r"patch_size \(2, 2, 2\): give 1 or more voxels for each axis of \(16, 8\)"),
        ({"depths": (2,)}, r"depths \(2,\): give 1 or more blocks for each of two stages or more"),
        ({"depths": (2, 0)}, r"depths \(2, 0\)"),
        ({"decoder_depths": (1, 1)}, r"decoder_depths \(1, 1\): give 1 or more blocks for each of 1 stages"),
        ({"num_heads": (1, 2, 4)}, r"num_heads \(1, 2, 4\): give one number for each of 2 stages"),
        ({"num_heads": (0, 2)}, r"num_heads \(0, 2\): give divisors"),
        ({"num_heads": (3, 2)}, r"num_heads \(3, 2\): give divisors of the channels of the stages, \(4, 8\)"),
        ({"global_positions": (4, 4)}, "give global_tokens too"),
        ({"upsampling": "linear"}, "upsampling 'linear': choose 'expand' or 'non_local'"),
        ({"dropout": 1}, "dropout 1"),
        ({"drop_path": -0.1}, "drop_path"),
        ({"window_size": 0}, "window_size 0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        SwinUnet(**{"input_shape": (16, 8, 1), "num_classes": 3} | SMALL | arguments)
