"""Define ``tokenbucket attach``, which limits an interface without a pod or an agent."""

from __future__ import annotations

import argparse

from tokenbucket.cli.options import attach_option, need_root, pins_options
from tokenbucket.cli.output import LogFormat, set_up_logs
from tokenbucket.core.api.parse import parse_policy
from tokenbucket.core.api.policy import Direction, ExceedAction, Mode
from tokenbucket.core.limits.bucket import Bucket, bucket_of, describe
from tokenbucket.errors import ExitCode
from tokenbucket.node import devices
from tokenbucket.node.visibility import check_visible


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    text = "limit an interface"
    verb = verbs.add_parser(
        "attach",
        help=text,
        description=f"{text} and drop excess packets. The direction is from the view of the interface.",
        parents=[pins_options()],
    )
    verb.add_argument("--dev", required=True, metavar="IFACE")
    verb.add_argument("--netns", help="network namespace of --dev: a name in /run/netns, or a path")
    verb.add_argument("--direction", type=Direction, choices=list(Direction), required=True)
    verb.add_argument("--rate", help="bits per second, such as 1M")
    verb.add_argument("--burst", help="bytes, such as 64Ki (default 500 ms of the rate)")
    verb.add_argument("--packet-rate", help="packets per second, such as 10k")
    verb.add_argument("--packet-burst", help="packets (default 500 ms of the rate)")
    attach_option(verb)
    verb.set_defaults(run=run)


def run(options: argparse.Namespace) -> ExitCode:
    """Attach a limit, or change the attached limit."""
    bucket = _bucket(options)
    need_root()
    set_up_logs(LogFormat.TEXT, "warning")
    target = devices.device(options.dev, options.netns)
    check_visible(options.pins, [target.namespace])
    devices.attach(options.pins, target, options.direction, bucket, options.attach)
    print(f"{options.dev} {options.direction}: {describe(bucket)}")
    return ExitCode.DONE


def _bucket(options: argparse.Namespace) -> Bucket:
    """Return the bucket of the options. The rules and messages of policies apply."""
    rate = _given(bits=options.rate, packets=options.packet_rate)
    burst = _given(bytes=options.burst, packets=options.packet_burst)
    limit = _given(rate=rate or None, burst=burst or None) | {"exceedAction": ExceedAction.DROP.value}
    document = {
        "apiVersion": "tokenbucket.dev/v1alpha1",
        "kind": "TokenBucketPolicy",
        "metadata": {"name": "command-line"},
        "spec": {"podSelector": {}, options.direction.value: limit},
    }
    policy = parse_policy(document)
    return bucket_of(policy.limits[options.direction], Mode.ENFORCE, action=ExceedAction.DROP)


def _given(**values: object) -> dict[str, object]:
    return {name: value for name, value in values.items() if value is not None}
