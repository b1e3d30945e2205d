/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nf_tables transactions: tables, chains, sets and rules as netlink messages (linux/netfilter/nf_tables.h). A
 * rule is the expressions that are added between nft_rule and nft_rule_end; the first one that does not match
 * ends it. Registers are NFT_REG_1 (16 bytes) and, for keys made of several fields, NFT_REG32_00 and up (4
 * bytes each).
 */
#ifndef NET_NFT_H
#define NET_NFT_H

#include <netinet/in.h> /* before the kernel's headers, which then leave these names alone */
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <stdint.h>

#include "net/netlink.h"

struct nft {
	struct nl_batch b;
	uint8_t family;	   /* NFPROTO_INET, NFPROTO_ARP, ... of the table being built */
	const char *table; /* its name (borrowed) */
};
#define cleanup_nft __attribute__((cleanup(nft_free)))

void nft_begin(struct nft *t, uint8_t family, const char *table);
void nft_free(struct nft *t);
/* All or nothing. fd: a NETLINK_NETFILTER socket. 0 or -1. */
int nft_commit(struct nft *t, int fd, struct cai_error *err, const char *what);

/* Whether this kernel has nf_tables at all. */
bool nft_supported(int fd);
/* Whether the table exists. Not part of the transaction. */
bool nft_table_exists(int fd, uint8_t family, const char *table);

/* Following messages are about another table of the same transaction. */
void nft_switch(struct nft *t, uint8_t family, const char *table);
void nft_table(struct nft *t, uint32_t flags); /* NFT_TABLE_F_OWNER: it goes when fd is closed */
void nft_del_table(struct nft *t);	       /* fails with ENOENT */
void nft_base_chain(struct nft *t, const char *name, const char *type, uint32_t hook, int32_t priority,
		    uint32_t policy);
void nft_chain(struct nft *t, const char *name);
/* key_len: all fields together, each rounded up to 4 bytes. flags: NFT_SET_*; size and timeout_ms: 0 for
 * none. */
void nft_set(struct nft *t, const char *name, uint32_t id, uint32_t key_len, uint32_t flags, uint32_t size,
	     uint64_t timeout_ms);
/* n elements of key_len bytes each, one after the other; present ones are no error. */
void nft_elements(struct nft *t, const char *set, uint32_t id, const void *keys, size_t key_len, size_t n);

/* Removes all elements. */
void nft_flush_set(struct nft *t, const char *set);

void nft_rule(struct nft *t, const char *chain);
void nft_rule_end(struct nft *t);

void nft_meta(struct nft *t, uint32_t key, uint32_t reg);
void nft_ct(struct nft *t, uint32_t key, uint32_t reg);
void nft_fib(struct nft *t, uint32_t result, uint32_t flags, uint32_t reg);
void nft_payload(struct nft *t, uint32_t base, uint32_t offset, uint32_t len, uint32_t reg);
void nft_mask(struct nft *t, uint32_t reg, const void *mask, size_t n); /* reg &= mask */
void nft_cmp(struct nft *t, uint32_t op, uint32_t reg, const void *p, size_t n);
void nft_lookup(struct nft *t, const char *set, uint32_t set_id, uint32_t reg, bool invert);
void nft_limit(struct nft *t, uint64_t per_second, uint32_t burst, bool over);
/* A limit, or a maximum of tracked connections, for each value of reg; matches what is over it. */
void nft_each_limit(struct nft *t, const char *set, uint32_t set_id, uint32_t reg, uint64_t per_second,
		    uint32_t burst);
void nft_each_connlimit(struct nft *t, const char *set, uint32_t set_id, uint32_t reg, uint32_t max);
void nft_verdict(struct nft *t, int code, const char *chain); /* NF_ACCEPT, NF_DROP, NFT_JUMP, ... */
void nft_reject(struct nft *t, uint32_t type, uint8_t code);
void nft_masquerade(struct nft *t);
/* DNAT to the address and port in the registers. */
void nft_dnat(struct nft *t, uint32_t family, uint32_t reg_addr, uint32_t reg_port);
void nft_immediate(struct nft *t, uint32_t reg, const void *p, size_t n);

/* Shorthands that are a load and a comparison. */
void nft_iifname(struct nft *t, const char *name); /* "cs*" is a prefix */
void nft_oifname(struct nft *t, const char *name);
void nft_not_oifname(struct nft *t, const char *name);
void nft_nfproto(struct nft *t, uint8_t proto);
void nft_l4proto(struct nft *t, uint8_t proto);
void nft_dport(struct nft *t, uint16_t port);
void nft_ct_state(struct nft *t, uint32_t bits); /* any of NF_CT_STATE_BIT's */
void nft_daddr4(struct nft *t, const uint8_t addr[4], unsigned prefix);
void nft_daddr6(struct nft *t, const uint8_t addr[16], unsigned prefix);
void nft_saddr4(struct nft *t, const uint8_t addr[4], unsigned prefix);
void nft_saddr6(struct nft *t, const uint8_t addr[16], unsigned prefix);

/* Values of the ct state register (linux/netfilter/nf_conntrack_common.h: NF_CT_STATE_BIT). */
#define NFT_CT_INVALID	   (1u << 0)
#define NFT_CT_ESTABLISHED (1u << 1)
#define NFT_CT_RELATED	   (1u << 2)
#define NFT_CT_NEW	   (1u << 3)
#define NFT_CT_UNTRACKED   (1u << 6)

#endif
