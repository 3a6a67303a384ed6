"""Rate limits for pods: token buckets in eBPF, declared by TokenBucketPolicy objects."""

__version__ = "0.2.0"
