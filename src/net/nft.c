/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: one transaction is BATCH_BEGIN, messages, BATCH_END, in one datagram; the kernel
 * applies all or none. Only the last message asks for an acknowledgement: errors come unasked, and a
 * transaction with one is answered for its other messages or not, as the kernel pleases. Sets that rules of
 * the same transaction use are named by an id too, as the kernel wants it.
 */
#include "net/nft.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netlink.h>
#include <linux/netfilter/nfnetlink.h>
#include <string.h>

#define MSG(type) ((NFNL_SUBSYS_NFTABLES << 8) | (type))

static void begin(struct nft *t, uint16_t type, uint16_t flags)
{
	struct nfgenmsg g = {.nfgen_family = t->family, .version = NFNETLINK_V0};
	nl_begin(&t->b, MSG(type), flags, &g, sizeof(g));
}

static void bracket(struct nft *t, uint16_t type)
{
	struct nfgenmsg g = {
	    .nfgen_family = AF_UNSPEC, .version = NFNETLINK_V0, .res_id = htons(NFNL_SUBSYS_NFTABLES)};
	nl_begin(&t->b, type, 0, &g, sizeof(g));
	nl_end(&t->b);
}

void nft_begin(struct nft *t, uint8_t family, const char *table)
{
	*t = (struct nft){.b = NL_BATCH, .family = family, .table = table};
	bracket(t, NFNL_MSG_BATCH_BEGIN);
}

void nft_free(struct nft *t)
{
	nl_batch_free(&t->b);
}

void nft_switch(struct nft *t, uint8_t family, const char *table)
{
	t->family = family;
	t->table = table;
}

int nft_commit(struct nft *t, int fd, struct cai_error *err, const char *what)
{
	struct nlmsghdr h;
	if (!t->b.b.failed) {
		memcpy(&h, t->b.b.p + t->b.msg, sizeof(h));
		h.nlmsg_flags |= NLM_F_ACK;
		memcpy(t->b.b.p + t->b.msg, &h, sizeof(h));
	}
	bracket(t, NFNL_MSG_BATCH_END);
	int r = nl_transact(fd, &t->b, NULL, err, what);
	/* The kernel does not say which expression it lacks. */
	if (r < 0 && err && (err->errnum == ENOENT || err->errnum == EOPNOTSUPP))
		cai_fail(err, err->errnum,
			 "%s: this kernel's nf_tables lacks something (needed: inet and arp families, ct, "
			 "fib, limit, connlimit, reject, masq)",
			 what);
	bracket(t, NFNL_MSG_BATCH_BEGIN);
	return r;
}

static int found(const struct nlmsghdr *h, void *ctx)
{
	*(bool *)ctx = true;
	return 0;
}

bool nft_supported(int fd)
{
	struct nfgenmsg g = {.nfgen_family = AF_UNSPEC, .version = NFNETLINK_V0};
	cleanup_batch struct nl_batch b = NL_BATCH;
	bool answered = false;
	nl_begin(&b, MSG(NFT_MSG_GETGEN), 0, &g, sizeof(g));
	nl_end(&b);
	return nl_dump(fd, &b, found, &answered, NULL, "") == 0 && answered;
}

bool nft_table_exists(int fd, uint8_t family, const char *table)
{
	struct nfgenmsg g = {.nfgen_family = family, .version = NFNETLINK_V0};
	cleanup_batch struct nl_batch b = NL_BATCH;
	bool exists = false;
	nl_begin(&b, MSG(NFT_MSG_GETTABLE), 0, &g, sizeof(g));
	nl_attr_str(&b, NFTA_TABLE_NAME, table);
	nl_end(&b);
	return nl_dump(fd, &b, found, &exists, NULL, "") == 0 && exists;
}

void nft_table(struct nft *t, uint32_t flags)
{
	begin(t, NFT_MSG_NEWTABLE, NLM_F_CREATE);
	nl_attr_str(&t->b, NFTA_TABLE_NAME, t->table);
	nl_attr_be32(&t->b, NFTA_TABLE_FLAGS, flags);
	nl_end(&t->b);
}

