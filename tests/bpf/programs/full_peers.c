// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* A map in the place of the peers' that is soon full and forgets nobody, so that it refuses entries. */
#include "layout.h"

BPF_TABLE_PINNED("hash", struct tb_peer_key, struct tb_peer, tb_peers, 4, TB_PIN_DIR "/tb_peers");
