"""Compute reports: the state of limits on a node, and the status of a policy."""
