"""Outputs of torch's attention and transformers, from their weights: the golden files, and modules made here."""

import keras
import numpy as np
import pytest

import kseq
from kseq.errors import InputError
from kseq.layers import MultiHeadAttention, TransformerDecoderBlock, TransformerEncoderBlock
from tests.weights.golden import close, read

RANDOM = np.random.default_rng(0)


def numbers(*shape):
    return RANDOM.normal(size=shape).astype("float32")


def torch_module(module):
    """A module in evaluation whose parameters are all random, also biases and normalisations; no fast path."""
    import torch

    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    torch.backends.mha.set_fastpath_enabled(False)
    return module.eval()


def run_torch(module, *inputs, **arguments):
    import torch

    with torch.no_grad():
        return module(
            *map(torch.from_numpy, inputs), **{name: torch.from_numpy(mask) for name, mask in arguments.items()}
        )


@pytest.mark.parametrize("name", ["torch_mha", "torch_mha_kvdim"])
def test_golden_attention(name):
    state, arrays, meta = read(name)
    query, key, value = arrays["query"], arrays["key"], arrays["value"]
    layer = MultiHeadAttention(meta["config"]["num_heads"])
    kseq.weights.load(layer, state)  # which builds it
    output, weights = layer(
        query,
        value,
        key,
        key_mask=~arrays["key_padding_mask"],
        value_mask=~arrays["key_padding_mask"],
        attention_mask=~arrays["attn_mask"],
        return_attention_scores=True,
    )
    close(output, arrays["output"])
    close(weights, arrays["attention_weights"])
    close(layer(query, value, key), arrays["output_no_mask"])


def block_for(config, kind):
    return kind(
        config["nhead"],
        config["dim_feedforward"],
        norm_first=config["norm_first"],
        activation=config["activation"],
        epsilon=config["layer_norm_eps"],
    )


@pytest.mark.parametrize("name", ["post_relu", "pre_gelu"])
def test_golden_encoder_layer(name):
    state, arrays, meta = read(f"torch_encoder_layer_{name}")
    block = block_for(meta["config"], TransformerEncoderBlock)
    kseq.weights.load(block, state)
    x, mask = arrays["input"], ~arrays["src_key_padding_mask"]
    close(block(x, mask=mask, attention_mask=~arrays["causal_mask"]), arrays["output"])
    close(block(x, mask=mask, use_causal_mask=True), arrays["output"])
    close(block(x, mask=mask), arrays["output_padding_only"])
    close(block(x), arrays["output_no_mask"])


@pytest.mark.parametrize("name", ["post_relu", "pre_gelu"])
def test_golden_decoder_layer(name):
    state, arrays, meta = read(f"torch_decoder_layer_{name}")
    block = block_for(meta["config"], TransformerDecoderBlock)
    kseq.weights.load(block, state)
    x, memory = arrays["input"], arrays["memory"]
    masks = {"mask": ~arrays["tgt_key_padding_mask"], "memory_mask": ~arrays["memory_key_padding_mask"]}
    close(block(x, memory, **masks), arrays["output"])
    close(
        block(x, memory, **masks, attention_mask=~arrays["causal_mask"], use_causal_mask=False),
        arrays["output"],
    )
    close(block(x, memory, use_causal_mask=False), arrays["output_no_mask"])


@pytest.mark.parametrize(
    ("heads", "arguments"),
    [(1, {}), (4, {"bias": False}), (2, {"kdim": 3, "vdim": 5, "bias": False}), (4, {"kdim": 8, "vdim": 6})],
)
def test_attentions_of_other_sizes(heads, arguments):
    torch = pytest.importorskip("torch")
    module = torch_module(torch.nn.MultiheadAttention(8, heads, batch_first=True, **arguments))
    query, key, value = (
        numbers(2, 4, 8),
        numbers(2, 6, arguments.get("kdim", 8)),
        numbers(2, 6, arguments.get("vdim", 8)),
    )
    layer = MultiHeadAttention(heads, use_bias=arguments.get("bias", True))
    kseq.weights.load(layer, {f"encoder.attn.{name}": tensor for name, tensor in module.state_dict().items()})
    padding = np.arange(6)[None] >= np.array([[6], [4]])
    expected, _ = run_torch(module, query, key, value, key_padding_mask=padding)
    close(layer(query, value, key, key_mask=~padding, value_mask=~padding), expected.numpy())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("norm_first", [True, False])
