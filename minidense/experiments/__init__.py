"""The lecture's claims, each a function that measures and returns numbers; lessons and the command line call them.

What ``minidense experiment NAME`` runs, in the order of the lecture:

  NAME                    file               its function
  vanishing-gradient      vanishing.py       vanishing_gradient
  sigmoid-against-relu    sigmoid_relu.py    sigmoid_against_relu
  batch-norm-rates        batch_norm.py      batch_norm_rates, batch_of_one
  batch-norm-explodes     exploding.py       batch_norm_explodes
  short-paths             shortcuts.py       short_paths, of accuracy_of_stacks and flow_of_stacks
  path-lengths            paths.py           path_lengths
  dense-arithmetic        arithmetic.py      dense_arithmetic
  composite-function      unit_orders.py     composite_function
  global-average-pooling  heads.py           global_average_pooling
  recipe-ablation         recipe.py          recipe_ablation
  staircase               rate_staircase.py  staircase
  equal-parameters        by_parameters.py   equal_parameters
  parameter-efficiency    efficiency.py      parameter_efficiency
  feature-reuse           reuse.py           feature_reuse
  paper-figures           figures.py         paper_figures
  table2-small            table2.py          table2_small, table2_small_rates

What they are made of:

  experiment.py, register.py, command.py        what an experiment is, which there are, and the command
  training.py, side_by_side.py                  one small training run; many of them, shared out among processes
  paper_recipe.py, seeds.py                     the paper's recipe; several seeds and what they come to
  perceptrons.py, stacks.py, small_networks.py  the networks: fully connected, deep convolutional stacks, Table 2's families
  stack_training.py, update_ratios.py           stacks trained and compared; how far weights move
"""

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
