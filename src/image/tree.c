/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation
 *
 * Layers are applied from the lowest up. Each name remembers the layer that brought it, since a whiteout
 * hides only what lower layers brought, wherever in its own layer it stands. Sweeping a directory for a
 * whiteout is done once a layer (no lower name can come back within it), so hostile repetition costs nothing.
 *
 * The names of a directory are a balanced tree (tsearch): lookups cannot be made slow by chosen names, as in
 * a hash table, and walking it gives the sorted order that EROFS wants.
 */
#include "image/tree.h"

#include <errno.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/util.h"

#define MAX_PATH_LEN 4096
#define MAX_NAME     255
#define MAX_DEPTH    512
#define MAX_LINKS    40
#define MAX_ATTRS    512 /* of one file */
#define MAX_XATTRS                                                                                           \
	(60u << 10) /* bytes of one file's names and values; EROFS could hold four times as much             \
		     */

const struct tree_limits tree_default_limits = {
    .max_entries = 2000000,
    .max_bytes = 64ull << 30,
    .max_xattr_bytes = 256ull << 20,
    .max_steps = 100000000,
    .max_ratio = 200,
    .ratio_from = 1ull << 30,
};

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct tree_dent *)a)->name, ((const struct tree_dent *)b)->name);
}

struct tree_inode *tree_inode_new(void)
{
	return calloc(1, sizeof(struct tree_inode));
}

static void free_xattrs(struct tree_inode *i)
{
	for (struct tree_xattr *x = i->xattrs, *next; x; x = next) {
		next = x->next;
		free(x->name);
		free(x->value);
		free(x);
	}
	i->xattrs = NULL;
}

static void free_dent_tree(void *p)
{
	struct tree_dent *d = p;
	if (S_ISDIR(d->inode->mode) || --d->inode->nlink == 0)
		tree_inode_free(d->inode);
	free(d->name);
	free(d);
}

/* For a directory, with all below it; depth is bounded by MAX_DEPTH. */
void tree_inode_free(struct tree_inode *i)
{
	if (!i)
		return;
	tdestroy(i->children, free_dent_tree);
	free_xattrs(i);
	free(i->target);
	free(i->chunks);
	free(i);
}

int tree_init(struct tree *t, const struct tree_limits *limits)
{
	memset(t, 0, sizeof(*t));
	t->limits = *limits;
	t->root = tree_inode_new();
	if (!t->root)
		return -1;
	t->root->mode = S_IFDIR | 0755;
	t->root->nlink = 1;
	t->root->parent = t->root;
	return 0;
}

void tree_free(struct tree *t)
{
	tree_inode_free(t->root);
	t->root = NULL;
}

static bool xattr_kept(const char *name)
{
	static const char *const prefixes[] = {"user.", "trusted.", "security."};
	if (!strncmp(name, "trusted.overlay.", 16) || !strncmp(name, "user.overlay.", 13))
		return false;
	if (!strcmp(name, "system.posix_acl_access") || !strcmp(name, "system.posix_acl_default"))
		return true;
	for (size_t k = 0; k < ARRAY_LEN(prefixes); k++)
		if (!strncmp(name, prefixes[k], strlen(prefixes[k])) && name[strlen(prefixes[k])])
			return true;
	return false;
}

