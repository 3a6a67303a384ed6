/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Three compilers read these files: bcc at run time (it defines TB_PIN_DIR, includes its own helpers and
 * writes the license), clang ahead of time, and gcc for tests on the host (layout.h and gcra.h only).
 */
#ifndef TB_COMPILER_H
#define TB_COMPILER_H

#include <linux/types.h>

#if defined(TB_PIN_DIR)
#define SEC(name)
#elif defined(__bpf__)
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#endif

#endif
