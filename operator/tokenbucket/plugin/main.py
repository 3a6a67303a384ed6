"""Define the command line of the plugin. Each command has its own module.

A command imports the client and rich only when it runs: both may be missing, and completion must be fast.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from tokenbucket import __version__
from tokenbucket.errors import TokenBucketError
from tokenbucket.plugin import (
    check,
    completion,
    explain,
    migrate,
    status,
    suggest,
    sysdump,
    top,
)
from tokenbucket.plugin.errors import PluginError
from tokenbucket.plugin.exit_codes import PluginExit
from tokenbucket.plugin.options import DEFAULTS, shared_options

PROGRAM = "kubectl tokenbucket"
_COMMANDS = (
    check,
    completion,
    explain,
    migrate,
    status,
    suggest,
    sysdump,
    top,
)
_EPILOG = "exit status: " + "; ".join(f"{code.value} {code.meaning}" for code in PluginExit)


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    top = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Shows which limits pods have, and why a pod is not limited as declared.",
        epilog=_EPILOG,
        parents=[shared_options()],
    )
    top.set_defaults(**DEFAULTS)
    top.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for module in _COMMANDS:  # a new parser for each: defaults of the top belong to its own options
        module.add_parser(commands, shared_options())
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status."""
    options = parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except ModuleNotFoundError as error:
        text = f"Python package {error.name}: is missing; install it with pip install 'tokenbucket[cli]'"
        return _failed(text, PluginExit.UNSUPPORTED)
    except PluginError as error:
        return _failed(error, error.code)
    except TokenBucketError as error:
        return _failed(error, PluginExit.FAILED)
    except BrokenPipeError:
        sys.stderr.close()  # the reader closed the pipe, as `| head` does
        return PluginExit.FAILED
    except KeyboardInterrupt:
        return PluginExit.FAILED


def _failed(error: Exception | str, code: PluginExit) -> int:
    print(f"{PROGRAM}: {error}", file=sys.stderr)
    return code
