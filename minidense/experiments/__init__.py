"""The lecture's claims, each a function that measures and returns numbers; lessons and the command line call them."""

from .command import main
from .experiment import Experiment, Notebook
from .figures import paper_figures
from .register import EXPERIMENTS
from .table2 import table2_small, table2_small_rates

__all__ = [
    "EXPERIMENTS",
    "Experiment",
    "Notebook",
    "main",
    "paper_figures",
    "table2_small",
    "table2_small_rates",
]
