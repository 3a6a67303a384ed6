"""Adapters to rtnetlink: links, addresses, qdiscs, filters, their events, and a view of the node."""
