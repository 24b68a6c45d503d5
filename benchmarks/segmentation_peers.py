"""The models of `segmentation.py` in plain PyTorch, channels first, as their originals are written."""

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional


def native_model(function: str, arguments: dict):
    """The same model as `kseq.models.<function>(**arguments)`; `None` if it is not here."""
    size = arguments["input_shape"][0]

    def convolutions(inputs, filters, count):
        """3 × 3, each with batch normalisation and ReLU."""
        parts = []
        for i in range(count):
            parts += [nn.Conv2d(filters if i else inputs, filters, 3, padding=1, bias=False)]
            parts += [nn.BatchNorm2d(filters), nn.ReLU(inplace=True)]
        return nn.Sequential(*parts)

    def resized(x, scale=2, align_corners=False):
        return functional.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=align_corners)

    def tokens(x):
        return x.flatten(2).transpose(1, 2)  # (batch, places, channels)

    def encoder(embed_dim, depth, num_heads):
        options = {"dropout": 0.0, "activation": "gelu", "batch_first": True, "norm_first": True}
        block = nn.TransformerEncoderLayer(embed_dim, num_heads, 4 * embed_dim, **options)
        return nn.TransformerEncoder(block, depth, nn.LayerNorm(embed_dim), enable_nested_tensor=False)

    class Gate(nn.Module):
        """Of a U-Transformer."""

        def __init__(self, side, dim, deep, heads):
            super().__init__()
            self.skip, self.deep = nn.Conv2d(dim, dim, 1, bias=False), nn.Conv2d(deep, dim, 1, bias=False)
            self.norms = nn.ModuleList(nn.BatchNorm2d(dim) for _ in range(3))
            self.register_buffer("positions", torch.randn(dim, side, side))
            self.attention = nn.MultiheadAttention(dim, heads, bias=False, batch_first=True)

        def forward(self, skip, deep):
            value = self.norms[0](self.skip(functional.max_pool2d(skip, 2))).relu() + self.positions
            query = self.norms[1](self.deep(deep)).relu() + self.positions
            query, value = tokens(query), tokens(value)
            y, _ = self.attention(query, query, value, need_weights=False)
            y = y.transpose(1, 2).unflatten(2, self.positions.shape[1:])
            return resized(self.norms[2](y).sigmoid())

    class UNet(nn.Module):
        """With `num_heads` the U-Transformer."""

        def __init__(self, channels, num_heads=0):
            super().__init__()
            self.encoder = nn.ModuleList(convolutions(a, b, 2) for a, b in pairwise((1, *channels)))
            self.decoder = nn.ModuleList(convolutions(2 * a, a, 2) for a in channels[:-1])
            self.ups = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, 2) for a, b in pairwise(channels))
            self.head = nn.Conv2d(channels[0], arguments["num_classes"], 1)
            self.attention, self.gates, dim = None, None, channels[-1]
            if num_heads:
                sides = [size // 2 ** (level + 1) for level in range(len(channels) - 1)]
                self.gates = nn.ModuleList(
                    Gate(side, a, b, num_heads) for side, (a, b) in zip(sides, pairwise(channels), strict=True)
                )
                self.attention = nn.MultiheadAttention(dim, num_heads, bias=False, batch_first=True)
                self.register_buffer("positions", torch.randn(dim, sides[-1], sides[-1]))

        def forward(self, x):
            skips = []
            for level, block in enumerate(self.encoder):
                x = block(functional.max_pool2d(x, 2) if level else x)
                skips.append(x)
            x = skips.pop()
            if self.gates:
                y = tokens(x + self.positions)
                y, _ = self.attention(y, y, y, need_weights=False)
                x = x + y.transpose(1, 2).unflatten(2, x.shape[2:])
            for level in reversed(range(len(skips))):
                skip = skips[level]
                skip = skip * self.gates[level](skip, x) if self.gates else skip
                x = self.decoder[level](torch.cat([skip, self.ups[level](x)], 1))
            return self.head(x)

    class SETR(nn.Module):
        def __init__(self, decoder, patch_size, channels, **sizes):
            super().__init__()
            dim, grid = sizes["embed_dim"], size // patch_size
            self.patches = nn.Conv2d(3, dim, patch_size, patch_size)
            self.token, self.positions = (nn.Parameter(torch.zeros(1, n, dim)) for n in (1, 1 + grid**2))
            self.encoder = encoder(**sizes)
            self.decoder = nn.ModuleList(convolutions(channels if i else dim, channels, 1) for i in range(4))
            self.head = nn.Conv2d(channels, arguments["num_classes"], 1)

        def forward(self, x):
            x = self.patches(x)
            grid = x.shape[2:]
            x = torch.cat([self.token.expand(len(x), -1, -1), tokens(x)], 1) + self.positions
            x = self.encoder(x)[:, 1:].transpose(1, 2).unflatten(2, grid)
            for step, block in enumerate(self.decoder):
                x = block(resized(x) if step else x)
            return resized(self.head(x), size // x.shape[-1])

    class Standardized(nn.Conv2d):
        def forward(self, x):
            variance, mean = torch.var_mean(self.weight, (1, 2, 3), keepdim=True, correction=0)
            return self._conv_forward(x, (self.weight - mean) * (variance + 1e-5).rsqrt(), None)

    def standardized(inputs, filters, kernel, stride=1, groups=32):
        convolution = Standardized(inputs, filters, kernel, stride, kernel // 2, bias=False)
        return nn.Sequential(convolution, nn.GroupNorm(groups, filters))

    class Bottleneck(nn.Module):
        def __init__(self, inputs, width, stride, first):
            super().__init__()
            self.convolutions = nn.Sequential(
                *(standardized(inputs, width, 1), nn.ReLU(inplace=True)),
                *(standardized(width, width, 3, stride), nn.ReLU(inplace=True)),
                standardized(width, 4 * width, 1),
            )
            self.shortcut = standardized(inputs, 4 * width, 1, stride, 4 * width) if first else nn.Identity()

        def forward(self, x):
            return (self.shortcut(x) + self.convolutions(x)).relu()

    class TransUNet(nn.Module):
        def __init__(self, resnet_width, resnet_depths, dropout, **sizes):
            super().__init__()
            dim, inputs, self.stages = sizes["embed_dim"], resnet_width, nn.ModuleList()
            self.root = nn.Sequential(standardized(3, inputs, 7, 2), nn.ReLU(inplace=True))
            for stage, depth in enumerate(resnet_depths):
                width, blocks = resnet_width * 2**stage, []
                for block in range(depth):
                    blocks += [Bottleneck(inputs, width, 2 if stage and not block else 1, not block)]
                    inputs = 4 * width
                self.stages.append(nn.Sequential(*blocks))
            self.patches, self.encoder = nn.Conv2d(inputs, dim, 1), encoder(**sizes)
            self.positions = nn.Parameter(torch.zeros(1, (size // 16) ** 2, dim))
            self.bridge, outputs = convolutions(dim, 512, 1), (512, 256, 128, 64, 16)
            skips = (8 * resnet_width, 4 * resnet_width, resnet_width, 0)
            self.decoder = nn.ModuleList(
                convolutions(a + skip, b, 2) for (a, b), skip in zip(pairwise(outputs), skips, strict=True)
            )
            self.head = nn.Conv2d(16, arguments["num_classes"], 3, padding=1)

        def forward(self, x):
            x = self.root(x)
            skips, x = [x], functional.max_pool2d(x, 3, 2)
            for stage in self.stages:
                x = stage(x)
                skips.append(x)
            skips[1] = functional.pad(skips[1], (0, 1, 0, 1))
            x = self.patches(skips.pop())
            x = self.encoder(tokens(x) + self.positions).transpose(1, 2).unflatten(2, x.shape[2:])
            x = self.bridge(x)
            for block in self.decoder:
                x = resized(x, align_corners=True)
                x = block(torch.cat([x, skips.pop()], 1) if skips else x)
            return self.head(x)

    class SwinBlock(nn.Module):
        def __init__(self, dim, heads, side, shift):
            super().__init__()
            self.heads, self.window = heads, min(7, side)
            self.shift = self.window // 2 if shift and side > self.window else 0
            self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2))
            self.qkv, self.output = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
            self.network = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
            span = 2 * self.window - 1
            self.table = nn.Parameter(0.02 * torch.randn(span**2, heads))
            places = torch.cartesian_prod(*[torch.arange(self.window)] * 2)
            offsets = places[:, None] - places[None] + self.window - 1
            self.register_buffer("index", offsets[..., 0] * span + offsets[..., 1])
            part = torch.arange(side)
            part = (part >= side - self.window).int() + (part >= side - self.shift).int()
            part = self.cut((3 * part[:, None] + part[None])[None, ..., None])[0, ..., 0]  # (windows, tokens)
            mask = -100.0 * (part[:, :, None] != part[:, None]).float()
            self.register_buffer("mask", mask[:, None] if self.shift else None)

        def cut(self, x):
            batch, side, *_, dim = x.shape
            x = x.unflatten(2, (-1, self.window)).unflatten(1, (-1, self.window))
            return x.transpose(2, 3).reshape(batch, (side // self.window) ** 2, self.window**2, dim)

        def forward(self, x):
            batch, side, _, dim = x.shape
            y = self.norms[0](x)
            y = self.cut(y.roll((-self.shift, -self.shift), (1, 2)) if self.shift else y)
            q, k, v = self.qkv(y).unflatten(-1, (3, self.heads, -1)).permute(3, 0, 1, 4, 2, 5)
            bias = self.table[self.index].permute(2, 0, 1)
            bias = bias if self.mask is None else bias + self.mask
            y = (q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2) + bias).softmax(-1) @ v
            y = self.output(y.transpose(2, 3).reshape(batch, -1, self.window**2, dim))
            y = y.reshape(batch, side // self.window, side // self.window, self.window, self.window, dim)
            y = y.transpose(2, 3).reshape(x.shape)
            x = x + (y.roll((self.shift, self.shift), (1, 2)) if self.shift else y)
            return x + self.network(self.norms[1](x))

    class Merging(nn.Module):
        def __init__(self, dim):
            super().__init__()
            self.norm, self.product = nn.LayerNorm(4 * dim), nn.Linear(4 * dim, 2 * dim, bias=False)

        def forward(self, x):
            parts = [x[:, row::2, column::2] for column in range(2) for row in range(2)]
            return self.product(self.norm(torch.cat(parts, -1)))

    class Expanding(nn.Module):
        def __init__(self, inputs, dim, scale):
            super().__init__()
            self.scale, self.norm = scale, nn.LayerNorm(dim)
            self.product = nn.Linear(inputs, dim * scale**2, bias=False)

        def forward(self, x):
            batch, side, *_ = x.shape
            x = self.product(x).unflatten(-1, (self.scale, self.scale, -1)).transpose(2, 3)
            return self.norm(x.reshape(batch, side * self.scale, side * self.scale, -1))

    class Swin(nn.Module):
        def __init__(self, embed_dim, depths, num_heads, **_):
            super().__init__()
            self.dims = [embed_dim * 2**i for i in range(len(depths))]
            self.patches, self.norm = nn.Conv2d(3, embed_dim, 4, 4), nn.LayerNorm(embed_dim)
            self.stages, self.last = self.stack(depths, num_heads), nn.LayerNorm(self.dims[-1])
            self.merging = nn.ModuleList(Merging(dim) for dim in self.dims[:-1])
            self.add_decoder(depths, num_heads)

        def stack(self, depths, num_heads):
            return nn.ModuleList(
                nn.Sequential(*(SwinBlock(self.dims[i], heads, size // 2 ** (i + 2), j % 2) for j in range(depth)))
                for i, (depth, heads) in enumerate(zip(depths, num_heads, strict=True))
            )

        def add_decoder(self, depths, num_heads):
            self.head = nn.Linear(self.dims[-1], arguments["num_classes"])

        def encode(self, x):
            x, skips = self.norm(self.patches(x).permute(0, 2, 3, 1)), []
            for stage, block in enumerate(self.stages):
                skips.append(x)
                x = block(x)
                x = self.merging[stage](x) if stage < len(self.merging) else self.last(x)
            return x, skips[:-1]

        def forward(self, x):
            return self.head(self.encode(x)[0].mean((1, 2)))

    class SwinUnet(Swin):
        def add_decoder(self, depths, num_heads):
            first = self.dims[0]
            self.decoder = self.stack(depths[:-1], num_heads[:-1])
            self.expanding = nn.ModuleList(Expanding(2 * dim, dim, 2) for dim in self.dims[:-1])
            self.reduction = nn.ModuleList(nn.Linear(2 * dim, dim) for dim in self.dims[:-1])
            self.norms, self.final = nn.LayerNorm(first), Expanding(first, first, 4)
            self.head = nn.Linear(first, arguments["num_classes"], bias=False)

        def forward(self, x):
            x, skips = self.encode(x)
            for i in reversed(range(len(skips))):
                x = self.decoder[i](self.reduction[i](torch.cat([self.expanding[i](x), skips[i]], -1)))
            return self.head(self.final(self.norms(x))).permute(0, 3, 1, 2)

    kinds = {"UTransformer": UNet} | {kind.__name__: kind for kind in (UNet, SETR, TransUNet, Swin, SwinUnet)}
    others = {"input_shape", "num_classes", "normalization"}
    sizes = {name: value for name, value in arguments.items() if name not in others}
    return kinds[function](**sizes) if function in kinds else None
