"""The lecture's claims, each a function that measures and returns numbers; lessons and the command line call them."""

from .arithmetic import dense_arithmetic
from .batch_norm import batch_norm_rates, batch_of_one
from .by_parameters import equal_parameters
from .command import main
from .efficiency import parameter_efficiency
from .experiment import Experiment, Notebook
from .exploding import batch_norm_explodes
from .figures import paper_figures
from .heads import global_average_pooling
from .paths import path_lengths
from .rate_staircase import staircase
from .recipe import recipe_ablation
from .register import EXPERIMENTS
from .reuse import feature_reuse
from .shortcuts import accuracy_of_stacks, flow_of_stacks, short_paths
from .sigmoid_relu import sigmoid_against_relu
from .table2 import table2_small, table2_small_rates
from .unit_orders import composite_function
from .vanishing import vanishing_gradient

__all__ = [
    "EXPERIMENTS",
    "Experiment",
    "Notebook",
    "accuracy_of_stacks",
    "batch_norm_explodes",
    "batch_norm_rates",
    "batch_of_one",
    "composite_function",
    "dense_arithmetic",
    "equal_parameters",
    "feature_reuse",
    "flow_of_stacks",
    "global_average_pooling",
    "main",
    "paper_figures",
    "parameter_efficiency",
    "path_lengths",
    "recipe_ablation",
    "short_paths",
    "sigmoid_against_relu",
    "staircase",
    "table2_small",
    "table2_small_rates",
    "vanishing_gradient",
]
