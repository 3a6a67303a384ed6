"""Complete words of the command line, with names of objects from the cluster.

kubectl runs ``kubectl_complete-tokenbucket`` to complete ``kubectl tokenbucket``, in the protocol of cobra:
one candidate per line, and a directive at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import enum
import sys
from collections.abc import Iterable, Sequence

from tokenbucket.errors import TokenBucketError
from tokenbucket.plugin.exit_codes import PluginExit
from tokenbucket.plugin.resources import NAMESPACES, PODS, POLICIES, Kind

_NO_FILES = ":4"
"""The directive of cobra that no names of files fit."""
_KINDS = {"name": PODS, "policy": POLICIES, "namespace": NAMESPACES}
"""The kinds of objects that arguments name, by the argument."""


class Shell(enum.StrEnum):
    """The shells for which there is a script."""

    BASH = "bash"
    FISH = "fish"
    ZSH = "zsh"


SCRIPTS = {
    Shell.BASH: """\
_kubectl_tokenbucket() {
    local IFS=$'\\n'
    COMPREPLY=($(kubectl_complete-tokenbucket "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null | grep -v '^:'))
}
complete -F _kubectl_tokenbucket kubectl-tokenbucket
""",
    Shell.FISH: """\
function __kubectl_tokenbucket
    set -l words (commandline -opc) (commandline -ct)
    kubectl_complete-tokenbucket $words[2..-1] 2>/dev/null | string match --invert ':*'
end
complete --command kubectl-tokenbucket --no-files --arguments '(__kubectl_tokenbucket)'
""",
    Shell.ZSH: """\
#compdef kubectl-tokenbucket
_kubectl_tokenbucket() {
    local -a found
    found=("${(@f)$(kubectl_complete-tokenbucket "${(@)words[2,CURRENT]}" 2>/dev/null | grep -v '^:')}")
    compadd -a found
}
compdef _kubectl_tokenbucket kubectl-tokenbucket
""",
}


def add_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], _shared: argparse.ArgumentParser
) -> None:
    """Add the command to the parser."""
    text = "print a script that completes the command kubectl-tokenbucket in a shell"
    command = commands.add_parser("completion", help=text, description=text)
    command.add_argument("shell", type=Shell, choices=list(Shell), metavar="SHELL", help="bash, fish or zsh")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> PluginExit:
    """Print the script."""
    print(SCRIPTS[options.shell], end="")
    return PluginExit.DONE


def main() -> int:
    """Print the candidates for the last of the words, as kubectl expects them. Never fails."""
    from tokenbucket.plugin.main import parser

    for word in candidates(parser(), sys.argv[1:] or [""]):
        print(word)
    print(_NO_FILES)
    return 0


def candidates(top: argparse.ArgumentParser, words: Sequence[str]) -> list[str]:
    """Return the possible values of the last word, which may be incomplete."""
    command, given, before = _read(top, words[:-1])
    if before:
        found = _values(before, words[:-1])
    elif words[-1].startswith("-"):
        found = [option for action in _actions(command) for option in action.option_strings]
    else:
        positional = [action for action in _actions(command) if not action.option_strings]
        found = _values(positional[given], words[:-1]) if given < len(positional) else []
    return sorted({word for word in found if word.startswith(words[-1])})


def _read(
    top: argparse.ArgumentParser, words: Iterable[str]
) -> tuple[argparse.ArgumentParser, int, argparse.Action | None]:
    """Return the parser of the command, the number of its arguments, and an option that lacks its value."""
    command, given, before = top, 0, None
    for word in words:
        if before:
            before = None
        elif word.startswith("-"):
            option = next((each for each in _actions(command) if word in each.option_strings), None)
            before = option if option and option.nargs != 0 else None
        elif command is top and word in _commands(top):
            command, given = _commands(top)[word], 0
        else:
            given += 1
    return command, given, before


def _actions(command: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in command._actions if action.help != argparse.SUPPRESS]  # noqa: SLF001


def _commands(top: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    found = next(each for each in _actions(top) if isinstance(each, argparse._SubParsersAction))  # noqa: SLF001
    return dict(found.choices)


def _values(action: argparse.Action, words: Sequence[str]) -> list[str]:
    """Return the values of an argument: fixed ones, or the names of objects."""
    if action.choices:
        return [str(each) for each in action.choices]
    if action.dest == "context":
        return _contexts(words)
    return _names(_KINDS[action.dest], words) if action.dest in _KINDS else []


def _contexts(words: Sequence[str]) -> list[str]:
    with contextlib.suppress(ModuleNotFoundError, TokenBucketError):
        from tokenbucket.plugin.connection import contexts

        return contexts(_options(words).kubeconfig)
    return []


def _names(kind: Kind, words: Sequence[str]) -> list[str]:
    """Return the names of objects. Empty without an answer of the API server."""
    with contextlib.suppress(ModuleNotFoundError, TokenBucketError):
        from tokenbucket.plugin.connection import connect

        connection = connect(_options(words))
        found = connection.list(kind, connection.namespace if kind.namespaced else "")
        return [str((each.get("metadata") or {}).get("name")) for each in found]
    return []


def _options(words: Sequence[str]) -> argparse.Namespace:
    """Return the shared options among words that may be incomplete."""
    from tokenbucket.plugin.options import DEFAULTS, shared_options

    shared = shared_options()
    shared.exit_on_error = False
    options = argparse.Namespace(**DEFAULTS)
    with contextlib.suppress(argparse.ArgumentError, SystemExit):
        shared.parse_known_args(words, options)
    return options
