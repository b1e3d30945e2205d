/* SPDX-License-Identifier: Apache-2.0 */
/* Images: references, the documents, merging of layers, the EROFS file, the store. */
#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/file.h"
#include "base/util.h"
#include "image/layer.h"
#include "image/oci.h"
#include "image/registry.h"
#include "image/store.h"

static void references_are_read_as_docker_reads_them(void **state)
{
	static const struct {
		const char *text, *full; /* full NULL: refused */
	} cases[] = {
		{"debian", "docker.io/library/debian:latest"},
		{"debian:12", "docker.io/library/debian:12"},
		{"me/app", "docker.io/me/app:latest"},
		{"docker.io/debian", "docker.io/library/debian:latest"},
		{"index.docker.io/debian", "docker.io/library/debian:latest"},
		{"localhost/x:1", "localhost/x:1"},
		{"localhost:5000/a/b__c:V.1-x", "localhost:5000/a/b__c:V.1-x"},
		{"[::1]:5000/x", "[::1]:5000/x:latest"},
		{"quay.io/a@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
		 "quay.io/a@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"},
		{"", NULL},
		{"Debian", NULL},
		{"a//b", NULL},
		{"../x", NULL},
		{"a:", NULL},
		{"a:-x", NULL},
		{"a..b", NULL},
		{"a-/b", NULL},
		{"x.io:port/a", NULL},
		{"a@sha256:123", NULL},
		{"a b", NULL},
		{"a?b", NULL},
		{"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", NULL}, /* an id, not a name */
		{"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", NULL},
		{"me/sha256:1", "docker.io/me/sha256:1"},
	};
	for (size_t k = 0; k < ARRAY_LEN(cases); k++) {
		struct image_ref r;
		struct cai_error err = {0};
		char full[720];
		int ok = image_ref_parse(cases[k].text, &r, &err);
		if (!cases[k].full) {
			assert_int_equal(ok, -1);
			assert_true(err.text[0]);
			continue;
		}
		assert_int_equal(ok, 0);
		assert_string_equal(image_ref_full(&r, full, sizeof(full)), cases[k].full);
	}
}

static void a_challenge_gives_its_parameters(void **state)
{
	char v[64];
	const char *h = " Bearer realm=\"https://a/t\",service=\"s\",scope=\"repository:x:pull\"";
	assert_int_equal(registry_challenge(h, "realm", v, sizeof(v)), 0);
	assert_string_equal(v, "https://a/t");
	assert_int_equal(registry_challenge(h, "scope", v, sizeof(v)), 0);
	assert_string_equal(v, "repository:x:pull");
	assert_int_equal(registry_challenge(h, "error", v, sizeof(v)), -1);
	assert_int_equal(registry_challenge("Bearer realm=\"x", "realm", v, sizeof(v)), -1);
}

#define D "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde"

static void sentences_hold_nothing_that_a_terminal_obeys(void **state)
{
	struct cai_error err;
	cai_fail(&err, 0, "a\033[2J\nb\177c\302\233d \303\244");
	assert_string_equal(err.text, "a?[2J?b?c??d \303\244");
}

static void absurd_documents_are_refused(void **state)
{
	static const char *const manifests[] = {
		"{\"config\":{},\"layers\":[]}",
		"{\"config\":{\"digest\":\"" D "0\",\"size\":-1},\"layers\":[{\"digest\":\"" D "1\",\"size\":1}]}",
		"{\"config\":{\"digest\":\"" D "0\",\"size\":1},\"layers\":[]}",
		"{\"config\":{\"digest\":\"" D "0\",\"size\":99999999},\"layers\":[{\"digest\":\"" D "1\",\"size\":1}]}",
		"{\"config\":{\"digest\":\"md5:0\",\"size\":1},\"layers\":[{\"digest\":\"" D "1\",\"size\":1}]}",
		"{\"config\":{\"digest\":\"" D "0\",\"size\":1},\"layers\":[{\"digest\":\"../../x\",\"size\":1}]}",
		"{\"config\":{\"digest\":\"" D "0\",\"size\":1},\"layers\":[7]}",
	};
	struct oci_manifest *m = malloc(sizeof(*m));
	struct cai_error err;
	for (size_t k = 0; k < ARRAY_LEN(manifests); k++) {
		json_t *doc = oci_parse(manifests[k], strlen(manifests[k]), "it", &err);
		assert_non_null(doc);
		assert_int_equal(oci_manifest(doc, m, &err), -1);
		json_decref(doc);
	}
	free(m);
	assert_null(oci_parse("{\"a\":1,\"a\":2}", 13, "it", &err));
	assert_null(oci_parse("{", 1, "it", &err));
	json_t *old = json_pack("{s:i}", "schemaVersion", 1);
	assert_int_equal(oci_kind(old, &err), -1);
	assert_non_null(strstr(err.text, "old format"));
	json_decref(old);
}

