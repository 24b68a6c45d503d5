"""Looking inside a network: gradients through recurrent layers, the attention and positions of transformers, the words
that a classifier of texts went by, what a translator looked at, drawn.
"""

from kseq.analysis.alignment import plot_alignment, word_alignment
from kseq.analysis.attention import (
    attention_distance,
    attention_heads,
    attention_maps,
    attention_rollout,
    class_attention,
)
from kseq.analysis.gates import pixel_attention, skip_gates
from kseq.analysis.gradient_flow import GradientFlow, Steps, gradient_flow, step_jacobians
from kseq.analysis.plots import plot_comparison, plot_decay, plot_heat_map, plot_loss_gradients
from kseq.analysis.positions import position_code, position_similarity
from kseq.analysis.words import coloured_words, plot_words, word_attention, word_contributions

__all__ = [
    "GradientFlow",
    "Steps",
    "attention_distance",
    "attention_heads",
    "attention_maps",
    "attention_rollout",
    "class_attention",
    "coloured_words",
    "gradient_flow",
    "pixel_attention",
    "plot_alignment",
    "plot_comparison",
    "plot_decay",
    "plot_heat_map",
    "plot_loss_gradients",
    "plot_words",
    "position_code",
    "position_similarity",
    "skip_gates",
    "step_jacobians",
    "word_alignment",
    "word_attention",
    "word_contributions",
]
