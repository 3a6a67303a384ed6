"""Adapters to bpf(2): pins, maps, programs and the loader."""
