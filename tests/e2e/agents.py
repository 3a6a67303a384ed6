"""The agents' processes, as seen on their nodes."""

from __future__ import annotations

AGENT_PIDS = (
    "for each in /proc/[0-9]*; do"
    " tr '\\0' ' ' <$each/cmdline | grep -q '[-]m tokenbucket agent' && echo ${each#/proc/};"
    " done; true"
)
"""A program for sh that prints their numbers."""
