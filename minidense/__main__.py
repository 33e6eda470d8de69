"""python -m minidense: the same as the command minidense."""

import sys

from .cli import main

sys.exit(main())
