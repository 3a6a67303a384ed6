"""The Kubernetes API: watching by kopf, lists, and the few writes. Nothing of the kernel's."""
