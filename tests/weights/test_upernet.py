"""UPerNet of mmsegmentation: its encoder from the fixtures, its heads beside the same in `torch.nn` by their names."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import kseq
from kseq.errors import InputError
from kseq.models import Swin, UPerNet
from kseq.weights import MismatchError
from kseq.weights.loading import LAYOUTS
from tests.conftest import torch_only
from tests.weights.golden import close, read

SWIN = {"embed_dim": 16, "depths": (2, 2), "num_heads": (2, 4), "window_size": 4, "features": True}
GLAM = SWIN | {"embed_dim": 12, "depths": (3, 2), "global_tokens": 2, "global_positions": (8100, 2025)}
SIZES = {"channels": 6, "pool_scales": (1, 3), "auxiliary_channels": 5}
CLASSES = 4


def conv_module(inputs, filters, size):
    parts = nn.Sequential()
    parts.add_module("conv", nn.Conv2d(inputs, filters, size, padding=size // 2, bias=False))
    parts.add_module("bn", nn.BatchNorm2d(filters))
    parts.add_module("activate", nn.ReLU())
    return parts


class Head(nn.Module):
    """`UPerHead` for two maps."""

    def __init__(self, dims):
        super().__init__()
        channels, scales = SIZES["channels"], SIZES["pool_scales"]
        self.psp_modules = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(scale), conv_module(dims[1], channels, 1)) for scale in scales
        )
        self.bottleneck = conv_module(dims[1] + len(scales) * channels, channels, 3)
        self.lateral_convs = nn.ModuleList([conv_module(dims[0], channels, 1)])
        self.fpn_convs = nn.ModuleList([conv_module(channels, channels, 3)])
        self.fpn_bottleneck = conv_module(2 * channels, channels, 3)
        self.conv_seg = nn.Conv2d(channels, CLASSES, 1)

    def forward(self, fine, coarse, size):
        def resized(x, size):
            return functional.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)

        pooled = [coarse, *(resized(module(coarse), coarse.shape[2:]) for module in self.psp_modules)]
        coarse = self.bottleneck(torch.cat(pooled, 1))
        fine = self.lateral_convs[0](fine) + resized(coarse, fine.shape[2:])
        fused = torch.cat([self.fpn_convs[0](fine), resized(coarse, fine.shape[2:])], 1)
        return resized(self.conv_seg(self.fpn_bottleneck(fused)), size)


class Auxiliary(nn.Module):
    """`FCNHead` of one convolution."""

    def __init__(self, dim):
        super().__init__()
        self.convs = nn.ModuleList([conv_module(dim, SIZES["auxiliary_channels"], 3)])
        self.conv_seg = nn.Conv2d(SIZES["auxiliary_channels"], CLASSES, 1)

    def forward(self, x):
        return self.conv_seg(self.convs[0](x))


def random_head(module):
    """With running statistics of their own."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.5)
            if name.endswith("running_var"):
                tensor.abs_().add_(0.3)
    return module.eval()


@pytest.fixture(params=["swin", "glam_swin"])
def case(request):
    """Name, tensors, heads in `torch.nn`, a maker of the encoder, and images."""
    if request.param == "swin":
        state, arrays, _ = read("swin_microsoft")
        state = {name.replace("norm.", "norm1.") if name.startswith("norm.") else name: state[name] for name in state}
        state = {name: tensor for name, tensor in state.items() if not name.startswith("head.")}
        state |= {"norm0.weight": np.linspace(0.5, 2, 16, dtype="float32"), "norm0.bias": np.ones(16, "float32")}
        sizes, shape = SWIN, (64, 64, 3)
    else:
        state, arrays, _ = read("glam_swin_2d")
        sizes, shape = GLAM, (40, 56, 3)
    dims = [sizes["embed_dim"], 2 * sizes["embed_dim"]]
    heads = random_head(Head(dims)), random_head(Auxiliary(dims[0]))
    whole = {f"backbone.{name}": tensor for name, tensor in state.items()}
    for prefix, head in zip(("decode_head.", "auxiliary_head."), heads, strict=True):
        whole |= {prefix + name: tensor.numpy() for name, tensor in head.state_dict().items()}
    return request.param, state, whole, heads, lambda: Swin(shape, 0, **sizes), np.moveaxis(arrays["input"], 1, -1)


def test_the_heads_are_those_of_the_reference(case):
    name, state, whole, heads, encoder, images = case
    assert next(layout.name for layout in LAYOUTS if layout.recognises(set(whole))) == f"upernet_{name}"
    model = UPerNet(encoder(), CLASSES, auxiliary=True, **SIZES)
    kseq.weights.load(model, {"state_dict": whole})
    alone = encoder()
    kseq.weights.load(alone, state)
    maps = [torch.tensor(np.moveaxis(y, -1, 1)) for y in alone.predict(images, verbose=0).values()]
    with torch.no_grad():
        logits, helper = heads[0](*maps, images.shape[1:3]), heads[1](maps[0])
    got = model.predict(images, verbose=0)
    close(got["logits"], np.moveaxis(logits.numpy(), 1, -1))
    close(got["auxiliary_0"], np.moveaxis(helper.numpy(), 1, -1))


@torch_only
def test_other_classes_and_no_auxiliary_head(case):
    _, _, whole, _, encoder, _ = case
    one = UPerNet(encoder(), CLASSES, auxiliary=True, **SIZES)
    kseq.weights.load(one, whole)
    two = UPerNet(encoder(), CLASSES + 1, **SIZES)
    with pytest.raises(MismatchError, match="conv_seg"):
        kseq.weights.load(two, whole)
    kseq.weights.load(two, whole, skip=("logits",))
    for layer in two.layers:
        if layer.name != "logits":
            for a, b in zip(layer.get_weights(), one.get_layer(layer.name).get_weights(), strict=True):
                np.testing.assert_array_equal(a, b)


def test_another_model_is_refused(case):
    name, _, whole, _, encoder, _ = case
    with pytest.raises(InputError, match=f"no kseq.models.UPerNet on .* upernet_{name} checkpoints belong"):
        kseq.weights.load(encoder(), whole)
