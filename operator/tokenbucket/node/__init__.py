"""This node: its interfaces, the namespaces of pods, and the limits that are attached."""
