"""Running a job: flags, run folder, checkpoints and resuming, losses, history, metrics and their pictures."""

from kseq.training.classification import classification_metrics, plot_confusion
from kseq.training.history import plot_history
from kseq.training.launch import launch
from kseq.training.run import Run
from kseq.training.schedules import InverseSquareRoot, warmup_cosine
from kseq.training.sequence_loss import BitsPerToken, SequenceAccuracy, SequenceCrossentropy
from kseq.training.truncated import CarryState, Windows

__all__ = [
    "BitsPerToken",
    "CarryState",
    "InverseSquareRoot",
    "Run",
    "SequenceAccuracy",
    "SequenceCrossentropy",
    "Windows",
    "classification_metrics",
    "launch",
    "plot_confusion",
    "plot_history",
    "warmup_cosine",
]