void nft_del_table(struct nft *t)
{
	begin(t, NFT_MSG_DELTABLE, 0);
	nl_attr_str(&t->b, NFTA_TABLE_NAME, t->table);
	nl_end(&t->b);
}

void nft_base_chain(struct nft *t, const char *name, const char *type, uint32_t hook, int32_t priority,
		    uint32_t policy)
{
	begin(t, NFT_MSG_NEWCHAIN, NLM_F_CREATE);
	nl_attr_str(&t->b, NFTA_CHAIN_TABLE, t->table);
	nl_attr_str(&t->b, NFTA_CHAIN_NAME, name);
	nl_nest(&t->b, NFTA_CHAIN_HOOK);
	nl_attr_be32(&t->b, NFTA_HOOK_HOOKNUM, hook);
	nl_attr_be32(&t->b, NFTA_HOOK_PRIORITY, (uint32_t)priority);
	nl_unnest(&t->b);
	nl_attr_be32(&t->b, NFTA_CHAIN_POLICY, policy);
	nl_attr_str(&t->b, NFTA_CHAIN_TYPE, type);
	nl_end(&t->b);
}

void nft_chain(struct nft *t, const char *name)
{
	begin(t, NFT_MSG_NEWCHAIN, NLM_F_CREATE);
	nl_attr_str(&t->b, NFTA_CHAIN_TABLE, t->table);
	nl_attr_str(&t->b, NFTA_CHAIN_NAME, name);
	nl_end(&t->b);
}

void nft_set(struct nft *t, const char *name, uint32_t id, uint32_t key_len, uint32_t flags, uint32_t size,
	     uint64_t timeout_ms)
{
	begin(t, NFT_MSG_NEWSET, NLM_F_CREATE);
	nl_attr_str(&t->b, NFTA_SET_TABLE, t->table);
	nl_attr_str(&t->b, NFTA_SET_NAME, name);
	nl_attr_be32(&t->b, NFTA_SET_FLAGS, flags);
	nl_attr_be32(&t->b, NFTA_SET_KEY_TYPE, 0); /* only nft(8)'s listings want to know */
	nl_attr_be32(&t->b, NFTA_SET_KEY_LEN, key_len);
	nl_attr_be32(&t->b, NFTA_SET_ID, id);
	if (timeout_ms)
		nl_attr_be64(&t->b, NFTA_SET_TIMEOUT, timeout_ms);
	if (size) {
		nl_nest(&t->b, NFTA_SET_DESC);
		nl_attr_be32(&t->b, NFTA_SET_DESC_SIZE, size);
		nl_unnest(&t->b);
	}
	nl_end(&t->b);
}

static void data(struct nft *t, uint16_t type, const void *p, size_t n)
{
	nl_nest(&t->b, type);
	nl_attr(&t->b, NFTA_DATA_VALUE, p, n);
	nl_unnest(&t->b);
}

void nft_elements(struct nft *t, const char *set, uint32_t id, const void *keys, size_t key_len, size_t n)
{
	begin(t, NFT_MSG_NEWSETELEM, NLM_F_CREATE);
	nl_attr_str(&t->b, NFTA_SET_ELEM_LIST_TABLE, t->table);
	nl_attr_str(&t->b, NFTA_SET_ELEM_LIST_SET, set);
	if (id)
		nl_attr_be32(&t->b, NFTA_SET_ELEM_LIST_SET_ID, id);
	nl_nest(&t->b, NFTA_SET_ELEM_LIST_ELEMENTS);
	for (size_t k = 0; k < n; k++) {
		nl_nest(&t->b, NFTA_LIST_ELEM);
		data(t, NFTA_SET_ELEM_KEY, (const uint8_t *)keys + k * key_len, key_len);
		nl_unnest(&t->b);
	}
	nl_unnest(&t->b);
	nl_end(&t->b);
}

void nft_flush_set(struct nft *t, const char *set)
{
	begin(t, NFT_MSG_DELSETELEM, 0);
	nl_attr_str(&t->b, NFTA_SET_ELEM_LIST_TABLE, t->table);
	nl_attr_str(&t->b, NFTA_SET_ELEM_LIST_SET, set);
	nl_end(&t->b);
}

