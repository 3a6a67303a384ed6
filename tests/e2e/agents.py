"""The processes of the agents, as seen on their nodes."""

from __future__ import annotations

# One process for all of them: an emulated node takes a minute for one each.
AGENT_PIDS = "grep -las -- '-m.[t]okenbucket.agent' /proc/[0-9]*/cmdline | cut -d/ -f3"
"""A program for sh that prints their numbers."""
