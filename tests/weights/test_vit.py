"""Vision transformers of timm, transformers, torchvision and JAX: what the references compute, from their weights.

timm and transformers are golden files; torchvision and the JAX models are stated here once more, by their own names.
"""

import keras
import numpy as np
import pytest
from scipy import ndimage, special

import kseq
from kseq.errors import InputError
from kseq.models import ViT
from kseq.weights import MismatchError, VitJax, VitTimm, VitTorchvision, VitTransformers, resample_positions
from tests.weights.golden import close, read

SMALL = {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}


def images(*shape):
    return np.random.default_rng(1).normal(size=shape).astype("float32")


def weights_of(model):
    return {layer.name: [weight.copy() for weight in layer.get_weights()] for layer in model.layers}


def is_kept(model, before, name):
    return all(map(np.array_equal, model.get_layer(name).get_weights(), before[name]))


def random_checkpoint(layout, model):
    """Numbers for all tensors that the layout wants for the model."""
    random = np.random.default_rng(0)
    shapes = {name: shape for rule in layout.rules(model, {}) for name, shape in rule.sources.items()}
    return {name: (0.3 * random.normal(size=shape)).astype("float32") for name, shape in shapes.items()}


def states(model, inputs, *names):
    """Outputs of the layers of these names."""
    outputs = keras.Model(model.input, {name: model.get_layer(name).output for name in names})(inputs)
    return [outputs[name] for name in names]


def test_golden_timm():
    state, arrays, _ = read("vit_timm")
    model = ViT((32, 32, 3), 5, **SMALL, features=True)
    kseq.weights.load(model, state)
    inputs = np.moveaxis(arrays["input"], 1, -1)
    outputs = model(inputs)
    close(outputs["logits"], arrays["output"])
    close(outputs["block_0"], arrays["stage/block_0"][:, 1:].reshape(1, 4, 4, 24))
    close(outputs["patches"], arrays["stage/norm"][:, 1:].reshape(1, 4, 4, 24))
    for got, stage in zip(
        states(model, inputs, "tokens", "encoder_block_0", "encoder_norm"),
        ("patch_embed", "block_0", "norm"),
        strict=True,
    ):
        close(got, arrays[f"stage/{stage}"])


@pytest.mark.parametrize("names", ["on disk", "in memory"])
def test_golden_transformers(names):
    state, arrays, meta = read("vit_transformers")
    if names == "on disk":
        state = {meta["checkpoint_file_names"][name]: array for name, array in state.items()}
        assert "vit.encoder.layer.1.attention.attention.query.weight" in state
    model = ViT((32, 32, 3), 5, **SMALL, epsilon=1e-12)
    kseq.weights.load(model, state)
    inputs = np.moveaxis(arrays["input"], 1, -1)
    close(model(inputs), arrays["output"])
    embeddings, last = states(model, inputs, "position_encoding", "encoder_norm")
    close(embeddings, arrays["stage/embeddings"])
    close(last, arrays["stage/layernorm"])

    bare = {name.removeprefix("vit."): array for name, array in state.items() if name.startswith("vit.")}
    bare |= {"pooler.dense.weight": np.zeros((24, 24)), "pooler.dense.bias": np.zeros(24)}
    again = ViT((32, 32, 3), 5, **SMALL, epsilon=1e-12)
    before = weights_of(again)
    with pytest.raises(MismatchError, match="missing: classifier.weight, classifier.bias; nothing"):
        kseq.weights.load(again, bare)
    kseq.weights.load(again, bare, skip="logits")
    close(*states(again, inputs, "encoder_norm"), arrays["stage/layernorm"])
    assert is_kept(again, before, "logits")


