"""Swin transformers of Microsoft, timm, transformers and GLAM: what the references compute, from their weights."""

import re

import keras
import numpy as np
import pytest

import kseq
from kseq.errors import InputError
from kseq.models import Swin, ViT
from kseq.weights import MismatchError, resample_positions
from kseq.weights.loading import LAYOUTS
from tests.weights.golden import close, read

SMALL = {"embed_dim": 16, "depths": (2, 2), "num_heads": (2, 4), "window_size": 4}
GLAM = {"embed_dim": 12, "depths": (3, 2), "num_heads": (2, 4), "window_size": 4, "global_tokens": 2, "features": True}


def states(model, inputs, *names):
    """Outputs of the layers of these names, the map where there are tokens too."""
    outputs = {name: model.get_layer(name).output for name in names}
    outputs = {name: y[0] if isinstance(y, (tuple, list)) else y for name, y in outputs.items()}
    got = keras.Model(model.input, {"whole": model.output} | outputs).predict(inputs, verbose=0)
    return [got["whole"], *(got[name] for name in names)]


def layout_of(state):
    return next(layout.name for layout in LAYOUTS if layout.recognises(set(state)))


def test_golden_microsoft():
    state, arrays, _ = read("swin_microsoft")
    assert layout_of(state) == "swin_microsoft"
    model = Swin((64, 64, 3), 5, **SMALL)
    kseq.weights.load(model, state)
    names = ("patch_norm", "stage_0_block_0", "stage_0_block_1", "stage_0_merging", "stage_1_norm")
    logits, *maps = states(model, np.moveaxis(arrays["input"], 1, -1), *names)
    close(logits, arrays["output"])
    stages = ("patch_embed", "stage_0_block_0", "stage_0_block_1_shifted", "stage_0_after_merging", "norm")
    for got, stage in zip(maps, stages, strict=True):
        close(got.reshape(1, -1, got.shape[-1]), arrays[f"stage/{stage}"])


def test_golden_timm_with_padding():
    state, arrays, _ = read("swin_timm")
    assert layout_of(state) == "swin_timm"
    model = Swin((56, 56, 3), 5, **SMALL, legacy=True)  # which rolls before it fills up
    kseq.weights.load(model, state)
    names = ("patch_norm", "stage_0_block_1", "stage_1_block_1", "stage_1_norm")
    logits, *maps = states(model, np.moveaxis(arrays["input"], 1, -1), *names)
    close(logits, arrays["output"])
    for got, stage in zip(maps, ("patch_embed", "stage_0", "stage_1", "norm"), strict=True):
        close(got, arrays[f"stage/{stage}"])


@pytest.mark.parametrize("positions", [(8100, 2025), None], ids=["whole table", "middle of it"])
def test_golden_glam(positions):
    state, arrays, _ = read("glam_swin_2d")
    assert layout_of(state) == "glam_swin"
    model = Swin((40, 56, 3), 0, **GLAM, global_positions=positions)
    kseq.weights.load(model, state)
    names = ("stage_0_block_0", "stage_0_block_0_global_attention", "stage_0_block_1")
    names = (*names, "stage_0_block_1_global_attention")
    maps, *inner = states(model, np.moveaxis(arrays["input"], 1, -1), *names)
    for stage in (0, 1):
        close(maps[f"stage_{stage}"], np.moveaxis(arrays[f"output_{stage}"], 1, -1))
    for name, got in zip(names, inner, strict=True):
        close(got.reshape(1, -1, 12), arrays[f"stage/{name}"])


def as_transformers(state, names):
    """The tensors of Microsoft under the names that transformers has in files or in memory."""
    on_disk = names == "on disk"
    renamed = {}
    for name, tensor in state.items():
        if name.endswith(("relative_position_index", "attn_mask")):
            continue
        for old, new in (
            (r"^patch_embed\.proj", "embeddings.patch_embeddings.projection"),
            (r"^patch_embed\.norm", "embeddings.norm"),
            (r"^layers", "encoder.layers"),
            (r"^norm\.", "layernorm."),
            (r"\.norm1", ".layernorm_before"),
            (r"\.norm2", ".layernorm_after"),
            (r"attn\.relative", "attention.self.relative" if on_disk else "attention.relative_position_bias.relative"),
            (r"attn\.proj", "attention.output.dense" if on_disk else "attention.o_proj"),
            (r"mlp\.fc1", "intermediate.dense" if on_disk else "mlp.fc1"),
            (r"mlp\.fc2", "output.dense" if on_disk else "mlp.fc2"),
        ):
            name = re.sub(old, new, name)
        if name.startswith("head"):
            renamed[name.replace("head", "classifier")] = tensor
        elif "attn.qkv" in name:
            for part, rows in zip(("query", "key", "value"), np.split(tensor, 3), strict=True):
                ours = f"attention.self.{part}" if on_disk else f"attention.{part[0]}_proj"
                renamed["swin." + name.replace("attn.qkv", ours)] = rows
        else:
            renamed["swin." + name] = tensor
    return renamed


