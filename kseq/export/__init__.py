"""Models in formats that need neither kseq nor Keras, each verified by running it, and predictions from them."""

from kseq.export.classification import Prediction
from kseq.export.export import FORMATS, export
from kseq.export.predict import predict, stream
from kseq.export.segmentation import LabelMap
from kseq.export.translation import Answer
from kseq.export.video import Interval, Timeline

__all__ = ["FORMATS", "Answer", "Interval", "LabelMap", "Prediction", "Timeline", "export", "predict", "stream"]
