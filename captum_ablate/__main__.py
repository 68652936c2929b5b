"""``python -m captum_ablate`` is the command ``captum-ablate``."""

import sys

from captum_ablate.commands.main import main

sys.exit(main())
