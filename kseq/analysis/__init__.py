"""Looking inside a network: gradients through recurrent layers, the attention and positions of transformers, drawn."""

from kseq.analysis.attention import (
    attention_distance,
    attention_heads,
    attention_maps,
    attention_rollout,
    class_attention,
)
from kseq.analysis.gradient_flow import GradientFlow, Steps, gradient_flow, step_jacobians
from kseq.analysis.plots import plot_comparison, plot_decay, plot_heat_map, plot_loss_gradients
from kseq.analysis.positions import position_code, position_similarity

__all__ = [
    "GradientFlow",
    "Steps",
    "attention_distance",
    "attention_heads",
    "attention_maps",
    "attention_rollout",
    "class_attention",
    "gradient_flow",
    "plot_comparison",
    "plot_decay",
    "plot_heat_map",
    "plot_loss_gradients",
    "position_code",
    "position_similarity",
    "step_jacobians",
]