void nft_rule(struct nft *t, const char *chain)
{
	begin(t, NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND);
	nl_attr_str(&t->b, NFTA_RULE_TABLE, t->table);
	nl_attr_str(&t->b, NFTA_RULE_CHAIN, chain);
	nl_nest(&t->b, NFTA_RULE_EXPRESSIONS);
}

void nft_rule_end(struct nft *t)
{
	nl_unnest(&t->b);
	nl_end(&t->b);
}

static void expr(struct nft *t, const char *name)
{
	nl_nest(&t->b, NFTA_LIST_ELEM);
	nl_attr_str(&t->b, NFTA_EXPR_NAME, name);
	nl_nest(&t->b, NFTA_EXPR_DATA);
}

static void expr_end(struct nft *t)
{
	nl_unnest(&t->b);
	nl_unnest(&t->b);
}

void nft_meta(struct nft *t, uint32_t key, uint32_t reg)
{
	expr(t, "meta");
	nl_attr_be32(&t->b, NFTA_META_KEY, key);
	nl_attr_be32(&t->b, NFTA_META_DREG, reg);
	expr_end(t);
}

void nft_ct(struct nft *t, uint32_t key, uint32_t reg)
{
	expr(t, "ct");
	nl_attr_be32(&t->b, NFTA_CT_KEY, key);
	nl_attr_be32(&t->b, NFTA_CT_DREG, reg);
	expr_end(t);
}

void nft_fib(struct nft *t, uint32_t result, uint32_t flags, uint32_t reg)
{
	expr(t, "fib");
	nl_attr_be32(&t->b, NFTA_FIB_DREG, reg);
	nl_attr_be32(&t->b, NFTA_FIB_RESULT, result);
	nl_attr_be32(&t->b, NFTA_FIB_FLAGS, flags);
	expr_end(t);
}

void nft_payload(struct nft *t, uint32_t base, uint32_t offset, uint32_t len, uint32_t reg)
{
	expr(t, "payload");
	nl_attr_be32(&t->b, NFTA_PAYLOAD_DREG, reg);
	nl_attr_be32(&t->b, NFTA_PAYLOAD_BASE, base);
	nl_attr_be32(&t->b, NFTA_PAYLOAD_OFFSET, offset);
	nl_attr_be32(&t->b, NFTA_PAYLOAD_LEN, len);
	expr_end(t);
}

void nft_mask(struct nft *t, uint32_t reg, const void *mask, size_t n)
{
	static const uint8_t zero[16];
	expr(t, "bitwise");
	nl_attr_be32(&t->b, NFTA_BITWISE_SREG, reg);
	nl_attr_be32(&t->b, NFTA_BITWISE_DREG, reg);
	nl_attr_be32(&t->b, NFTA_BITWISE_LEN, (uint32_t)n);
	data(t, NFTA_BITWISE_MASK, mask, n);
	data(t, NFTA_BITWISE_XOR, zero, n);
	expr_end(t);
}

void nft_cmp(struct nft *t, uint32_t op, uint32_t reg, const void *p, size_t n)
{
	expr(t, "cmp");
	nl_attr_be32(&t->b, NFTA_CMP_SREG, reg);
	nl_attr_be32(&t->b, NFTA_CMP_OP, op);
	data(t, NFTA_CMP_DATA, p, n);
	expr_end(t);
}

void nft_lookup(struct nft *t, const char *set, uint32_t set_id, uint32_t reg, bool invert)
{
	expr(t, "lookup");
	nl_attr_str(&t->b, NFTA_LOOKUP_SET, set);
	nl_attr_be32(&t->b, NFTA_LOOKUP_SET_ID, set_id);
	nl_attr_be32(&t->b, NFTA_LOOKUP_SREG, reg);
	if (invert)
		nl_attr_be32(&t->b, NFTA_LOOKUP_FLAGS, NFT_LOOKUP_F_INV);
	expr_end(t);
}

