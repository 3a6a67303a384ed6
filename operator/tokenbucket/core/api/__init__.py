"""Documents and values of the API: policies, pods, the enforcement mode, the report of a node."""
