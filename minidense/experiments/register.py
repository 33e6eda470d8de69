"""The experiments there are, by name."""

from .experiment import Experiment
from .figures import PAPER_FIGURES
from .table2 import TABLE2_SMALL

EXPERIMENTS: dict[str, Experiment] = {experiment.name: experiment for experiment in (TABLE2_SMALL, PAPER_FIGURES)}
