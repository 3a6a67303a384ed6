"""One-shot operations on this node, for the command line."""
