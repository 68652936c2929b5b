"""Find which attribution tells the units that a network needs, and examine the code of its layers."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from captum_ablate import __version__
from captum_ablate.commands import combine, compare, demo, layers, methods, midrange, report, spectrum

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = _parser().parse_args(given)
    options.command_line = shlex.join(["captum-ablate", *given])
    try:
        with _warnings_in_a_line():
            options.run(options)
    except KeyboardInterrupt as stop:
        print(f"captum-ablate: {stop or 'interrupted'}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # of a reader such as head, that has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains when it exits
        return 0
    except (ValueError, TypeError, OSError, ImportError) as error:
        print(f"captum-ablate: {' '.join(str(error).split()) or type(error).__name__}", file=sys.stderr)
        return 2
    return 0


@contextmanager
def _warnings_in_a_line() -> Iterator[None]:
    """Show each warning once, in a line without the place in our code that it came from."""
    seen: set[str] = set()

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        text = " ".join(str(message).split())
        if text not in seen:
            seen.add(text)
            print(f"captum-ablate: warning: {text}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Say in one line what is wrong, and where the options are listed."""
        self.exit(2, f"captum-ablate: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="captum-ablate", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="command")
    for command in (compare, layers, methods, report, combine, demo, spectrum, midrange):
        command.add(commands)
    return parser
