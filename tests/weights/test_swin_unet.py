import keras
import numpy as np
import pytest

import kseq
from kseq.errors import InputError
from kseq.layers import NonLocalUpsampling
from kseq.models import SwinUnet
from kseq.weights import MismatchError, resample_positions
from kseq.weights.glam_swin_unet import upsampling_rules
from tests.weights.golden import close, read

POSITIONS = [(45 // 2**stage) ** 2 for stage in range(4)]
GOLDEN = {  # arguments beside the sizes, and the layer of ours behind each stage
    "swin_unet": (
        {},
        {
            "patch_embed": "patch_norm",
            "encoder_stage_0": "stage_0_merging",
            "bottleneck_norm": "stage_3_norm",
            "decoder_expand": "decoder_stage_2_expanding",
            "decoder_stage_1": "decoder_stage_1_expanding",
            "norm_up": "decoder_norm",
            "final_expand": "final_expanding",
        },
    ),
    "glam_swin_unet_2d": (
        {"global_tokens": 1, "global_positions": POSITIONS},
        {
            "encoder_stage_0": "stage_0_merging",
            "encoder_stage_1": "stage_1_merging",
            "bottleneck_norm": "stage_3_norm",
            "decoder_expand": "decoder_stage_2_expanding",
            "decoder_stage_1": "decoder_stage_1_expanding",
            "norm_up": "decoder_norm",
        },
    ),
    "glam_swin_unet_nlu_2d": (
        {"global_tokens": 1, "global_positions": POSITIONS, "upsampling": "non_local", "legacy": True},
        {
            "bottleneck_norm": "stage_3_norm",
            "nlu_0": "decoder_stage_2_upsampling",
            "decoder_stage_0": "decoder_stage_2_block_0",
            "norm_up": "decoder_norm",
        },
    ),
}


def build(meta, **arguments):
    config = meta["config"]
    sizes = {name: config[name] for name in ("embed_dim", "depths", "num_heads", "window_size", "patch_size")}
    return SwinUnet((64, 64, 3), config["num_classes"], **sizes | arguments)


def close_to_scale(got, expected):
    scale = np.abs(expected).max()
    close(got / scale, expected / scale)


@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name):
    state, arrays, meta = read(name)
    arguments, stages = GOLDEN[name]
    model = build(meta, **arguments)
    prefix = "" if name == "swin_unet" else "backbone.swin_unet."  # as mmsegmentation writes them
    kseq.weights.load(model, {prefix + key: tensor for key, tensor in state.items()})
    outputs = {"output": model.output} | {stage: model.get_layer(layer).output for stage, layer in stages.items()}
    outputs = {key: x[0] if isinstance(x, (list, tuple)) else x for key, x in outputs.items()}
    got = keras.Model(model.input, outputs).predict(np.moveaxis(arrays["input"], 1, -1), verbose=0)
    close_to_scale(got["output"], np.moveaxis(arrays["output"], 1, -1))
    for stage in stages:
        expected = arrays[f"stage/{stage}"]
        if expected.ndim == 4:
            expected = np.moveaxis(expected, 1, -1)
        close_to_scale(got[stage].reshape(expected.shape), expected)


def test_golden_non_local_upsampling():
    state, arrays, meta = read("glam_nlu_block_2d")
    sizes = meta["config"]
    layer = NonLocalUpsampling(sizes["num_heads"], sizes["window_size"], legacy=True)
    x, skip = arrays["input"].reshape(1, 8, 8, 16), arrays["input_2"].reshape(1, 16, 16, 8)
    layer.build(x.shape, skip.shape)
    for rule in upsampling_rules(layer, "block"):
        (name,) = rule.sources
        rule.variable.assign(rule.convert(state[name.removeprefix("block.")]))
    close_to_scale(keras.ops.convert_to_numpy(layer(x, skip)), arrays["output"].reshape(skip.shape))
    close(layer.expanding(x), arrays["stage/expand"].reshape(skip.shape))
    np.testing.assert_array_equal(layer.index, state["attn.relative_position_index"])


def test_a_checkpoint_wants_the_model_that_it_comes_from():
    def small(**arguments):
        return SwinUnet((8, 8, 1), 2, patch_size=2, embed_dim=2, depths=(1, 1), num_heads=(1, 1), **arguments)

    plain, glam = (read(name)[0] for name in ("swin_unet", "glam_swin_unet_nlu_2d"))
    with pytest.raises(InputError, match="it has global tokens or non-local upsampling.*global_tokens=0"):
        kseq.weights.load(small(global_tokens=1), plain)
    with pytest.raises(InputError, match="it has no global tokens.*build it with global_tokens"):
        kseq.weights.load(small(), glam)
    with pytest.raises(InputError, match="position bias is that of the true offsets.*build it with legacy=True"):
        kseq.weights.load(small(global_tokens=1, upsampling="non_local"), glam)
    with pytest.raises(InputError, match="no kseq.models.SwinUnet"):
        kseq.weights.load(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]), plain)


def test_what_does_not_fit_is_named():
    state, _, meta = read("swin_unet")
    del state["layers.1.downsample.norm.bias"]
    state["layers_up.1.blocks.1.mlp.fc1.bias"] = np.zeros(3)
    with pytest.raises(MismatchError) as error:
        kseq.weights.load(build(meta), state)
    assert error.value.problems == {
        "missing": ["layers.1.downsample.norm.bias"],
        "extra": ["layers_up.1.blocks.1.mlp.fc1.bias"],
    }


def test_the_table_of_another_window_is_resampled():
    state, _, meta = read("swin_unet")
    model = build(meta, window_size=8)
    kseq.weights.load(model, state)
    for layer, module in (
        ("stage_1_block_1", "layers.1.blocks.1"),
        ("decoder_stage_0_block_1", "layers_up.3.blocks.1"),
    ):
        table = state[f"{module}.attn.relative_position_bias_table"]
        sides = [2 * side - 1 for side in (meta["config"]["window_size"], model.get_layer(layer).attention.window[0])]
        assert sides[0] != sides[1]
        expected = resample_positions(table, (sides[0],) * 2, (sides[1],) * 2)
        close(model.get_layer(layer).attention.table, expected)
