"""The step that the decoders of SETR and TransUNet are made of."""

from keras import layers

from kseq.layers import Convolution, normalization


def conv_norm_relu(x, filters: int, size: int, names: str):
    """Add ReLU(BN(w ∗ x)), w of kernel `size`, to a functional model; `names` has a place for what each layer is."""
    x = Convolution(filters, size, use_bias=False, name=names.format("convolution"))(x)
    x = normalization("batch", names.format("batch_norm"))(x)
    return layers.Activation("relu", name=names.format("relu"))(x)
