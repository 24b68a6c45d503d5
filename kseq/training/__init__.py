"""Running a job: flags, run folder, checkpoints and resuming, losses, history, metrics and their pictures."""

from kseq.training.classification import classification_metrics, plot_confusion
from kseq.training.history import plot_history
from kseq.training.launch import launch
from kseq.training.overlay import plot_overlays
from kseq.training.phase_metrics import phase_metrics
from kseq.training.ribbons import plot_ribbons
from kseq.training.run import Run
from kseq.training.schedules import InverseSquareRoot, polynomial, warmup_cosine
from kseq.training.segmentation_loss import (
    CrossentropyDice,
    DiceLoss,
    FocalLoss,
    SegmentationCrossentropy,
    TverskyLoss,
    deep_supervision,
)
from kseq.training.segmentation_metrics import plot_segmentation, segmentation_metrics, segmentation_table
from kseq.training.segmentation_score import DiceScore
from kseq.training.sequence_loss import BitsPerToken, SequenceAccuracy, SequenceCrossentropy
from kseq.training.smoothed_crossentropy import SmoothedCrossentropy
from kseq.training.truncated import CarryState, Windows

__all__ = [
    "BitsPerToken",
    "CarryState",
    "CrossentropyDice",
    "DiceLoss",
    "DiceScore",
    "FocalLoss",
    "InverseSquareRoot",
    "Run",
    "SegmentationCrossentropy",
    "SequenceAccuracy",
    "SequenceCrossentropy",
    "SmoothedCrossentropy",
    "TverskyLoss",
    "Windows",
    "classification_metrics",
    "deep_supervision",
    "launch",
    "phase_metrics",
    "plot_confusion",
    "plot_history",
    "plot_overlays",
    "plot_ribbons",
    "plot_segmentation",
    "polynomial",
    "segmentation_metrics",
    "segmentation_table",
    "warmup_cosine",
]
