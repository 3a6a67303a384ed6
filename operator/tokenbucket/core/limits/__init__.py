"""Arithmetic of a limit: the token bucket, its queue, and the slot that holds it."""