int tree_set_xattr(struct tree *t, struct tree_inode *i, const char *name, const void *value, size_t len,
		   struct cai_error *err)
{
	if (!xattr_kept(name))
		return 0;
	if (strlen(name) > MAX_NAME)
		return cai_fail(err, EINVAL, "an extended attribute's name is longer than %d bytes",
				MAX_NAME);
	size_t used = len + strlen(name) + 8;
	struct tree_xattr **p = &i->xattrs, *x;
	unsigned n = 0;
	for (x = i->xattrs; x; x = x->next, n++)
		used += x->len + strlen(x->name) + 8u;
	t->xattr_bytes += len + 64;
	if (used > MAX_XATTRS || n >= MAX_ATTRS || t->xattr_bytes > t->limits.max_xattr_bytes)
		return cai_fail(err, E2BIG,
				"there are more extended attributes than Caisson takes (%u KiB a file, %llu "
				"MiB an image)",
				MAX_XATTRS >> 10, (unsigned long long)t->limits.max_xattr_bytes >> 20);
	while (*p && strcmp((*p)->name, name) < 0)
		p = &(*p)->next;
	void *v = malloc(len ? len : 1);
	if (!v)
		return cai_fail(err, ENOMEM, "out of memory");
	if (len)
		memcpy(v, value, len);
	if (*p && !strcmp((*p)->name, name)) {
		free((*p)->value);
		(*p)->value = v;
		(*p)->len = (uint16_t)len;
		return 0;
	}
	x = calloc(1, sizeof(*x));
	if (!x || !(x->name = strdup(name))) {
		free(x);
		free(v);
		return cai_fail(err, ENOMEM, "out of memory");
	}
	x->value = v;
	x->len = (uint16_t)len;
	x->next = *p;
	*p = x;
	return 0;
}

static struct tree_dent *find(const struct tree_inode *dir, const char *name)
{
	struct tree_dent key = {.name = (char *)(uintptr_t)name};
	void *p = tfind(&key, (void *const *)&dir->children, by_name);
	return p ? *(struct tree_dent **)p : NULL;
}

struct each {
	void (*fn)(void *ctx, const struct tree_dent *d);
	void *ctx;
};

static void each_node(const void *node, VISIT which, void *closure)
{
	const struct each *e = closure;
	if (which == postorder || which == leaf)
		e->fn(e->ctx, *(struct tree_dent *const *)node);
}

void tree_each(const struct tree_inode *dir, void (*fn)(void *ctx, const struct tree_dent *d), void *ctx)
{
	struct each e = {fn, ctx};
	twalk_r(dir->children, each_node, &e);
}

/* Frees an inode whose last name is gone, with all below it, and tells the owner of the contents. */
static void drop_inode(struct tree *t, struct tree_inode *i)
{
	if (!S_ISDIR(i->mode) && t->drop)
		t->drop(t->drop_ctx, i);
	while (i->children) {
		struct tree_dent *d = *(struct tree_dent **)i->children;
		tdelete(d, &i->children, by_name);
		if (S_ISDIR(d->inode->mode) || --d->inode->nlink == 0)
			drop_inode(t, d->inode);
		free(d->name);
		free(d);
	}
	tree_inode_free(i);
}

static void remove_dent(struct tree *t, struct tree_inode *dir, struct tree_dent *d)
{
	tdelete(d, &dir->children, by_name);
	dir->n_children--;
	if (S_ISDIR(d->inode->mode)) {
		dir->n_subdirs--;
		drop_inode(t, d->inode);
	} else if (--d->inode->nlink == 0) {
		drop_inode(t, d->inode);
	}
	free(d->name);
	free(d);
}

static struct tree_dent *insert(struct tree_inode *dir, const char *name, uint32_t layer,
				struct tree_inode *i)
{
	struct tree_dent *d = calloc(1, sizeof(*d));
	if (!d || !(d->name = strdup(name)) || !tsearch(d, &dir->children, by_name)) {
		if (d)
			free(d->name);
		free(d);
		return NULL;
	}
	d->layer = layer;
	d->inode = i;
	i->nlink++;
	dir->n_children++;
	if (S_ISDIR(i->mode)) {
		dir->n_subdirs++;
		i->parent = dir;
		i->depth = dir->depth + 1;
	}
	return d;
}

static int count_entry(struct tree *t, struct cai_error *err)
{
	if (++t->n_entries > t->limits.max_entries)
		return cai_fail(err, E2BIG, "the image has more than %llu entries, which is Caisson's limit",
				(unsigned long long)t->limits.max_entries);
	return 0;
}

