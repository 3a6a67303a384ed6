"""Compute a limit: the token bucket, its queue, and the slot that stores it."""
