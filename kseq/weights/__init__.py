"""Weights of models trained elsewhere, into ours: `.pth`, `.safetensors` and `.npz` checkpoints, one file a layout.

A *layout* is the way in which another library names and orders its tensors. To add one, subclass `Layout` in a file
of its own and put it into `kseq.weights.loading.LAYOUTS`. PyTorch and safetensors are imported only when such a file is
read.
"""

from kseq.weights.bahdanau import Bahdanau
from kseq.weights.conv_lstm_hzzone import ConvLstmHzzone
from kseq.weights.glam_swin import GlamSwin
from kseq.weights.glam_swin_unet import GlamSwinUnet
from kseq.weights.layout import Layout, Rule
from kseq.weights.loading import MismatchError, load
from kseq.weights.monai_attention_unet import MonaiAttentionUnet
from kseq.weights.monai_unet import MonaiUnet
from kseq.weights.ms_tcn import MsTcn
from kseq.weights.non_local import NonLocal
from kseq.weights.positions import resample_positions
from kseq.weights.setr import Setr
from kseq.weights.swin import SwinMicrosoft, SwinTimm, SwinTransformers
from kseq.weights.swin_unet import SwinUnetCao
from kseq.weights.transunet import TransUnet, TransUnetJax
from kseq.weights.upernet import UPerNetGlamSwin, UPerNetSwin
from kseq.weights.vit_jax import VitJax
from kseq.weights.vit_timm import VitTimm
from kseq.weights.vit_torchvision import VitTorchvision
from kseq.weights.vit_transformers import VitTransformers

__all__ = [
    "Bahdanau",
    "ConvLstmHzzone",
    "GlamSwin",
    "GlamSwinUnet",
    "Layout",
    "MismatchError",
    "MonaiAttentionUnet",
    "MonaiUnet",
    "MsTcn",
    "NonLocal",
    "Rule",
    "Setr",
    "SwinMicrosoft",
    "SwinTimm",
    "SwinTransformers",
    "SwinUnetCao",
    "TransUnet",
    "TransUnetJax",
    "UPerNetGlamSwin",
    "UPerNetSwin",
    "VitJax",
    "VitTimm",
    "VitTorchvision",
    "VitTransformers",
    "load",
    "resample_positions",
]
