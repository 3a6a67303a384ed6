"""A real Kubernetes cluster on one machine, without a container registry, Docker or systemd.

Control plane and nodes are namespaces below one process, the *root box*: when that process dies, the kernel
ends every process, mount and network device of the cluster with it. What else there is, cgroups and one state
directory, is found by name. So ``down`` works on whatever a killed ``up`` has left.
"""
