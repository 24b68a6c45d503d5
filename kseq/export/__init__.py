"""Models in formats that need neither kseq nor Keras, each verified by running it, and predictions from them."""

from kseq.export.export import FORMATS, export
from kseq.export.predict import Prediction, predict

__all__ = ["FORMATS", "Prediction", "export", "predict"]
