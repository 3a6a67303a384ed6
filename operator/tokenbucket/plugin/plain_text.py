"""Make texts from other machines safe to print."""

from __future__ import annotations


def plain(text: object) -> str:
    """Return a text without control characters: names of programs and messages come from other machines."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in str(text))
