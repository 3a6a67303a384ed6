"""The agent of a node: its sources, the reconcile loop and the reports."""