static void an_index_gives_the_manifest_for_this_machine(void **state)
{
	const char *text = "{\"manifests\":["
			   "{\"digest\":\"" D "0\",\"size\":1,\"platform\":{\"os\":\"linux\",\"architecture\":\"arm64\"}},"
			   "{\"digest\":\"" D "1\",\"size\":2,\"platform\":{\"os\":\"linux\",\"architecture\":\"amd64\"}},"
			   "{\"digest\":\"" D "2\",\"size\":3,\"platform\":{\"os\":\"unknown\",\"architecture\":\"unknown\"}}]}";
	struct cai_error err;
	struct oci_descriptor d;
	json_t *doc = oci_parse(text, strlen(text), "it", &err);
	assert_int_equal(oci_pick(doc, NULL, &d, NULL, &err), 0);
	assert_string_equal(d.digest, D "1");
	json_array_remove(json_object_get(doc, "manifests"), 1);
	assert_int_equal(oci_pick(doc, NULL, &d, NULL, &err), -1);
	json_decref(doc);
	/* Of variants, the one that every machine can run. */
	static const char *const variants[] = {"v3", "v2", "v1", "v4"};
	json_t *list = json_array();
	for (size_t k = 0; k < ARRAY_LEN(variants); k++) {
		char digest[80];
		snprintf(digest, sizeof(digest), D "%zu", k);
		json_array_append_new(list, json_pack("{s:s,s:i,s:{s:s,s:s,s:s}}", "digest", digest, "size", 1, "platform", "os", "linux", "architecture", "amd64",
						      "variant", variants[k]));
	}
	doc = json_pack("{s:o}", "manifests", list);
	assert_int_equal(oci_pick(doc, NULL, &d, NULL, &err), 0);
	assert_string_equal(d.digest, D "2");
	json_decref(doc);
}

/* ---- layers: a line is "KIND PATH [ARGUMENT]"; f file with contents, d directory, l link, h hard link, c device, w whiteout ---- */

static int make_tar(const char *const *lines)
{
	int fd = memfd_create("layer", 0);
	struct archive *a = archive_write_new();
	archive_write_set_format_pax_restricted(a);
	archive_write_add_filter_gzip(a);
	assert_int_equal(archive_write_open_fd(a, fd), ARCHIVE_OK);
	for (; *lines; lines++) {
		char path[600], arg[600] = "", kind;
		assert_true(sscanf(*lines, "%c %599s %599s", &kind, path, arg) >= 2);
		struct archive_entry *e = archive_entry_new();
		archive_entry_set_pathname(e, path);
		archive_entry_set_perm(e, 0640);
		archive_entry_set_uid(e, 70000);
		archive_entry_set_gid(e, 7);
		archive_entry_set_mtime(e, 1000000007, 5);
		archive_entry_set_filetype(e, kind == 'd' ? AE_IFDIR : kind == 'l' ? AE_IFLNK : kind == 'c' ? AE_IFCHR : AE_IFREG);
		archive_entry_set_size(e, kind == 'f' ? (la_int64_t)strlen(arg) : 0);
		if (kind == 'l')
			archive_entry_set_symlink(e, arg);
		if (kind == 'h')
			archive_entry_set_hardlink(e, arg);
		if (kind == 'c')
			archive_entry_set_rdev(e, makedev(1, 3));
		if (kind == 'f')
			archive_entry_xattr_add_entry(e, "user.k", "v", 1);
		assert_int_equal(archive_write_header(a, e), ARCHIVE_OK);
		if (kind == 'f')
			archive_write_data(a, arg, strlen(arg));
		archive_entry_free(e);
	}
	archive_write_close(a);
	archive_write_free(a);
	return fd;
}