def torchvision_vit(torch, image, patch, channels, dim, depth, heads, hidden, classes):
    """The modules of torchvision's VisionTransformer by their names."""

    class Block(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.ln_1 = torch.nn.LayerNorm(dim, eps=1e-6)
            self.self_attention = torch.nn.MultiheadAttention(dim, heads, batch_first=True)
            self.ln_2 = torch.nn.LayerNorm(dim, eps=1e-6)
            linear, gelu, drop = torch.nn.Linear, torch.nn.GELU(), torch.nn.Dropout(0.0)
            self.mlp = torch.nn.Sequential(linear(dim, hidden), gelu, drop, linear(hidden, dim), drop)

        def forward(self, x):
            y = self.ln_1(x)
            x = x + self.self_attention(y, y, y, need_weights=False)[0]
            return x + self.mlp(self.ln_2(x))

    class Encoder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.pos_embedding = torch.nn.Parameter(torch.randn(1, 1 + (image // patch) ** 2, dim))
            self.layers = torch.nn.Sequential()
            for i in range(depth):
                self.layers.add_module(f"encoder_layer_{i}", Block())
            self.ln = torch.nn.LayerNorm(dim, eps=1e-6)

        def forward(self, x):
            return self.ln(self.layers(x + self.pos_embedding))

    class VisionTransformer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv_proj = torch.nn.Conv2d(channels, dim, patch, patch)
            self.class_token = torch.nn.Parameter(torch.randn(1, 1, dim))
            self.encoder = Encoder()
            self.heads = torch.nn.Sequential()
            self.heads.add_module("head", torch.nn.Linear(dim, classes))

        def forward(self, x):
            x = self.conv_proj(x).flatten(2).mT
            x = torch.cat([self.class_token.expand(len(x), -1, -1), x], dim=1)
            return self.heads(self.encoder(x)[:, 0])

    torch.manual_seed(0)
    module = VisionTransformer().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module


@pytest.mark.parametrize("names", ["new", "old"])
def test_torchvision(names):
    torch = pytest.importorskip("torch")
    module = torchvision_vit(torch, 12, 4, 2, 8, depth=3, heads=4, hidden=20, classes=6)
    state = module.state_dict()
    if names == "old":
        state = {name.replace("mlp.0", "mlp.linear_1").replace("mlp.3", "mlp.linear_2"): x for name, x in state.items()}
        assert "encoder.layers.encoder_layer_2.mlp.linear_2.bias" in state
    model = ViT((12, 12, 2), 6, patch_size=4, embed_dim=8, depth=3, num_heads=4, mlp_ratio=2.5)
    kseq.weights.load(model, state)
    x = images(2, 12, 12, 2)
    with torch.no_grad():
        expected = module(torch.from_numpy(np.moveaxis(x, -1, 1).copy()))
    close(model(x), expected.numpy())


JAX = {  # of each generation of files: attention, second norm and MLP of a block; where the positions are
    "vision_transformer": ("_1", "_2", "_3", "Transformer/posembed_input/pos_embedding"),
    "big_vision": ("_0", "_1", "_0", "pos_embedding"),
    "big_vision before 2022": ("_0", "_1", "_0", "Transformer/pos_embedding"),
}
DIM, HEADS, HIDDEN, PATCH, CLASSES = 12, 3, 24, 4, 5


def jax_checkpoint(generation, depth=2, grid=3, pooling="token"):
    """Random tensors with the names and shapes of that generation of files."""
    attention, norm, mlp, positions = JAX[generation]
    has_row = pooling == "token" and generation != "big_vision"  # of the class token in the positions
    shapes = {"embedding/kernel": (PATCH, PATCH, 2, DIM), "embedding/bias": (DIM,)}
    shapes |= {"cls": (1, 1, DIM)} if pooling == "token" else {}
    shapes |= {positions: (1, has_row + grid**2, DIM)}
    for i in range(depth):
        block = f"Transformer/encoderblock_{i}"
        for name in ("LayerNorm_0", f"LayerNorm{norm}"):
            shapes |= {f"{block}/{name}/scale": (DIM,), f"{block}/{name}/bias": (DIM,)}
        for part in ("query", "key", "value"):
            name = f"{block}/MultiHeadDotProductAttention{attention}/{part}"
            shapes |= {f"{name}/kernel": (DIM, HEADS, DIM // HEADS), f"{name}/bias": (HEADS, DIM // HEADS)}
        name = f"{block}/MultiHeadDotProductAttention{attention}/out"
        shapes |= {f"{name}/kernel": (HEADS, DIM // HEADS, DIM), f"{name}/bias": (DIM,)}
        name = f"{block}/MlpBlock{mlp}"
        shapes |= {f"{name}/Dense_0/kernel": (DIM, HIDDEN), f"{name}/Dense_0/bias": (HIDDEN,)}
        shapes |= {f"{name}/Dense_1/kernel": (HIDDEN, DIM), f"{name}/Dense_1/bias": (DIM,)}
    shapes |= {"Transformer/encoder_norm/scale": (DIM,), "Transformer/encoder_norm/bias": (DIM,)}
    shapes |= {"head/kernel": (DIM, CLASSES), "head/bias": (CLASSES,)}
    random = np.random.default_rng(0)
    return {name: (0.4 * random.normal(size=shape)).astype("float32") for name, shape in shapes.items()}


def jax_logits(x, p, generation, depth=2):
    """What the JAX models compute, with their GELU, which is the tanh form."""
    attention, norm, mlp, positions = JAX[generation]

    def layer_norm(x, name):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        return x * p[f"{name}/scale"] + p[f"{name}/bias"]

    def heads(x, name):
        return np.einsum("btd,dhk->bhtk", x, p[f"{name}/kernel"]) + p[f"{name}/bias"][:, None]

    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // PATCH, PATCH, width // PATCH, PATCH, channels)
    x = np.einsum("bhpwqc,pqcd->bhwd", x, p["embedding/kernel"]).reshape(batch, -1, DIM) + p["embedding/bias"]
    is_for_patches = p[positions].shape[1] == x.shape[1]
    x = x + p[positions] if is_for_patches else x
    x = np.concatenate([np.repeat(p["cls"], batch, axis=0), x], axis=1) if "cls" in p else x
    x = x if is_for_patches else x + p[positions]
    for i in range(depth):
        block = f"Transformer/encoderblock_{i}"
        name, y = f"{block}/MultiHeadDotProductAttention{attention}", layer_norm(x, f"{block}/LayerNorm_0")
        q, k, v = (heads(y, f"{name}/{part}") for part in ("query", "key", "value"))
        weights = special.softmax(q @ k.swapaxes(-1, -2) / np.sqrt(DIM // HEADS), axis=-1)
        x = x + np.einsum("bhtk,hkd->btd", weights @ v, p[f"{name}/out/kernel"]) + p[f"{name}/out/bias"]
        name, y = f"{block}/MlpBlock{mlp}", layer_norm(x, f"{block}/LayerNorm{norm}")
        y = y @ p[f"{name}/Dense_0/kernel"] + p[f"{name}/Dense_0/bias"]
        y = y * 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (y + 0.044715 * y**3)))
        x = x + y @ p[f"{name}/Dense_1/kernel"] + p[f"{name}/Dense_1/bias"]
    x = layer_norm(x, "Transformer/encoder_norm")
    return (x[:, 0] if "cls" in p else x.mean(axis=1)) @ p["head/kernel"] + p["head/bias"]


def jax_model(size=12, classes=CLASSES, **arguments):
    sizes = {"patch_size": PATCH, "embed_dim": DIM, "depth": 2, "num_heads": HEADS, "mlp_ratio": HIDDEN / DIM}
    return ViT((size, size, 2), classes, activation="gelu_tanh", **(sizes | arguments))


@pytest.mark.parametrize("pooling", ["token", "mean"])
@pytest.mark.parametrize("generation", JAX)
def test_jax(generation, pooling, tmp_path):
    tensors, x = jax_checkpoint(generation, pooling=pooling), images(2, 12, 12, 2)
    np.savez(tmp_path / "vit.npz", **tensors)
    model = jax_model(pooling=pooling)
    kseq.weights.load(model, tmp_path / "vit.npz")
    close(model(x), jax_logits(x, tensors, generation))


def test_jax_weights_in_a_training_state():
    tensors, x = jax_checkpoint("big_vision"), images(1, 12, 12, 2)
    for prefix, others in (("params/", ("opt/0/count", "chrono/step")), ("opt/target/", ("opt/state/step",))):
        model = jax_model()
        state = {prefix + name: array for name, array in tensors.items()}
        kseq.weights.load(model, state | {name: np.array(3) for name in others})
        close(model(x), jax_logits(x, tensors, "big_vision"))


def test_a_layer_between_encoder_and_head_goes_with_the_head():
    tensors = jax_checkpoint("vision_transformer")
    tensors |= {"pre_logits/kernel": np.zeros((DIM, DIM)), "pre_logits/bias": np.zeros(DIM)}
    model = jax_model(classes=9)
    with pytest.raises(MismatchError, match=r"extra: pre_logits/kernel, pre_logits/bias; wrong shape: head/kernel"):
        kseq.weights.load(model, tensors)
    kseq.weights.load(model, tensors, skip=("logits",))
    x = images(1, 12, 12, 2)
    tensors["head/kernel"], tensors["head/bias"] = model.get_layer("logits").get_weights()
    close(model(x), jax_logits(x, tensors, "vision_transformer"))


@pytest.mark.parametrize("layout", [VitTimm, VitTransformers, VitTorchvision, VitJax])
def test_positions_of_another_grid_are_resampled(layout):
    """Those of the class token stay; each layout in the way of its library, or in that which the user chooses."""
    square, wide = (ViT((size, 16, 1), 3, patch_size=4, embed_dim=8, depth=1, num_heads=2) for size in (16, 24))
    tensors = random_checkpoint(layout(), square)
    (name,) = (name for name, array in tensors.items() if array.shape == (1, 17, 8))
    table = tensors[name][0]
    bicubic = resample_positions(table, (4, 4), (6, 4), 1)
    bilinear = ndimage.zoom(table[1:].reshape(4, 4, 8), (1.5, 1, 1), order=1).reshape(24, 8)
    bilinear = np.concatenate([table[:1], bilinear])
    assert np.abs(bicubic - bilinear).max() > 0.01
    for chosen, expected in (
        (None, bilinear if layout is VitJax else bicubic),
        (layout(interpolation="bicubic"), bicubic),
        (layout(interpolation="bilinear"), bilinear),
    ):
        kseq.weights.load(wide, tensors, chosen)
        close(wide.get_layer("position_encoding").table, expected, 1e-6)
    kseq.weights.load(square, tensors)
    np.testing.assert_array_equal(square.get_layer("position_encoding").get_weights()[0], table)


def test_as_many_positions_are_not_resampled():
    """A table of 4 × 9 positions for a model of 4 × 9, though 36 is a square too."""
    model = ViT((4, 9, 1), 3, patch_size=1, embed_dim=8, depth=1, num_heads=2)
    tensors = random_checkpoint(VitTimm(), model)
    kseq.weights.load(model, tensors)
    np.testing.assert_array_equal(model.get_layer("position_encoding").get_weights()[0], tensors["pos_embed"][0])


@pytest.mark.parametrize("size", [12, 20])
def test_positions_without_one_for_the_class_token(size):
    """They are added before it is put in front, so its row is 0; also behind another grid."""
    tensors, model = jax_checkpoint("big_vision"), jax_model(size)
    kseq.weights.load(model, tensors)
    table = model.get_layer("position_encoding").get_weights()[0]
    grid = size // PATCH
    np.testing.assert_array_equal(table[0], np.zeros(DIM))
    expected = resample_positions(tensors["pos_embedding"][0], (3, 3), (grid, grid), 0, "bilinear")
    np.testing.assert_array_equal(table[1:], expected)


def test_positions_that_are_no_square():
    model = jax_model()
    before = weights_of(model)
    tensors = jax_checkpoint("vision_transformer") | {JAX["vision_transformer"][3]: np.zeros((1, 13, DIM))}
    with pytest.raises(
        InputError, match=r"posembed_input/pos_embedding: 12 positions are no grid of equal sides.*\(3, 3\)"
    ):
        kseq.weights.load(model, tensors)
    assert all(is_kept(model, before, name) for name in before)
    kseq.weights.load(model, tensors, skip="position_encoding")
    assert is_kept(model, before, "position_encoding")
    assert not is_kept(model, before, "encoder_block_1")


def test_sinusoidal_positions_have_no_place_for_a_table():
    state, _, _ = read("vit_timm")
    model = ViT((32, 32, 3), 5, **SMALL, position="sinusoidal")
    with pytest.raises(MismatchError, match="extra: pos_embed; nothing"):
        kseq.weights.load(model, state)
    kseq.weights.load(model, state, skip="position_encoding")
    np.testing.assert_array_equal(model.get_layer("class_token").get_weights()[0], state["cls_token"])


def test_volumes():
    """A 3-D convolution over patches of unequal sides; positions of a cube."""
    torch = pytest.importorskip("torch")
    cube, model = (
        ViT(size, 3, patch_size=(2, 3, 4), embed_dim=12, depth=1, num_heads=2) for size in ((4, 6, 8, 2), (8, 9, 8, 2))
    )
    tensors = random_checkpoint(VitTimm(), cube)
    kernel, bias = tensors["patch_embed.proj.weight"], tensors["patch_embed.proj.bias"]
    assert kernel.shape == (12, 2, 2, 3, 4)
    kseq.weights.load(model, tensors)
    x = images(2, 8, 9, 8, 2)
    channels_first = torch.from_numpy(np.moveaxis(x, -1, 1).copy())
    expected = torch.nn.functional.conv3d(channels_first, *map(torch.from_numpy, (kernel, bias)), stride=(2, 3, 4))
    close(*states(model, x, "patch_embedding"), np.moveaxis(expected.numpy(), 1, -1))
    expected = resample_positions(tensors["pos_embed"][0], (2, 2, 2), (4, 3, 2), 1)
    close(model.get_layer("position_encoding").table, expected, 1e-6)


@pytest.mark.parametrize("prefix", ["module.", "backbone."])
def test_a_shared_prefix(prefix):
    state, arrays, _ = read("vit_timm")
    model = ViT((32, 32, 3), 5, **SMALL)
    kseq.weights.load(model, {prefix + name: array for name, array in state.items()})
    close(model(np.moveaxis(arrays["input"], 1, -1)), arrays["output"])


@pytest.mark.parametrize("layout", [VitTimm, VitTransformers, VitTorchvision, VitJax])
def test_other_classes_or_none(layout):
    old, model = (ViT((8, 8, 1), n, patch_size=4, embed_dim=8, depth=1, num_heads=2) for n in (3, 7))
    tensors, before = random_checkpoint(layout(), old), weights_of(model)
    head = {name for name, array in tensors.items() if 3 in array.shape}
    assert len(head) == 2
    with pytest.raises(MismatchError, match="wrong shape") as error:
        kseq.weights.load(model, tensors)
    assert {text.split()[0] for text in error.value.problems["wrong shape"]} == head
    assert all(is_kept(model, before, name) for name in before)
    for given in (tensors, {name: array for name, array in tensors.items() if name not in head}):
        kseq.weights.load(model, given, skip=["logits"])
        assert is_kept(model, before, "logits")
        assert not is_kept(model, before, "encoder_norm")


def test_all_that_differs_is_told_at_once():
    """Another width, number of blocks, patch, image and number of classes."""
    state, _, _ = read("vit_timm")
    model = ViT((20, 20, 3), 7, patch_size=4, embed_dim=36, depth=1, num_heads=2)
    before = weights_of(model)
    with pytest.raises(MismatchError) as error:
        kseq.weights.load(model, state)
    problems = error.value.problems
    assert set(problems) == {"extra", "wrong shape"}
    assert set(problems["extra"]) == {name for name in state if name.startswith("blocks.1.")}
    assert {text.split()[0] for text in problems["wrong shape"]} == set(state) - set(problems["extra"])
    assert "patch_embed.proj.weight (24, 3, 8, 8) where (36, 3, 4, 4) is needed" in problems["wrong shape"]
    assert "head.bias (5,) where (7,) is needed" in problems["wrong shape"]
    assert "pos_embed (1, 17, 24) where (1, 17, 36) is needed" in problems["wrong shape"]  # its grid may differ
    message = str(error.value)
    assert "extra: blocks.1.norm1.weight, " in message
    assert "… and 4 more; wrong shape: patch_embed.proj.weight (24, 3, 8, 8)" in message
    assert "… and 12 more; nothing was loaded, build the model with the sizes of the checkpoint" in message
    assert "\n" not in message
    assert len(message) < 1500
    assert all(is_kept(model, before, name) for name in before)


def test_more_blocks_than_the_checkpoint():
    state, _, _ = read("vit_timm")
    with pytest.raises(MismatchError) as error:
        kseq.weights.load(ViT((32, 32, 3), 5, **(SMALL | {"depth": 12})), state)
    assert {*error.value.problems} == {"missing"}
    assert len(error.value.problems["missing"]) == 10 * 12
    assert "blocks.2.norm1.weight, " in str(error.value)
    assert "… and 112 more" in str(error.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ViT((32, 32, 3), 5, **SMALL, pooling="mean"), "extra: cls_token; nothing"),
        (lambda: keras.layers.Dense(3), "no kseq.models.ViT, to which vit_timm checkpoints belong"),
    ],
)
def test_what_cannot_correspond(make, message):
    model = make()
    if not model.built:
        model.build((None, 2))
    with pytest.raises(InputError, match=message):
        kseq.weights.load(model, read("vit_timm")[0])


def test_a_normalisation_behind_the_mean_is_refused():
    state, _, _ = read("vit_timm")
    pooled = {name.replace("norm.", "fc_norm.") if name.startswith("norm.") else name: x for name, x in state.items()}
    with pytest.raises(
        InputError, match="fc_norm normalises the mean of the patches.*skip 'encoder_norm' and 'logits'"
    ):
        kseq.weights.load(ViT((32, 32, 3), 5, **SMALL), pooled)


def test_an_unknown_interpolation():
    with pytest.raises(InputError, match="interpolation 'nearest': choose 'bicubic' or 'bilinear'"):
        VitTimm(interpolation="nearest")
