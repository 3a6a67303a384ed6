"""A folder of manifests, in place of an API server."""
