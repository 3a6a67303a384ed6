"""Everything that talks rtnetlink: links, addresses, filters, their events, and a view of them all."""
