"""``python -m captum_ablate`` is the command ``captum-ablate``."""

import sys

from captum_ablate.cli import main

sys.exit(main())
