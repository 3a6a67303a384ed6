"""Composition of the agent: the loop, one pass, and what feeds it."""
