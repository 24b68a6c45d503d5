"""Looking inside a network: how gradients flow through a recurrent layer, and the pictures of it."""

from kseq.analysis.gradient_flow import GradientFlow, Steps, gradient_flow, step_jacobians
from kseq.analysis.plots import plot_comparison, plot_decay, plot_heat_map, plot_loss_gradients

__all__ = [
    "GradientFlow",
    "Steps",
    "gradient_flow",
    "plot_comparison",
    "plot_decay",
    "plot_heat_map",
    "plot_loss_gradients",
    "step_jacobians",
]
