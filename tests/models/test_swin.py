import keras
import numpy as np
import pytest

from kseq.errors import InputError
from kseq.models import Swin
from kseq.models.registry import variants
from tests import conformance
from tests.conftest import torch_only

random = np.random.default_rng(8)
IMAGES = random.normal(size=(2, 21, 16, 3)).astype("float32")
VOLUMES = random.normal(size=(2, 8, 8, 12, 1)).astype("float32")
SMALL = {"patch_size": 2, "embed_dim": 4, "depths": (2, 1), "num_heads": (1, 2), "window_size": 3}
CONFIGURATIONS = {
    "dropped": (IMAGES, {"dropout": 0.1, "attention_dropout": 0.1, "drop_path": 0.2, "absolute_positions": True}),
    "3-D with global tokens": (VOLUMES, {"global_tokens": 2, "window_size": (2, 2, 3), "remat": True}),
}


@pytest.mark.parametrize(("images", "arguments"), CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_conformance(images, arguments, tmp_path):
    def model():
        model = Swin(images.shape[1:], 5, **SMALL | arguments)
        model.set_weights([10 * w if w.ndim > 1 else w for w in model.get_weights()])  # else gradients of tokens vanish
        return model

    conformance.check_model(model, images, tmp_path)


def counted(**arguments):
    """Parameters of each layer by its name; built where nothing is allocated, on PyTorch."""
    with keras.device("meta") if keras.backend.backend() == "torch" else keras.name_scope("count"):
        return {layer.name: layer.count_params() for layer in Swin(**arguments).layers}


@torch_only
@pytest.mark.parametrize("name", ["swin_t", "swin_s", "swin_b", "swin_b_384", "swin_l"])
def test_published_parameter_counts(name):
    """Counted stage by stage with one block each: the weights of the largest would take 0.8 GB."""
    arguments = variants()[name].arguments
    depths = arguments["depths"]
    total, stages = 0, len(depths)
    for stage in range(stages):  # one stage as a model of its own that begins with its channels
        scale = 2**stage
        height, width, channels = arguments["input_shape"]
        counts = counted(
            **arguments
            | {
                "input_shape": (height // scale, width // scale, channels),
                "embed_dim": arguments["embed_dim"] * scale,
                "depths": (1,),
                "num_heads": arguments["num_heads"][stage : stage + 1],
            }
        )
        total += counts["stage_0_block_0"] * depths[stage]
        if stage == 0:
            total += counts["patch_embedding"] + counts["patch_norm"]
        if stage < stages - 1:
            dim = arguments["embed_dim"] * scale
            total += 2 * 4 * dim + 4 * dim * 2 * dim
        else:
            total += counts["stage_0_norm"] + counts["logits"]
    assert total == variants()[name].parameters


@pytest.mark.parametrize(("tokens", "millions"), [(1, 36.52), (5, 45.25), (10, 72.56)])
def test_counts_of_glam_are_those_of_the_reference_without_what_has_no_effect(tokens, millions):
    ours, plain = variants()[f"glam_swin_t_{tokens}"], variants()["swin_t"]
    channels = [96 * 2**stage for stage in range(4)]
    positions = ours.arguments["global_positions"]
    attention = [4 * (dim**2 + dim) for dim in channels]
    backbone = plain.parameters - 1000 * 769 + 2 * sum(channels[:3])
    stages = zip(channels, positions, attention, plain.arguments["depths"], strict=True)
    assert ours.parameters == backbone + sum(dim * (tokens + rows) + a * (depth - 1) for dim, rows, a, depth in stages)
    assert round((ours.parameters + sum(attention)) / 1e6, 2) == millions


def test_a_small_glam_has_the_parameters_of_the_formula():
    arguments = SMALL | {"global_tokens": 2, "global_positions": (99, 50), "features": True}
    with_tokens, without = (
        counted(input_shape=(12, 12, 3), num_classes=0, **arguments),
        counted(input_shape=(12, 12, 3), num_classes=0, features=True, **SMALL),
    )
    assert sum(with_tokens.values()) - sum(without.values()) == 4 * (2 + 99) + 8 * 2 + 4 * (4**2 + 4)


def test_features_are_the_stages_and_the_last_is_classified():
    model, logits = (Swin(IMAGES.shape[1:], 5, **SMALL, features=features) for features in (True, False))
    bare = Swin(IMAGES.shape[1:], 0, **SMALL)
    for other in (logits, bare):
        for layer in other.layers:
            layer.set_weights(model.get_layer(layer.name).get_weights())
    got = model.predict(IMAGES, verbose=0)
    assert {name: x.shape for name, x in got.items()} == {
        "logits": (2, 5),
        "stage_0": (2, 11, 8, 4),
        "stage_1": (2, 6, 4, 8),
    }
    np.testing.assert_allclose(got["logits"], logits.predict(IMAGES, verbose=0), atol=1e-6)
    np.testing.assert_allclose(got["stage_1"].mean(axis=(1, 2)), bare.predict(IMAGES, verbose=0), atol=1e-5)


def test_stochastic_depth_rises_over_all_stages():
    model = Swin((8, 8, 3), 5, **SMALL | {"depths": (2, 3), "drop_path": 0.4})
    shares = [model.get_layer(f"stage_{s}_block_{b}").drop_path for s, b in ((0, 0), (0, 1), (1, 0), (1, 1), (1, 2))]
    np.testing.assert_allclose(shares, [0, 0.1, 0.2, 0.3, 0.4])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_shape": (12, 8)}, r"input_shape \(12, 8\): give \(height, width, channels\)"),
        ({"num_classes": -1}, "num_classes -1: give 0 or more"),
        ({"depths": (2, 0)}, r"depths \(2, 0\): give 1 or more blocks"),
        ({"num_heads": (1,)}, r"num_heads \(1,\): give one number for each of 2 stages"),
        ({"num_heads": (0, 2)}, r"num_heads \(0, 2\): give divisors"),
        ({"num_heads": (3, 2)}, r"num_heads \(3, 2\): give divisors of the channels of the stages, \(4, 8\)"),
        ({"dropout": 1.0}, "dropout 1.0"),
        ({"global_positions": (4, 4)}, "belong to global tokens"),
        ({"global_positions": (4,), "global_tokens": 1}, r"global_positions \(4,\): give one number"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        Swin(**{"input_shape": (12, 8, 3), "num_classes": 5} | SMALL | arguments)
