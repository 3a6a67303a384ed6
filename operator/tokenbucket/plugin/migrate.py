"""Define ``kubectl tokenbucket migrate``, which prints policies that are equivalent to annotations."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from tokenbucket.plugin.exit_codes import PluginExit
from tokenbucket.plugin.options import Output
from tokenbucket.units import format_bit_rate, format_packet_rate

if TYPE_CHECKING:
    from tokenbucket.core.api.policy import Limit
    from tokenbucket.plugin.connection import Connection
    from tokenbucket.plugin.existing_policies import ExistingPolicies
    from tokenbucket.plugin.migration import Migration

_HEADER = ("NAMESPACE", "POLICY", "INGRESS", "EGRESS", "ANNOTATIONS OF")
_WIDE = (*_HEADER, "SELECTOR")


def add_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], shared: argparse.ArgumentParser
) -> None:
    """Add the command to the parser."""
    text = "print policies that are equivalent to bandwidth annotations of pods and workloads"
    description = (
        f"{text}. -o yaml prints manifests for kubectl apply. Annotations without an equivalent are listed "
        "on standard error. The command changes nothing."
    )
    command = commands.add_parser("migrate", help=text, description=description, parents=[shared])
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> PluginExit:
    """Print the policies, and the annotations that have no equivalent."""
    from tokenbucket.plugin.annotated import Cluster
    from tokenbucket.plugin.connection import connect
    from tokenbucket.plugin.migration import migrate
    from tokenbucket.plugin.resources import PODS

    connection = connect(options)
    namespace = "" if options.all_namespaces else connection.namespace
    pods = connection.list(PODS, namespace)
    wanted = None
    if options.selector:
        selected = connection.list(PODS, namespace, labelSelector=options.selector)
        wanted = frozenset(f"{each['metadata']['namespace']}/{each['metadata']['name']}" for each in selected)
    notes: list[str] = []
    workloads = list(_workloads(connection, namespace, notes))
    found = migrate(Cluster.of(pods, workloads), wanted, _existing(connection, namespace, notes))
    found.notes = notes + found.notes
    _print(found, options)
    return PluginExit.DONE


def _existing(connection: Connection, namespace: str, notes: list[str]) -> ExistingPolicies:
    """Return the policies of the cluster; none if the product is not installed yet."""
    from tokenbucket.plugin.errors import DeniedError, PluginError
    from tokenbucket.plugin.existing_policies import ExistingPolicies
    from tokenbucket.plugin.live import release_of
    from tokenbucket.plugin.resources import POLICIES

    try:
        policies = connection.list(POLICIES, namespace)
    except DeniedError as error:
        notes.append(f"{error}; without it, a policy can replace an existing one of the same name")
        return ExistingPolicies()
    except PluginError as error:
        if error.code is not PluginExit.UNSUPPORTED:
            raise
        return ExistingPolicies()
    return ExistingPolicies.of(policies, release_of(connection).partition("/")[0])


def _workloads(connection: Connection, namespace: str, notes: list[str]) -> Iterator[dict[str, Any]]:
    """Yield the workloads, with their kinds, which the items of lists lack."""
    from tokenbucket.plugin.errors import DeniedError
    from tokenbucket.plugin.resources import WORKLOADS

    for name, kind in WORKLOADS.items():
        try:
            found = connection.list(kind, namespace)
        except DeniedError as error:
            notes.append(f"{error}; without this right, selectors have the labels of pods")
            continue
        yield from ({**each, "kind": name} for each in found)


def _print(found: Migration, options: argparse.Namespace) -> None:
    import yaml

    from tokenbucket.plugin.screen import console, plain, print_structured, table

    if options.output is Output.YAML:
        print(yaml.safe_dump_all(found.policies, sort_keys=False, allow_unicode=False).rstrip())
    elif options.output is Output.JSON:
        print_structured({"apiVersion": "v1", "kind": "List", "items": found.policies}, Output.JSON)
    elif found.policies:
        wide = options.output is Output.WIDE
        rows = [row if wide else row[: len(_HEADER)] for row in _rows(found, wide=wide)]
        console(options).print(table(_WIDE if wide else _HEADER, rows, {}))
    else:
        print("no annotation can be replaced by a policy")
    for note in found.notes:
        print(f"note: {plain(note)}", file=sys.stderr)


def _rows(found: Migration, *, wide: bool) -> Iterator[tuple[str, ...]]:
    """Yield the policies: with ``wide``, their limits with the defaults."""
    from tokenbucket.core.api.parse import parse_policy
    from tokenbucket.core.api.policy import Direction
    from tokenbucket.core.limits.bucket import as_declared

    for document, subjects in zip(found.policies, found.sources, strict=True):
        policy = parse_policy(document)
        limits = [policy.limits.get(direction) for direction in Direction]
        text_of = partial(as_declared, mode=policy.mode) if wide else _rate
        texts = [text_of(limit) if limit else "-" for limit in limits]
        replaced = ", ".join(f"{each.kind} {each.name}" for each in subjects)
        yield (policy.namespace, policy.name, *texts, replaced, _selector(document["spec"]["podSelector"]))


def _rate(limit: Limit) -> str:
    bits, packets = limit.rate.bits_per_s, limit.rate.packets_per_s
    parts = [format_bit_rate(bits)] if bits else []
    return ", ".join(parts + ([format_packet_rate(packets)] if packets else []))


def _selector(selector: dict[str, Any]) -> str:
    """Return a selector in the syntax of ``kubectl get -l``."""
    parts = [f"{key}={value}" for key, value in selector.get("matchLabels", {}).items()]
    for each in selector.get("matchExpressions", ()):
        values = ",".join(each.get("values") or ())
        match each["operator"]:
            case "In" | "NotIn" as operator:
                parts.append(f"{each['key']} {operator.lower()} ({values})")
            case "Exists":
                parts.append(each["key"])
            case _:
                parts.append(f"!{each['key']}")
    return ",".join(parts)