def test_a_whole_encoder(norm_first, bias):
    torch = pytest.importorskip("torch")
    layer = torch.nn.TransformerEncoderLayer(
        8, 2, 12, activation="gelu", batch_first=True, norm_first=norm_first, bias=bias
    )
    norm = torch.nn.LayerNorm(8, bias=bias) if norm_first else None
    module = torch_module(torch.nn.TransformerEncoder(layer, 3, norm, enable_nested_tensor=False))
    blocks = [TransformerEncoderBlock(2, 12, norm_first=norm_first, epsilon=1e-5, use_bias=bias) for _ in range(3)]
    last = [keras.layers.LayerNormalization(epsilon=1e-5)] if norm_first else []
    model = keras.Sequential([*blocks, *last])
    assert not model.built
    kseq.weights.load(model, {f"encoder.{name}": tensor for name, tensor in module.state_dict().items()})
    x = numbers(2, 5, 8)
    close(model(x), run_torch(module, x).numpy())


def test_a_whole_decoder():
    torch = pytest.importorskip("torch")
    layer = torch.nn.TransformerDecoderLayer(8, 4, 12, batch_first=True)
    module = torch_module(torch.nn.TransformerDecoder(layer, 3, torch.nn.LayerNorm(8)))
    inputs, memory = keras.Input((None, 8)), keras.Input((None, 8))
    y = keras.layers.LayerNormalization()(inputs)  # stands in front, and keeps its weights
    for _ in range(3):
        y = TransformerDecoderBlock(4, 12, norm_first=False, activation="relu", epsilon=1e-5)(y, memory)
    y = keras.layers.LayerNormalization(epsilon=1e-5)(y)
    model = keras.Model([inputs, memory], y)
    kseq.weights.load(model, module.state_dict())
    assert model.layers[1].name.startswith("layer_normalization")
    np.testing.assert_array_equal(model.layers[1].get_weights(), [np.ones(8), np.zeros(8)])
    x, memory = numbers(2, 5, 8), numbers(2, 6, 8)
    normal = torch.nn.functional.layer_norm(torch.from_numpy(x), (8,), eps=1e-3).numpy()
    causal = np.triu(np.ones((5, 5), bool), 1)
    close(model([x, memory]), run_torch(module, normal, memory, tgt_mask=causal).numpy())


def test_an_encoder_layer_into_a_causal_block_without_memory():
    torch = pytest.importorskip("torch")
    module = torch_module(torch.nn.TransformerEncoderLayer(8, 2, 12, batch_first=True))
    block = TransformerDecoderBlock(2, 12, norm_first=False, activation="relu", epsilon=1e-5)
    kseq.weights.load(block, module.state_dict())
    x = numbers(2, 5, 8)
    close(block(x), run_torch(module, x, src_mask=np.triu(np.ones((5, 5), bool), 1)).numpy())


def attention(prefix="", dim=8):
    shapes = {"in_proj_weight": (3 * dim, dim), "in_proj_bias": (3 * dim,)}
    shapes |= {"out_proj.weight": (dim, dim), "out_proj.bias": (dim,)}
    return {prefix + name: numbers(*shape) for name, shape in shapes.items()}


def layer(prefix="", dim=8, hidden=12):
    tensors = attention(f"{prefix}self_attn.", dim)
    shapes = {"linear1.weight": (hidden, dim), "linear1.bias": (hidden,), "linear2.weight": (dim, hidden)}
    shapes |= {name: (dim,) for name in ("linear2.bias", "norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias")}
    return tensors | {prefix + name: numbers(*shape) for name, shape in shapes.items()}


def stack(count, **sizes):
    return {name: array for i in range(count) for name, array in layer(f"layers.{i}.", **sizes).items()}