@pytest.mark.parametrize("names", ["on disk", "in memory"])
def test_transformers(names):
    state, *_ = read("swin_microsoft")
    again = as_transformers(state, names)
    assert layout_of(again) == "swin_transformers"
    one, two = (Swin((64, 64, 3), 5, **SMALL) for _ in range(2))
    kseq.weights.load(one, state)
    kseq.weights.load(two, again)
    for a, b in zip(one.get_weights(), two.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_another_window_and_grid_are_resampled():
    state, *_ = read("swin_microsoft")
    table = state["layers.0.blocks.0.attn.relative_position_bias_table"]
    positions = np.random.default_rng(0).normal(size=(1, 256, 16)).astype("float32")
    model = Swin((48, 64, 3), 5, **SMALL | {"window_size": 5}, absolute_positions=True)
    kseq.weights.load(model, state | {"absolute_pos_embed": positions})
    ours = keras.ops.convert_to_numpy(model.get_layer("stage_0_block_0").attention.table)
    np.testing.assert_allclose(ours, resample_positions(table, (7, 7), (9, 9)), atol=1e-6)
    np.testing.assert_allclose(ours[40], table[24], atol=0.1)  # the middle is the middle
    (ours,) = model.get_layer("position_encoding").get_weights()
    np.testing.assert_allclose(ours, resample_positions(positions[0], (16, 16), (12, 16)), atol=1e-6)


def test_a_classifier_into_a_backbone_and_the_backbone_of_a_detector():
    state, *_ = read("swin_microsoft")
    model = Swin((64, 64, 3), 0, **SMALL, features=True)
    bare = {name: x for name, x in state.items() if not name.startswith("head")}
    kseq.weights.load(model, bare)
    np.testing.assert_array_equal(model.get_layer("stage_1_norm").get_weights()[0], state["norm.weight"])
    np.testing.assert_array_equal(model.get_layer("stage_0_norm").get_weights()[0], np.ones(16))
    norms = {f"norm{i}.{part}": np.full(16 * 2**i, i + 3.0) for i in (0, 1) for part in ("weight", "bias")}
    kseq.weights.load(model, {name: x for name, x in bare.items() if not name.startswith("norm.")} | norms)
    for i in (0, 1):
        np.testing.assert_array_equal(model.get_layer(f"stage_{i}_norm").get_weights()[1], norms[f"norm{i}.bias"])


def test_checkpoints_that_do_not_fit():
    state, *_ = read("swin_microsoft")
    model = Swin((64, 64, 3), 7, **SMALL)
    with pytest.raises(MismatchError, match=r"wrong shape: head.weight \(5, 32\) where \(7, 32\) is needed"):
        kseq.weights.load(model, state)
    kseq.weights.load(model, state, skip="logits")
    with pytest.raises(MismatchError, match=r"extra: layers.1.blocks.1.norm1.weight"):
        kseq.weights.load(Swin((64, 64, 3), 5, **SMALL | {"depths": (2, 1)}), state)
    with pytest.raises(InputError, match=r"no kseq.models.Swin, to which swin_microsoft checkpoints belong"):
        kseq.weights.load(ViT((8, 8, 3), 5, patch_size=4, embed_dim=4, depth=1, num_heads=1), state)
    state["layers.0.blocks.0.attn.relative_position_bias_table"] = np.zeros((48, 2))
    with pytest.raises(InputError, match="48 rows are no table of equal sides"):
        kseq.weights.load(Swin((64, 64, 3), 5, **SMALL), state)
    state, *_ = read("glam_swin_2d")
    state["layers.1.pe"] = state["layers.1.pe"][:7]
    with pytest.raises(InputError, match=r"layers.1.pe: 7 positions, where the model has 8 global tokens"):
        kseq.weights.load(Swin((40, 56, 3), 0, **GLAM), state)
