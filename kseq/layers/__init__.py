"""Keras layers: building blocks, one concept a file."""

from kseq.layers.one_hot import OneHot
from kseq.layers.recurrent import GRU, LSTM, SimpleRNN

__all__ = ["GRU", "LSTM", "OneHot", "SimpleRNN"]
