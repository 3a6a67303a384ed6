"""Everything that talks to bpf(2): pins, maps and the loader."""
