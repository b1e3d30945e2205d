/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How an image wants to be run: the "config" member of its OCI configuration document (OCI image
 * specification, "Image Configuration"), read, checked and bounded, and docker's rules for what a command
 * line changes of it.
 *
 * The document is hostile. What image_run_config_load accepts holds: every list ends with NULL, has at most
 * IMAGE_RUN_MAX_ITEMS entries, all texts together are at most IMAGE_RUN_MAX_TEXT bytes (so that they fit one
 * message to the agent), and none holds a NUL. Entries of env have a name. Nothing says that a program, a
 * user or a directory exists. Texts may hold control characters: do not print them to a terminal as they are.
 *
 * Needs base and jansson only. One thread. Whatever these functions give is owned by the caller.
 */
#ifndef IMAGE_RUN_CONFIG_H
#define IMAGE_RUN_CONFIG_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "image/ref.h"
#include "image/store.h"

#define IMAGE_RUN_MAX_ITEMS 2048u
#define IMAGE_RUN_MAX_TEXT  (192u << 10)
#define IMAGE_RUN_MAX_PORTS 256u

struct image_port {
	uint16_t first, last; /* first <= last, both 1 to 65535 */
	bool udp;	      /* else TCP */
};

struct image_run_config {
	char id[IMAGE_DIGEST_LEN + 1]; /* "sha256:..." */
	char *name;		       /* the full name when it was found by one, else NULL */
	char *rootfs;		       /* absolute path of the EROFS file, read-only and never changed */
	char **entrypoint, **cmd;      /* lists, perhaps empty */
	char **env;		       /* "NAME=VALUE"; of a name given twice, the last */
	char *workdir;		       /* absolute; "/" when the image says nothing */
	char *user;		  /* as in "USER[:GROUP]", names or numbers; "" when the image says nothing */
	char **volumes;		  /* absolute paths without "." and "..", none of them "/" */
	char **labels;		  /* "KEY=VALUE" */
	struct image_port *ports; /* EXPOSE */
	unsigned n_ports;
	int stop_signal; /* a number, 1 to 64; SIGTERM when the image says nothing */
};

/* The image that ref means (a name, or six or more digits of an id) in the open store. -1 with *err->errnum
 * ENOENT when there is none: that is when to pull it. *out needs no freeing after a failure. */
int image_run_config_load(struct image_store *s, const char *ref, struct image_run_config *out,
			  struct cai_error *err);
/* The same from a "config" object alone (borrowed; NULL or no object: an empty one); id, name and rootfs stay
 * empty. */
int image_run_config_parse(const json_t *config, struct image_run_config *out, struct cai_error *err);
void image_run_config_free(struct image_run_config *c);

/* What a command line says; all borrowed, NULL where it says nothing. */
struct image_run_request {
	const char *entrypoint;	    /* --entrypoint; "" means none at all, not even the image's */
	const char *const *command; /* the words after the image; NULL or an empty list: none were given */
	const char *const *env;	    /* -e and --env-file, in order: "NAME=VALUE", or "NAME", which takes the
				       image's variable of that name away (the caller has replaced NAME by
				       NAME=VALUE where its own environment has one) */
	const char *user;	    /* -u */
	const char *workdir;	    /* -w */
};

/* What is to be run: lists end with NULL. */
struct image_run_plan {
	char **argv; /* one word at least */
	char **env;  /* each name once; with a PATH, unless the request took it away */
	char *user;  /* "" is root */
	char *workdir;
};

/*
 * Docker's rules: the words given replace Cmd; an entry point given replaces Entrypoint and drops Cmd; argv
 * is entry point and then words; env is the image's with the request's on top; user and workdir given win.
 * image may be NULL (a root file system without a configuration). Pure: looks at nothing but its arguments.
 * -1 when nothing is left to run, a working directory is not absolute, or a variable has no name.
 */
int image_run_plan_make(const struct image_run_config *image, const struct image_run_request *q,
			struct image_run_plan *out, struct cai_error *err);
void image_run_plan_free(struct image_run_plan *p);

/* "SIGTERM", "TERM", "15", "SIGRTMIN+3" (any case) to a signal's number; -1 when it is none. */
int image_signal_number(const char *text);

#endif
