"""Read to which interface a filter of another component redirects packets (``act_mirred``)."""

from __future__ import annotations

import struct

from tokenbucket.netlink import uapi
from tokenbucket.netlink.messages import attributes, text

_ACTIONS = {"u32": uapi.TCA_U32_ACT, "matchall": uapi.TCA_MATCHALL_ACT}
"""The attribute of the actions, by kind of the filter."""
_MIRRED = struct.Struct("=IIiiiiI")
"""``struct tc_mirred``: five fields that all actions have, the kind of redirect, and the interface."""


def redirect_target(kind: str, options: bytes) -> int:
    """Return the index of the interface, or 0 if the filter redirects no packets."""
    if kind not in _ACTIONS:
        return 0
    for action in attributes(attributes(options).get(_ACTIONS[kind], b"")).values():
        found = attributes(action)
        if text(found.get(uapi.TCA_ACT_KIND, b"")) == "mirred":
            parameters = attributes(found.get(uapi.TCA_ACT_OPTIONS, b"")).get(uapi.TCA_MIRRED_PARMS, b"")
            if len(parameters) >= _MIRRED.size:
                *_, redirect, ifindex = _MIRRED.unpack_from(parameters)
                return ifindex if redirect == uapi.TCA_EGRESS_REDIR else 0
    return 0
