"""Pictures of training, of gradients and of what networks have learned. matplotlib is imported only when one is drawn."""

from .layers import activation_histograms, feature_reuse, gradient_flow
from .picture import BLACK, BLUE, COLOURS, GREEN, GREY, ORANGE, PINK, SKY, Picture, curves, heat_map, plain, several
from .training import confusion_matrix, learning_curves, rate_staircase, update_ratios

__all__ = [
    "BLACK",
    "BLUE",
    "COLOURS",
    "GREEN",
    "GREY",
    "ORANGE",
    "PINK",
    "SKY",
    "Picture",
    "activation_histograms",
    "confusion_matrix",
    "curves",
    "feature_reuse",
    "gradient_flow",
    "heat_map",
    "learning_curves",
    "plain",
    "rate_staircase",
    "several",
    "update_ratios",
]
