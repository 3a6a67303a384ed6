"""Checks of kubectl commands, as far as they concern this project."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import yaml

from tests.documentation.blocks import ROOT
from tests.documentation.crds import CONDITIONS, GROUP, Kind, kind_of
from tests.documentation.schema import problems


def words_of(text: str) -> set[str]:
    """Return the words of a list."""
    return set(text.split())


_VALUES = words_of("""
    --namespace -n --output -o --selector -l --filename -f --for --timeout --type --patch --image --replicas
    --container -c --field-selector --from-literal --raw --context --kubeconfig --sort-by --since --tail
    --labels --restart --overrides --as --subresource --clusterrole --role --group --user --serviceaccount
""")
_SWITCHES = words_of("""
    --all --all-namespaces -A --server-side --overwrite --follow --previous --watch --wait --rm -it -i --list
    --command --force-conflicts --ignore-daemonsets --delete-emptydir-data --show-labels --dry-run=server
    --ignore-not-found
""")
_OF_RESOURCES = {"get", "describe", "wait", "delete", "patch", "label", "annotate", "explain", "scale"}
_OTHER_VERBS = words_of("""
    apply auth create delete diff drain events exec krew logs port-forward rollout run uncordon version
""")
_OTHER_RESOURCES = words_of("""
    configmap configmaps crd daemonset daemonsets deployment deployments events job jobs namespace namespaces
    node nodes pod pods rolebinding service services
""")
_OWN_NAMES = "\n".join(
    path.read_text()
    for glob in ("operator/**/*.py", "charts/tokenbucket/templates/*", "charts/tokenbucket/values.yaml")
    for path in ROOT.glob(glob)
)


@dataclass(slots=True)
class Arguments:
    """The words of a command, parsed as kubectl does."""

    positional: list[str] = field(default_factory=list)
    options: list[tuple[str, str]] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    inner: list[str] = field(default_factory=list)
    """The command after ``--``."""

    def values(self, *names: str) -> list[str]:
        return [value for name, value in self.options if name in names]


def parsed(words: list[str], with_value: set[str], switches: set[str]) -> Arguments:
    """Parse the words after the name of a program."""
    arguments, pending = Arguments(), iter(words)
    for word in pending:
        name, equals, value = word.partition("=")
        if word == "--":
            arguments.inner = list(pending)
        elif not word.startswith("-") or word == "-":
            arguments.positional.append(word)
        elif name in with_value:
            arguments.options.append((name, value if equals else next(pending, "")))
        elif word not in switches:
            arguments.unknown.append(word)
    return arguments


def kubectl_problems(words: list[str]) -> tuple[list[str], Arguments]:
    """Return the problems of a command, and its arguments."""
    arguments = parsed(words, _VALUES, _SWITCHES)
    found = [f"the checks do not know the option {word}" for word in arguments.unknown]
    verb, *targets = arguments.positional or [""]
    if verb not in _OF_RESOURCES | _OTHER_VERBS:
        found.append(f"the checks do not know the verb {verb!r}")
    elif verb in _OF_RESOURCES and targets:
        found += _of_resources(targets[0], arguments)
    found += _own_names(targets)
    return found, arguments


def _of_resources(target: str, arguments: Arguments) -> Iterator[str]:
    for resource in target.partition("/")[0].split(","):
        name = resource.split(".")[0] if arguments.positional[0] == "explain" else resource
        kind = kind_of(name)
        if kind:
            yield from _of_kind(kind, arguments)
            if name != resource:
                yield from kind.field_problems(resource.removeprefix(name))
        elif name not in _OTHER_RESOURCES:
            yield f"the checks do not know the resource {resource}"


def _of_kind(kind: Kind, arguments: Arguments) -> Iterator[str]:
    for template in arguments.values("--output", "-o", "--for", "--sort-by"):
        if "{" in template:
            yield from kind.field_problems(template)
        elif template.startswith("condition="):
            name = template.split("=")[1]
            if name not in CONDITIONS or kind.name != "TokenBucketPolicy":
                yield f"{name} is no condition of {kind.name}"
    for patch in arguments.values("--patch"):
        yield from problems(yaml.safe_load(patch), kind.schema, kind.schema, partial=True)


def _own_names(targets: list[str]) -> Iterator[str]:
    """Yield labels and annotations of tokenbucket.dev that the code does not know."""
    for word in targets:
        name = word.partition("=")[0].removesuffix("-")
        if name.startswith(f"{GROUP}/") and not re.search(rf"{re.escape(name)}\b", _OWN_NAMES):
            yield f"nothing reads {name}"
