"""Decisions: which limits this node enforces, where, and which actions lead there."""
