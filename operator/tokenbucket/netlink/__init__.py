"""Everything that talks rtnetlink: links, addresses, filters, their events, and a view of them all."""

from tokenbucket.netlink.parts import import_in_parts

import_in_parts()  # before anything here imports it