def norm(name="norm"):
    return {f"{name}.weight": numbers(8), f"{name}.bias": numbers(8)}


def built(*layers, dim=8):
    return keras.Sequential([keras.Input((None, dim)), *layers])


def test_only_a_stack_has_a_last_normalisation():
    model = built(TransformerEncoderBlock(2, 12), keras.layers.LayerNormalization(name="last"))
    kseq.weights.load(model, layer())
    np.testing.assert_array_equal(model.get_layer("last").get_weights(), [np.ones(8), np.zeros(8)])
    last = norm()
    kseq.weights.load(model, stack(1) | last)
    np.testing.assert_array_equal(model.get_layer("last").get_weights(), list(last.values()))
    with pytest.raises(InputError, match="missing: norm.weight, norm.bias;"):
        kseq.weights.load(model, stack(1))
    kseq.weights.load(model, stack(1), skip="last")
    plain = built(TransformerEncoderBlock(2, 12), keras.layers.LayerNormalization(center=False))
    with pytest.raises(InputError, match="extra: norm.bias;"):
        kseq.weights.load(plain, stack(1) | last)


def test_a_checkpoint_that_does_not_fit_leaves_an_unbuilt_layer_unbuilt():
    for block, tensors in ((MultiHeadAttention(3, head_dim=4), attention()), (TransformerEncoderBlock(2, 9), layer())):
        with pytest.raises(InputError, match="wrong shape"):
            kseq.weights.load(block, tensors)
        assert not block.built
    with pytest.raises(InputError, match="not built.*call it on data first"):
        kseq.weights.load(keras.Sequential([keras.layers.Dense(8), TransformerEncoderBlock(2, 12)]), layer())


@pytest.mark.parametrize(
    ("make", "tensors", "message"),
    [
        (lambda: [MultiHeadAttention(2, use_bias=False)], attention(), "extra: in_proj_bias, out_proj.bias"),
        (lambda: [MultiHeadAttention(2)], attention(dim=6), r"in_proj_weight \(18, 6\) where \(24, 8\) is needed"),
        (lambda: [MultiHeadAttention(2)], attention() | {"bias_k": numbers(1, 1, 8)}, "add_bias_kv"),
        (lambda: [MultiHeadAttention(2)], attention("a.") | attention("b."), r"2 modules of attention \('a.', 'b.'\)"),
        (lambda: [MultiHeadAttention(2) for _ in range(2)], attention(), "has 2 attentions; load into one"),
        (lambda: [keras.layers.Dense(3)], attention(), "has no MultiHeadAttention or transformer block"),
        (
            lambda: [TransformerEncoderBlock(2, 12)],
            attention(),
            r"missing: .*, self_attn.in_proj_weight.*extra: in_proj",
        ),
        (
            lambda: [TransformerEncoderBlock(2, 12)],
            stack(2),
            r"extra: layers.1.self_attn.in_proj_weight, .* and 4 more",
        ),
        (
            lambda: [TransformerEncoderBlock(2, 12) for _ in range(2)],
            stack(1),
            "missing: layers.1.norm1.weight, .* and 4 more; nothing",
        ),
        (lambda: [TransformerEncoderBlock(2, 12)], stack(1) | norm(), "extra: norm.weight, norm.bias;"),
        (lambda: [TransformerEncoderBlock(2, 12)], layer() | norm("norm3"), "extra: norm3.weight, norm3.bias;"),
        (lambda: [TransformerEncoderBlock(2, 9)], layer(), r"linear1.weight \(12, 8\) where \(9, 8\) is needed"),
    ],
)
def test_what_cannot_correspond(make, tensors, message):
    with pytest.raises(InputError, match=message):
        kseq.weights.load(built(*make()), tensors)


def test_packed_weights_need_keys_of_the_size_of_the_query():
    layer = MultiHeadAttention(2)
    layer.build((None, None, 8), (None, None, 8), (None, None, 5))
    with pytest.raises(InputError, match=r"wrong shape: in_proj_weight \(24, 8\) where \(24, 5\) is needed"):
        kseq.weights.load(layer, attention())
