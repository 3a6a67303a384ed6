"""The only writer of the policies' status, which it sums from what the agents report."""