/* One step of resolving a path. */
struct walk {
	char buf[2 * MAX_PATH_LEN + 2]; /* what is left of the path */
	char *p;
	unsigned links;
	struct tree_inode *at;
};

/* Puts a link's target in front of what is left. */
static int follow(struct tree *t, struct walk *w, const char *target, const char *path, struct cai_error *err)
{
	char rest[MAX_PATH_LEN + 1];
	size_t n = strlen(w->p), m = strlen(target);
	if (++w->links > MAX_LINKS || m + n + 2 > sizeof(w->buf) || n >= sizeof(rest))
		return cai_fail(err, ELOOP, "too many symbolic links on the way to '%.200s'", path);
	memcpy(rest, w->p, n + 1);
	memcpy(w->buf, target, m);
	w->buf[m] = '/';
	memcpy(w->buf + m + 1, rest, n + 1);
	w->p = w->buf;
	if (target[0] == '/')
		w->at = t->root;
	return 0;
}

/* Refuses names that no tool means: empty ones are the root, ".." leads out. */
static int check_path(const char *path, struct cai_error *err)
{
	if (strlen(path) >= MAX_PATH_LEN)
		return cai_fail(err, ENAMETOOLONG, "the entry '%.100s...' has a name of more than %d bytes",
				path, MAX_PATH_LEN - 1);
	for (const char *s = path; *s;) {
		size_t n = strcspn(s, "/");
		if (n == 2 && s[0] == '.' && s[1] == '.')
			return cai_fail(err, EINVAL, "the entry '%.200s' leads out of the image", path);
		if (n > MAX_NAME)
			return cai_fail(err, ENAMETOOLONG,
					"the entry '%.100s...' has a part of more than %d bytes", path,
					MAX_NAME);
		s += n;
		s += strspn(s, "/");
	}
	return 0;
}

/*
 * Walks to the directory that holds path's last part. make: directories that are missing on the way are made
 * (0755, root), as archives may leave them out. *name points into path's last part (copied to out_name); ""
 * when path is the root. 0; -1 with *err; 1 when something is missing and make is false.
 */
static int walk_parent(struct tree *t, const char *path, bool make, uint32_t layer, struct tree_inode **dir,
		       char out_name[MAX_NAME + 1], struct cai_error *err)
{
	if (check_path(path, err) < 0)
		return -1;
	struct walk w = {.at = t->root};
	/* The last part is never followed, so it is cut off first. */
	size_t n = strlen(path);
	while (n && (path[n - 1] == '/' || (path[n - 1] == '.' && (n == 1 || path[n - 2] == '/'))))
		n--;
	size_t cut = n;
	while (cut && path[cut - 1] != '/')
		cut--;
	memcpy(out_name, path + cut, n - cut);
	out_name[n - cut] = 0;
	memcpy(w.buf, path, cut);
	w.buf[cut] = 0;
	w.p = w.buf;
	while (*w.p) {
		size_t len = strcspn(w.p, "/");
		char part[MAX_NAME + 1];
		if (len > MAX_NAME)
			return cai_fail(err, ENAMETOOLONG,
					"a link on the way to '%.200s' has a part of more than %d bytes",
					path, MAX_NAME);
		memcpy(part, w.p, len);
		part[len] = 0;
		w.p += len;
		w.p += strspn(w.p, "/");
		if (++t->steps > t->limits.max_steps)
			return cai_fail(
			    err, E2BIG,
			    "the image's names and links have more parts than Caisson walks (%llu)",
			    (unsigned long long)t->limits.max_steps);
		if (!len || !strcmp(part, "."))
			continue;
		if (!strcmp(part, "..")) {
			w.at = w.at->parent;
			continue;
		}
		struct tree_dent *d = find(w.at, part);
		if (d && S_ISLNK(d->inode->mode)) {
			if (!make && layer && d->layer == layer)
				return 1; /* a whiteout in the directory that this layer's link has replaced
					   */
			if (follow(t, &w, d->inode->target, path, err) < 0)
				return -1;
			continue;
		}
		if (d && S_ISDIR(d->inode->mode)) {
			w.at = d->inode;
			continue;
		}
		if (d)
			return make ? cai_fail(err, ENOTDIR,
					       "the entry '%.200s' is below '%.200s', which is no directory",
					       path, part)
				    : 1;
		if (!make)
			return 1;
		struct tree_inode *i = tree_inode_new();
		if (!i)
			return cai_fail(err, ENOMEM, "out of memory");
		i->mode = S_IFDIR | 0755;
		if (count_entry(t, err) < 0) {
			free(i);
			return -1;
		}
		if (w.at->depth >= MAX_DEPTH) {
			free(i);
			return cai_fail(err, ENAMETOOLONG, "directories are nested more than %d deep",
					MAX_DEPTH);
		}
		if (!insert(w.at, part, layer, i)) {
			free(i);
			return cai_fail(err, ENOMEM, "out of memory");
		}
		w.at = i;
	}
	*dir = w.at;
	return 0;
}

