"""Decide which limits this node enforces, on which interfaces, and with which actions."""