static void limit_attrs(struct nft *t, uint64_t per_second, uint32_t burst, bool over)
{
	nl_attr_be64(&t->b, NFTA_LIMIT_RATE, per_second);
	nl_attr_be64(&t->b, NFTA_LIMIT_UNIT, 1);
	nl_attr_be32(&t->b, NFTA_LIMIT_BURST, burst);
	nl_attr_be32(&t->b, NFTA_LIMIT_TYPE, NFT_LIMIT_PKTS);
	nl_attr_be32(&t->b, NFTA_LIMIT_FLAGS, over ? NFT_LIMIT_F_INV : 0);
}

void nft_limit(struct nft *t, uint64_t per_second, uint32_t burst, bool over)
{
	expr(t, "limit");
	limit_attrs(t, per_second, burst, over);
	expr_end(t);
}

static void dynset(struct nft *t, const char *set, uint32_t set_id, uint32_t op, uint32_t reg,
		   const char *inner)
{
	expr(t, "dynset");
	nl_attr_str(&t->b, NFTA_DYNSET_SET_NAME, set);
	nl_attr_be32(&t->b, NFTA_DYNSET_SET_ID, set_id);
	nl_attr_be32(&t->b, NFTA_DYNSET_OP, op);
	nl_attr_be32(&t->b, NFTA_DYNSET_SREG_KEY, reg);
	nl_nest(&t->b, NFTA_DYNSET_EXPR);
	nl_attr_str(&t->b, NFTA_EXPR_NAME, inner);
	nl_nest(&t->b, NFTA_EXPR_DATA);
}

static void dynset_end(struct nft *t)
{
	nl_unnest(&t->b);
	nl_unnest(&t->b);
	expr_end(t);
}

void nft_each_limit(struct nft *t, const char *set, uint32_t set_id, uint32_t reg, uint64_t per_second,
		    uint32_t burst)
{
	dynset(t, set, set_id, NFT_DYNSET_OP_UPDATE, reg, "limit");
	limit_attrs(t, per_second, burst, true);
	dynset_end(t);
}

void nft_each_connlimit(struct nft *t, const char *set, uint32_t set_id, uint32_t reg, uint32_t max)
{
	dynset(t, set, set_id, NFT_DYNSET_OP_ADD, reg, "connlimit");
	nl_attr_be32(&t->b, NFTA_CONNLIMIT_COUNT, max);
	nl_attr_be32(&t->b, NFTA_CONNLIMIT_FLAGS, NFT_LIMIT_F_INV);
	dynset_end(t);
}

