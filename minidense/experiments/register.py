"""The experiments there are, by name."""

from .arithmetic import DENSE_ARITHMETIC
from .batch_norm import BATCH_NORM_RATES
from .by_parameters import EQUAL_PARAMETERS
from .efficiency import PARAMETER_EFFICIENCY
from .experiment import Experiment
from .exploding import BATCH_NORM_EXPLODES
from .figures import PAPER_FIGURES
from .heads import GLOBAL_AVERAGE_POOLING
from .paths import PATH_LENGTHS
from .rate_staircase import STAIRCASE
from .recipe import RECIPE_ABLATION
from .reuse import FEATURE_REUSE
from .shortcuts import SHORT_PATHS
from .sigmoid_relu import SIGMOID_AGAINST_RELU
from .table2 import TABLE2_SMALL
from .unit_orders import COMPOSITE_FUNCTION
from .vanishing import VANISHING_GRADIENT

# In the order of the lecture.
EXPERIMENTS: dict[str, Experiment] = {
    experiment.name: experiment
    for experiment in (
        VANISHING_GRADIENT,
        SIGMOID_AGAINST_RELU,
        BATCH_NORM_RATES,
        BATCH_NORM_EXPLODES,
        SHORT_PATHS,
        PATH_LENGTHS,
        DENSE_ARITHMETIC,
        COMPOSITE_FUNCTION,
        GLOBAL_AVERAGE_POOLING,
        RECIPE_ABLATION,
        STAIRCASE,
        EQUAL_PARAMETERS,
        PARAMETER_EFFICIENCY,
        FEATURE_REUSE,
        PAPER_FIGURES,
        TABLE2_SMALL,
    )
}
