"""Metrics for Prometheus: what each is called, and how it is answered."""
