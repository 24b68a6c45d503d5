"""Weights of models trained elsewhere, into ours: `.pth`, `.safetensors` and `.npz` checkpoints, one file a layout.

A *layout* is the way in which another library names and orders its tensors. To add one, subclass `Layout` in a file
of its own and put it into `kseq.weights.loading.LAYOUTS`. PyTorch and safetensors are imported only when such a file is
read.
"""

from kseq.weights.layout import Layout, Rule
from kseq.weights.loading import load

__all__ = ["Layout", "Rule", "load"]
