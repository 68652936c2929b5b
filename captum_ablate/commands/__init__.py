"""The commands of ``captum-ablate``, one file each: ``add(commands)`` declares the options and the function to run."""

from __future__ import annotations

import argparse
from typing import TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