void nft_verdict(struct nft *t, int code, const char *chain)
{
	expr(t, "immediate");
	nl_attr_be32(&t->b, NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
	nl_nest(&t->b, NFTA_IMMEDIATE_DATA);
	nl_nest(&t->b, NFTA_DATA_VERDICT);
	nl_attr_be32(&t->b, NFTA_VERDICT_CODE, (uint32_t)code);
	if (chain)
		nl_attr_str(&t->b, NFTA_VERDICT_CHAIN, chain);
	nl_unnest(&t->b);
	nl_unnest(&t->b);
	expr_end(t);
}

void nft_immediate(struct nft *t, uint32_t reg, const void *p, size_t n)
{
	expr(t, "immediate");
	nl_attr_be32(&t->b, NFTA_IMMEDIATE_DREG, reg);
	data(t, NFTA_IMMEDIATE_DATA, p, n);
	expr_end(t);
}

void nft_reject(struct nft *t, uint32_t type, uint8_t code)
{
	expr(t, "reject");
	nl_attr_be32(&t->b, NFTA_REJECT_TYPE, type);
	nl_attr_u8(&t->b, NFTA_REJECT_ICMP_CODE, code);
	expr_end(t);
}

void nft_masquerade(struct nft *t)
{
	expr(t, "masq");
	expr_end(t);
}

void nft_dnat(struct nft *t, uint32_t family, uint32_t reg_addr, uint32_t reg_port)
{
	expr(t, "nat");
	nl_attr_be32(&t->b, NFTA_NAT_TYPE, NFT_NAT_DNAT);
	nl_attr_be32(&t->b, NFTA_NAT_FAMILY, family);
	nl_attr_be32(&t->b, NFTA_NAT_REG_ADDR_MIN, reg_addr);
	nl_attr_be32(&t->b, NFTA_NAT_REG_PROTO_MIN, reg_port);
	expr_end(t);
}

static void ifname(struct nft *t, uint32_t key, uint32_t op, const char *name)
{
	char text[16] = {0};
	size_t n = strlen(name);
	if (n >= sizeof(text)) {
		t->b.bad = true;
		return;
	}
	memcpy(text, name, n);
	nft_meta(t, key, NFT_REG_1);
	if (n && text[n - 1] == '*')
		nft_cmp(t, op, NFT_REG_1, text, n - 1);
	else
		nft_cmp(t, op, NFT_REG_1, text, sizeof(text));
}

void nft_iifname(struct nft *t, const char *name)
{
	ifname(t, NFT_META_IIFNAME, NFT_CMP_EQ, name);
}

void nft_oifname(struct nft *t, const char *name)
{
	ifname(t, NFT_META_OIFNAME, NFT_CMP_EQ, name);
}

void nft_not_oifname(struct nft *t, const char *name)
{
	ifname(t, NFT_META_OIFNAME, NFT_CMP_NEQ, name);
}

void nft_nfproto(struct nft *t, uint8_t proto)
{
	nft_meta(t, NFT_META_NFPROTO, NFT_REG_1);
	nft_cmp(t, NFT_CMP_EQ, NFT_REG_1, &proto, 1);
}

void nft_l4proto(struct nft *t, uint8_t proto)
{
	nft_meta(t, NFT_META_L4PROTO, NFT_REG_1);
	nft_cmp(t, NFT_CMP_EQ, NFT_REG_1, &proto, 1);
}

void nft_dport(struct nft *t, uint16_t port)
{
	port = htons(port);
	nft_payload(t, NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, NFT_REG_1);
	nft_cmp(t, NFT_CMP_EQ, NFT_REG_1, &port, 2);
}

void nft_ct_state(struct nft *t, uint32_t bits)
{
	uint32_t zero = 0;
	nft_ct(t, NFT_CT_STATE, NFT_REG_1);
	nft_mask(t, NFT_REG_1, &bits, 4);
	nft_cmp(t, NFT_CMP_NEQ, NFT_REG_1, &zero, 4);
}

static void address(struct nft *t, uint8_t family, uint32_t offset, const uint8_t *addr, size_t n,
		    unsigned prefix)
{
	uint8_t mask[16], masked[16];
	for (size_t k = 0; k < n; k++) {
		unsigned bits = prefix > 8 * k ? prefix - 8 * (unsigned)k : 0;
		mask[k] = bits >= 8 ? 0xff : (uint8_t)(0xff00 >> bits);
		masked[k] = addr[k] & mask[k];
	}
	nft_nfproto(t, family);
	nft_payload(t, NFT_PAYLOAD_NETWORK_HEADER, offset, (uint32_t)n, NFT_REG_1);
	if (prefix < 8 * n)
		nft_mask(t, NFT_REG_1, mask, n);
	nft_cmp(t, NFT_CMP_EQ, NFT_REG_1, masked, n);
}

void nft_daddr4(struct nft *t, const uint8_t addr[4], unsigned prefix)
{
	address(t, NFPROTO_IPV4, 16, addr, 4, prefix);
}

void nft_daddr6(struct nft *t, const uint8_t addr[16], unsigned prefix)
{
	address(t, NFPROTO_IPV6, 24, addr, 16, prefix);
}

void nft_saddr4(struct nft *t, const uint8_t addr[4], unsigned prefix)
{
	address(t, NFPROTO_IPV4, 12, addr, 4, prefix);
}

void nft_saddr6(struct nft *t, const uint8_t addr[16], unsigned prefix)
{
	address(t, NFPROTO_IPV6, 8, addr, 16, prefix);
}
