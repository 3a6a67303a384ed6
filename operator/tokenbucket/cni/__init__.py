"""What the container runtime remembers of the network it gave to each pod."""
