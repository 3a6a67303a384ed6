"""Read manifests from a folder instead of an API server."""