struct merge {
	struct tree t;
	struct erofs_writer w;
	int out, spill;
	uint32_t n;
	struct cai_error err;
};

static void merge_begin(struct merge *m, const struct tree_limits *l)
{
	memset(m, 0, sizeof(*m));
	m->out = memfd_create("out", 0);
	m->spill = memfd_create("spill", 0);
	assert_int_equal(tree_init(&m->t, l), 0);
	assert_int_equal(erofs_writer_init(&m->w, m->out, m->spill, l->max_bytes, &m->err), 0);
	m->t.drop = erofs_file_drop;
	m->t.drop_ctx = &m->w;
}

static int merge_layer(struct merge *m, const char *const *lines)
{
	int fd = make_tar(lines);
	struct blob b = {.fd = fd, .len = (uint64_t)lseek(fd, 0, SEEK_END)};
	int r = layer_apply(&b, ++m->n, NULL, NULL, &m->t, &m->w, NULL, &m->err);
	close(fd);
	return r;
}

static void merge_end(struct merge *m)
{
	tree_free(&m->t);
	erofs_writer_free(&m->w);
	close(m->out);
	close(m->spill);
}

#define LAYER(...) ((const char *const[]){__VA_ARGS__, NULL})

static bool there(struct merge *m, const char *path)
{
	return tree_lookup(&m->t, path) != NULL;
}

static void whiteouts_hide_lower_layers_only(void **state)
{
	struct merge m;
	merge_begin(&m, &tree_default_limits);
	assert_int_equal(merge_layer(&m, LAYER("d a", "f a/1 x", "f a/2 x", "d b", "f b/1 x", "d c", "d c/d", "f c/d/e x", "f z x", "h y z")), 0);
	assert_int_equal(merge_layer(&m, LAYER("f a/3 new", "w a/.wh.1", "f a/1 again", "w a/.wh.2", "f b/new x", "w b/.wh..wh..opq", "w .wh.c", "w .wh.never",
					       "f c/d/f x", "w .wh.z", "w no/such/.wh.x")),
			 0);
	assert_true(there(&m, "a/3"));
	assert_true(there(&m, "a/1"));
	assert_false(there(&m, "a/2"));
	assert_false(there(&m, "b/1"));
	assert_true(there(&m, "b/new"));
	assert_false(there(&m, "c/d/e"));
	assert_true(there(&m, "c/d/f"));
	assert_false(there(&m, "z"));
	assert_int_equal(tree_lookup(&m.t, "y")->nlink, 1);
	merge_end(&m);
}

static void a_later_entry_replaces_an_earlier_one_of_any_kind(void **state)
{
	struct merge m;
	merge_begin(&m, &tree_default_limits);
	assert_int_equal(merge_layer(&m, LAYER("d d", "f d/f x", "h h d/f", "f f x", "l l d")), 0);
	assert_int_equal(merge_layer(&m, LAYER("f d now-a-file", "d f", "f f/x y", "f l/in-d x")), -1); /* l leads to what is no directory now */
	merge_end(&m);
	merge_begin(&m, &tree_default_limits);
	assert_int_equal(merge_layer(&m, LAYER("d d", "f d/f x", "h h d/f", "l l d", "l usr/lib ../lib64")), 0);
	assert_int_equal(merge_layer(&m, LAYER("f l/through x", "f usr/lib/x y", "h d/f2 h")), 0);
	assert_true(there(&m, "d/through"));
	assert_true(there(&m, "lib64/x"));
	assert_int_equal(tree_lookup(&m.t, "h")->nlink, 3);
	assert_int_equal(merge_layer(&m, LAYER("f d gone")), 0);
	assert_int_equal(tree_lookup(&m.t, "h")->nlink, 1);
	merge_end(&m);
}

