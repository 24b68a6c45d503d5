"""TransUNet of its authors: what the reference computes, from its weights; and the files from which it starts."""

import re

import keras
import numpy as np
import pytest

import kseq
from kseq.errors import InputError
from kseq.models import TransUNet, ViT
from kseq.weights import TransUnet, TransUnetJax
from tests.numpy_initializers import numpy_initializers
from tests.weights.golden import close, read

SMALL = {"embed_dim": 24, "depth": 2, "num_heads": 3, "mlp_ratio": 2, "decoder_channels": (16, 12, 8, 6)}
HYBRID = SMALL | {"resnet_width": 32, "resnet_depths": (1, 2, 1)}
STAGES = {  # of the reference, by the names of our layers
    "root_relu": "root",
    "stage_0_block_0_relu": "block1",
    "stage_2_block_0_relu": "hybrid",
    "dropout": "embeddings",
    "encoder_block_0": "encoder_layer_0",
    "encoder_norm": "encoder_norm",
    "bridge_relu": "conv_more",
    "decoder_0_relu_1": "decoder_block_0",
}


@pytest.fixture(autouse=True, scope="module")
def fast_building():
    with numpy_initializers():
        yield


@pytest.fixture(scope="module")
def hybrid():
    return TransUNet((64, 64, 3), 4, **HYBRID)


@pytest.mark.parametrize("kind", ["r50_vit", "vit"])
def test_golden(kind, hybrid):
    state, arrays, _ = read(f"transunet_{kind}")
    model = hybrid if kind == "r50_vit" else TransUNet((64, 64, 3), 4, hybrid=False, **SMALL)
    kseq.weights.load(model, {f"module.{name}": array for name, array in state.items()})
    names = [name for name, stage in STAGES.items() if f"stage/{stage}" in arrays]
    outputs = {name: model.get_layer(name).output for name in (*names, "logits")}
    got = keras.Model(model.input, outputs).predict(np.moveaxis(arrays["input"], 1, -1), verbose=0)
    for name, x in got.items():
        expected = arrays["output" if name == "logits" else f"stage/{STAGES[name]}"]
        scale = max(1, np.abs(expected).max())
        close((np.moveaxis(x, -1, 1) if x.ndim == 4 else x) / scale, expected / scale)


def test_every_parameter_comes_from_the_checkpoint(hybrid):
    rules = TransUnet().rules(hybrid, {})
    assert {id(rule.variable) for rule in rules} == {id(v) for v in hybrid.variables if "seed" not in v.path}


def in_google_names(state, heads, embed_dim):
    """The encoder of a TransUNet's state as the files of vision_transformer have it, by the names of `load_from`."""
    found = {"cls": np.zeros((1, 1, embed_dim)), "head/kernel": np.zeros((embed_dim, 7)), "head/bias": np.zeros(7)}
    for name, x in state.items():
        name = name.removeprefix("transformer.")
        if name == "embeddings.position_embeddings":
            x = np.concatenate([np.full((1, 1, embed_dim), 9.0), x], axis=1)
            found["Transformer/posembed_input/pos_embedding"] = x
        elif name.startswith("embeddings.patch_embeddings."):
            found[f"embedding/{'kernel' if x.ndim == 4 else 'bias'}"] = x.transpose(2, 3, 1, 0) if x.ndim == 4 else x
        elif name.startswith("embeddings.hybrid_model."):
            name = re.sub(r".*(body|root)\.", r"\1.", name)
            name = name.replace("root.conv", "conv_root").replace("root.gn", "gn_root").replace("body.", "")
            *path, part = name.replace("downsample", "conv_proj").split(".")
            if "gn" in path[-1]:
                found["/".join([*path, {"weight": "scale"}.get(part, part)])] = x.reshape(1, 1, 1, -1)
            else:
                found["/".join([*path, "kernel"])] = x.transpose(2, 3, 1, 0)
        elif name.startswith("encoder."):
            *path, part = name.replace("encoder.encoder_norm", "Transformer.encoder_norm").split(".")
            if path[0] == "encoder":
                modules = {"attention_norm": "LayerNorm_0", "ffn_norm": "LayerNorm_2"}
                modules |= {"ffn": "MlpBlock_3", "attn": "MultiHeadDotProductAttention_1"}
                modules |= {"fc1": "Dense_0", "fc2": "Dense_1"}
                path = ["Transformer", f"encoderblock_{path[2]}", *(modules.get(p, p) for p in path[3:])]
            if "Norm" in path[-1] or path[-1] == "encoder_norm":
                part = {"weight": "scale"}.get(part, part)
            elif part == "weight":
                part, x = "kernel", x.T
                if path[-1] in ("query", "key", "value"):
                    x = x.reshape(embed_dim, heads, -1)
                elif path[-1] == "out":
                    x = x.reshape(heads, -1, embed_dim)
            elif path[-1] in ("query", "key", "value"):
                x = x.reshape(heads, -1)
            found["/".join([*path, part])] = x
    return found


@pytest.mark.parametrize("kind", ["r50_vit", "vit"])
def test_google_files_fill_the_encoder_alone(kind):
    state, _, _ = read(f"transunet_{kind}")
    arguments = HYBRID if kind == "r50_vit" else SMALL | {"hybrid": False}
    ours, expected = (TransUNet((64, 64, 3), 4, **arguments) for _ in range(2))
    kseq.weights.load(expected, state)
    before = {layer.name: layer.get_weights() for layer in ours.layers}
    kseq.weights.load(ours, in_google_names(state, 3, 24), None if kind == "r50_vit" else "transunet_jax")
    for layer in ours.layers:
        is_decoder = re.match("bridge|decoder|logits", layer.name)
        wanted = before[layer.name] if is_decoder else expected.get_layer(layer.name).get_weights()
        for got, value in zip(layer.get_weights(), wanted, strict=True):
            np.testing.assert_array_equal(got, value)


def test_positions_are_resampled():
    state, _, _ = read("transunet_vit")
    model = TransUNet((32, 96, 3), 4, hybrid=False, **SMALL)
    kseq.weights.load(model, state)
    old = state["transformer.embeddings.position_embeddings"][0]
    expected = kseq.weights.resample_positions(old, (4, 4), (2, 6), 0, "bilinear")
    np.testing.assert_allclose(model.get_layer("position_encoding").get_weights()[0], expected, atol=1e-6)


@pytest.mark.parametrize("layout", [TransUnet(), TransUnetJax()])
def test_other_models_are_refused(layout):
    with pytest.raises(InputError, match="no kseq.models.TransUNet"):
        layout.rules(ViT((64, 64, 3), 5, embed_dim=24, depth=2, num_heads=3), {})