/* The metadata of from, which is freed, for the directory to. */
static void take_metadata(struct tree_inode *to, struct tree_inode *from)
{
	to->mode = from->mode;
	to->uid = from->uid;
	to->gid = from->gid;
	to->mtime = from->mtime;
	to->mtime_ns = from->mtime_ns;
	free_xattrs(to);
	to->xattrs = from->xattrs;
	from->xattrs = NULL;
	tree_inode_free(from);
}

int tree_add(struct tree *t, uint32_t layer, const char *path, struct tree_inode *i,
	     struct tree_inode **placed, struct cai_error *err)
{
	char name[MAX_NAME + 1];
	struct tree_inode *dir;
	if (count_entry(t, err) < 0 || walk_parent(t, path, true, layer, &dir, name, err) < 0) {
		tree_inode_free(i);
		return -1;
	}
	if (!name[0]) {
		if (!S_ISDIR(i->mode)) {
			tree_inode_free(i);
			return cai_fail(err, EINVAL, "the image's root is no directory");
		}
		take_metadata(t->root, i);
		if (placed)
			*placed = t->root;
		return 0;
	}
	struct tree_dent *d = find(dir, name);
	if (d && S_ISDIR(d->inode->mode) && S_ISDIR(i->mode)) {
		take_metadata(d->inode, i);
		d->layer = layer;
		if (placed)
			*placed = d->inode;
		return 0;
	}
	if (S_ISDIR(i->mode) && dir->depth >= MAX_DEPTH) {
		tree_inode_free(i);
		return cai_fail(err, ENAMETOOLONG, "directories are nested more than %d deep", MAX_DEPTH);
	}
	if (d)
		remove_dent(t, dir, d);
	if (!insert(dir, name, layer, i)) {
		tree_inode_free(i);
		return cai_fail(err, ENOMEM, "out of memory");
	}
	if (placed)
		*placed = i;
	return 0;
}

struct tree_inode *tree_lookup(struct tree *t, const char *path)
{
	char name[MAX_NAME + 1];
	struct tree_inode *dir;
	if (walk_parent(t, path, false, 0, &dir, name, NULL) != 0)
		return NULL;
	if (!name[0])
		return t->root;
	struct tree_dent *d = find(dir, name);
	return d ? d->inode : NULL;
}