static void nothing_leads_out_of_the_tree(void **state)
{
	static const char *const bad[] = {"f ../x y", "f a/../../x y", "h x ../../etc/passwd", "h x /etc/passwd", "f a/.. x"};
	for (size_t k = 0; k < ARRAY_LEN(bad); k++) {
		struct merge m;
		merge_begin(&m, &tree_default_limits);
		assert_int_equal(merge_layer(&m, LAYER(bad[k])), -1);
		assert_true(m.err.text[0]);
		merge_end(&m);
	}
	struct merge m;
	merge_begin(&m, &tree_default_limits);
	assert_int_equal(merge_layer(&m, LAYER("l out ../../../../tmp", "f out/x y", "f /abs/x y")), 0);
	assert_true(there(&m, "tmp/x"));
	assert_true(there(&m, "abs/x"));
	assert_int_equal(merge_layer(&m, LAYER("l p q", "l q p", "f p/x y")), -1);
	merge_end(&m);
}

static void limits_hold(void **state)
{
	struct tree_limits l = tree_default_limits;
	struct merge m;
	l.max_entries = 5;
	merge_begin(&m, &l);
	assert_int_equal(merge_layer(&m, LAYER("f 1 x", "f 2 x", "f 3 x", "f 3 x", "f 3 x", "f 3 x")), -1);
	merge_end(&m);
	l = tree_default_limits;
	l.max_bytes = 10;
	merge_begin(&m, &l);
	assert_int_equal(merge_layer(&m, LAYER("f 1 12345678901")), -1);
	merge_end(&m);
	l = tree_default_limits;
	l.max_steps = 100;
	merge_begin(&m, &l);
	assert_int_equal(merge_layer(&m, LAYER("d d", "l l d/../d/../d/../d/../d/../d/../d/../d", "f l/1 x", "f l/2 x")), 0);
	assert_int_equal(merge_layer(&m, LAYER("f l/3 x", "f l/4 x", "f l/5 x", "f l/6 x", "f l/7 x")), -1);
	assert_non_null(strstr(m.err.text, "more parts"));
	merge_end(&m);
	l = tree_default_limits;
	l.ratio_from = 0;
	l.max_ratio = 2;
	merge_begin(&m, &l);
	assert_int_equal(merge_layer(&m, LAYER("d 1", "d 2", "d 3")), -1);
	assert_non_null(strstr(m.err.text, "2 times"));
	merge_end(&m);
}

static void wrong_and_cut_layers_are_refused(void **state)
{
	struct merge m;
	int fd = make_tar(LAYER("f a hello", "f b world"));
	uint64_t len = (uint64_t)lseek(fd, 0, SEEK_END);
	struct blob whole = {.fd = fd, .len = len}, cut = {.fd = fd, .len = len - 20}, beyond = {.fd = fd, .len = len + 1};
	char id[IMAGE_DIGEST_LEN + 1];
	merge_begin(&m, &tree_default_limits);
	assert_int_equal(layer_apply(&whole, 1, NULL, NULL, &m.t, &m.w, id, &m.err), 0);
	assert_true(image_digest_valid(id));
	assert_int_equal(layer_apply(&whole, 2, NULL, id, &m.t, &m.w, NULL, &m.err), 0);
	assert_int_equal(layer_apply(&whole, 3, id, NULL, &m.t, &m.w, NULL, &m.err), -1); /* packed is not unpacked */
	assert_non_null(strstr(m.err.text, "digest"));
	assert_int_equal(layer_apply(&cut, 4, NULL, id, &m.t, &m.w, NULL, &m.err), -1);
	assert_int_equal(layer_apply(&beyond, 5, NULL, NULL, &m.t, &m.w, NULL, &m.err), -1);
	merge_end(&m);
	close(fd);
}

static void the_erofs_file_is_sound_and_the_same_each_time(void **state)
{
	uint8_t *first = NULL;
	uint64_t size = 0, again;
	char name[300], line[320];
	memset(name, 'n', 254);
	name[254] = 0;
	snprintf(line, sizeof(line), "f many/%s x", name);
	for (unsigned run = 0; run < 2; run++) {
		struct merge m;
		merge_begin(&m, &tree_default_limits);
		assert_int_equal(merge_layer(&m, LAYER("d many", line, "f f hello", "h g f", "l l f", "c null", "f many/!x y", "d .early", "f ..x y")), 0);
		for (unsigned k = 0; k < 300; k++) {
			char one[64];
			snprintf(one, sizeof(one), "f many/file-%u content-%u", k, k);
			assert_int_equal(merge_layer(&m, LAYER(one)), 0);
		}
		assert_int_equal(erofs_finish(&m.w, &m.t, &again, &m.err), 0);
		uint8_t *p = malloc(again);
		assert_int_equal(file_pread_full(m.out, p, again, 0), (ssize_t)again);
		assert_int_equal(load_le32(p + 1024), 0xe0f5e1e2u);
		if (run == 0) {
			first = p;
			size = again;
		} else {
			assert_int_equal(again, size);
			assert_memory_equal(p, first, size);
			char cmd[128];
			snprintf(cmd, sizeof(cmd), "fsck.erofs /proc/%d/fd/%d >/dev/null 2>&1", (int)getpid(), m.out);
			if (system("command -v fsck.erofs >/dev/null") == 0)
				assert_int_equal(system(cmd), 0);
			free(p);
			free(first);
		}
		merge_end(&m);
	}
}

