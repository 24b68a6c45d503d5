"""Keras layers: building blocks, one concept a file."""

from kseq.layers.one_hot import OneHot

__all__ = ["OneHot"]
