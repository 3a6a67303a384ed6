"""The constants of the kernel's interface match its headers."""

from __future__ import annotations

import subprocess

from tokenbucket.netlink import uapi

HEADERS = (
    "sys/socket.h linux/sched.h linux/if_arp.h linux/if_ether.h linux/netlink.h linux/rtnetlink.h "
    "linux/if_addr.h linux/if_link.h linux/net_namespace.h linux/gen_stats.h linux/pkt_cls.h "
    "linux/pkt_sched.h linux/tc_act/tc_mirred.h"
)


def test_constants_have_the_values_of_the_headers(tmp_path):
    constants = {name: value for name, value in vars(uapi).items() if name.isupper()}
    includes = "".join(f"#include <{header}>\n" for header in HEADERS.split())
    asserts = "".join(
        f'_Static_assert((unsigned)({name}) == {value}U, "{name}");\n' for name, value in constants.items()
    )
    source = tmp_path / "uapi.c"
    source.write_text(includes + asserts)
    assert len(constants) > 50
    subprocess.run(["gcc", "-fsyntax-only", str(source)], check=True)