static unsigned count_users(void *ctx, const char *id)
{
	return *(unsigned *)ctx;
}

static void the_store_shows_whole_images_only(void **state)
{
	char dir[] = "/tmp/caisson-store-XXXXXX", temp[64], path[300], id[IMAGE_DIGEST_LEN + 1];
	struct image_store s;
	struct cai_error err;
	assert_non_null(mkdtemp(dir));
	assert_int_equal(image_store_open(&s, dir, &err), 0);
	/* what killed processes leave: an unlocked temporary, an EROFS file without JSON */
	close(image_store_temp(&s, temp, &err));
	snprintf(path, sizeof(path), "%s/images/%s.erofs", dir, &(D "9")[7]);
	close(open(path, O_CREAT | O_WRONLY, 0600));
	close(image_store_lock(&s, &err));
	assert_int_equal(access(path, F_OK), -1);
	assert_int_equal(faccessat(s.dir, temp, F_OK, 0), -1);
	/* one in use stays */
	int fd = image_store_temp(&s, temp, &err);
	close(image_store_lock(&s, &err));
	assert_int_equal(faccessat(s.dir, temp, F_OK, 0), 0);
	json_t *meta = json_pack("{s:s,s:i,s:i,s:s,s:{s:{s:[s]}}}", "id", D "9", "size", 0, "imported", 5, "source", "test", "image", "config", "Cmd", "sh");
	assert_int_equal(image_store_commit(&s, temp, fd, meta, "docker.io/library/x:latest", &err), 0);
	close(fd);
	json_decref(meta);
	assert_int_equal(image_store_find(&s, "x", id, &err), 0);
	assert_string_equal(id, D "9");
	assert_int_equal(image_store_find(&s, "012345", id, &err), 0);
	assert_int_equal(image_store_find(&s, "y", id, &err), -1);
	json_t *o = image_store_resolve(&s, "x:latest", &err);
	assert_string_equal(json_string_value(json_array_get(json_object_get(json_object_get(o, "config"), "Cmd"), 0)), "sh");
	json_decref(o);
	unsigned one = 1;
	struct image_users users = {.count = count_users, .ctx = &one};
	assert_null(image_store_remove(&s, "x", &users, &err));
	assert_non_null(strstr(err.text, "used by 1 sandbox;"));
	o = image_store_remove(&s, "x", NULL, &err);
	assert_int_equal(json_array_size(json_object_get(o, "deleted")), 1);
	json_decref(o);
	assert_int_equal(access(path, F_OK), -1);
	image_store_close(&s);
	snprintf(path, sizeof(path), "rm -rf %s", dir);
	assert_int_equal(system(path), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(references_are_read_as_docker_reads_them),
		cmocka_unit_test(a_challenge_gives_its_parameters),
		cmocka_unit_test(sentences_hold_nothing_that_a_terminal_obeys),
		cmocka_unit_test(absurd_documents_are_refused),
		cmocka_unit_test(an_index_gives_the_manifest_for_this_machine),
		cmocka_unit_test(whiteouts_hide_lower_layers_only),
		cmocka_unit_test(a_later_entry_replaces_an_earlier_one_of_any_kind),
		cmocka_unit_test(nothing_leads_out_of_the_tree),
		cmocka_unit_test(limits_hold),
		cmocka_unit_test(wrong_and_cut_layers_are_refused),
		cmocka_unit_test(the_erofs_file_is_sound_and_the_same_each_time),
		cmocka_unit_test(the_store_shows_whole_images_only),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
