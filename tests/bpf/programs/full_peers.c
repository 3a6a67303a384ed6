// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* A small map in place of the peers' map. It evicts no peer, so it rejects entries when it is full. */
#include "layout.h"

BPF_TABLE_PINNED("hash", struct tb_peer_key, struct tb_peer, tb_peers, 4, TB_PIN_DIR "/tb_peers");