int tree_link(struct tree *t, uint32_t layer, const char *path, const char *target, struct cai_error *err)
{
	char name[MAX_NAME + 1];
	struct tree_inode *dir;
	if (count_entry(t, err) < 0 || check_path(target, err) < 0)
		return -1;
	struct tree_inode *to = tree_lookup(t, target);
	if (!to)
		return cai_fail(err, ENOENT,
				"the entry '%.200s' is a hard link to '%.200s', which is not in the image",
				path, target);
	if (S_ISDIR(to->mode))
		return cai_fail(err, EINVAL, "the entry '%.200s' is a hard link to a directory", path);
	if (walk_parent(t, path, true, layer, &dir, name, err) < 0)
		return -1;
	if (!name[0])
		return cai_fail(err, EINVAL, "the image's root is a hard link");
	struct tree_dent *d = find(dir, name);
	if (d && d->inode == to) {
		d->layer = layer;
		return 0;
	}
	to->nlink++; /* what is replaced may be an ancestor of it */
	if (d)
		remove_dent(t, dir, d);
	bool ok = insert(dir, name, layer, to) != NULL;
	if (--to->nlink == 0)
		drop_inode(t, to);
	return ok ? 0 : cai_fail(err, ENOMEM, "out of memory");
}

#define WHITEOUT ".wh."
#define OPAQUE	 ".wh..wh..opq"

static const char *last_part(const char *path)
{
	const char *s = strrchr(path, '/');
	return s ? s + 1 : path;
}

bool tree_is_whiteout(const char *path)
{
	return !strncmp(last_part(path), WHITEOUT, 4);
}

struct sweep {
	struct tree *t;
	uint32_t layer;
	struct tree_dent **gone;
	size_t n, cap;
	bool failed;
};

static void sweep_dir(struct tree *t, struct tree_inode *dir, uint32_t layer, bool *failed);

static void sweep_child(void *ctx, const struct tree_dent *d)
{
	struct sweep *s = ctx;
	if (S_ISDIR(d->inode->mode))
		sweep_dir(s->t, d->inode, s->layer, &s->failed);
	if (d->layer >= s->layer || (S_ISDIR(d->inode->mode) && d->inode->n_children))
		return;
	if (s->n == s->cap) {
		size_t cap = s->cap ? s->cap * 2 : 16;
		struct tree_dent **g = realloc(s->gone, cap * sizeof(*g));
		if (!g) {
			s->failed = true;
			return;
		}
		s->gone = g;
		s->cap = cap;
	}
	s->gone[s->n++] = (struct tree_dent *)(uintptr_t)d;
}

/* Removes from dir what layers below brought; a directory in which this layer has put something stays. */
static void sweep_dir(struct tree *t, struct tree_inode *dir, uint32_t layer, bool *failed)
{
	if (dir->swept == layer)
		return;
	dir->swept = layer;
	struct sweep s = {.t = t, .layer = layer};
	tree_each(dir, sweep_child, &s);
	for (size_t k = 0; k < s.n; k++)
		remove_dent(t, dir, s.gone[k]);
	free(s.gone);
	*failed |= s.failed;
}

int tree_whiteout(struct tree *t, uint32_t layer, const char *path, struct cai_error *err)
{
	char name[MAX_NAME + 1];
	struct tree_inode *dir;
	bool failed = false;
	if (count_entry(t, err) < 0)
		return -1;
	int r = walk_parent(t, path, false, layer, &dir, name, err);
	if (r < 0)
		return -1;
	if (r > 0)
		return 0; /* it hides what never was */
	if (!strcmp(name, OPAQUE)) {
		sweep_dir(t, dir, layer, &failed);
	} else if (strncmp(name, WHITEOUT WHITEOUT, 8)) { /* other .wh..wh. files are AUFS's own */
		const char *what = name + 4;
		if (!what[0] || !strcmp(what, ".") || !strcmp(what, ".."))
			return cai_fail(err, EINVAL, "'%.200s' is no whiteout of a file", path);
		struct tree_dent *d = find(dir, what);
		if (d && S_ISDIR(d->inode->mode))
			sweep_dir(t, d->inode, layer, &failed);
		if (d && d->layer < layer && !(S_ISDIR(d->inode->mode) && d->inode->n_children))
			remove_dent(t, dir, d);
	}
	return failed ? cai_fail(err, ENOMEM, "out of memory") : 0;
}
