/* SPDX-License-Identifier: Apache-2.0 */
/* `caisson doctor`: the findings of sandbox/host.h, for people and for programs. */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/json.h"
#include "sandbox/host.h"

void help_doctor(void)
{
	puts("usage: caisson doctor [--json] [--cached]\n\n"
	     "Say what this host offers to sandboxes, what is missing and how to mend it. KVM is probed "
	     "anew.\n\n"
	     "  --json     print a JSON object\n"
	     "  --cached   take KVM's verdict from the cache when it is known\n\n"
	     "exit status: 0 when a sandbox can run here, 1 when not, 125 on bad usage");
}

enum { O_JSON, O_CACHED, O_HELP };
const struct cli_option options_doctor[] = {
    {"json", 0, OPT_FLAG, O_JSON},
    {"cached", 0, OPT_FLAG, O_CACHED},
    {"help", 'h', OPT_FLAG, O_HELP},
    {NULL, 0, 0, 0},
};

static int set(void *ctx, int id, const char *value, struct cai_error *err)
{
	((bool *)ctx)[id] = true;
	return 0;
}

static void print_text(const struct host_report *r)
{
	for (unsigned i = 0; i < r->n; i++) {
		const struct finding *f = &r->f[i];
		printf("%-9s %-12s %s\n", finding_state_name(f->state), f->id, f->text);
		if (f->mend[0])
			printf("%-9s %-12s -> %s\n", "", "", f->mend);
	}
	puts(r->can_run ? "\nA sandbox can run here."
			: "\nNo sandbox can run here until what is missing above is mended.");
}

static int print_json(const struct host_report *r)
{
	json_t *list = json_array(), *kvm = json_null();
	for (unsigned i = 0; i < r->n; i++) {
		const struct finding *f = &r->f[i];
		json_t *o = json_pack("{s:s,s:s,s:b,s:s}", "id", f->id, "state", finding_state_name(f->state),
				      "required", f->required, "text", f->text);
		if (o && f->mend[0])
			json_object_set_new(o, "mend", json_string(f->mend));
		json_array_append_new(list, o);
	}
	if (r->kvm_known)
		kvm = json_pack("{s:s,s:s,s:s,s:f,s:f,s:b}", "state", kvm_state_name(r->kvm.state), "reason",
				r->kvm.reason, "boundary", boundary_name(r->kvm.boundary), "mips",
				r->kvm.mips, "probe_ms", r->kvm.probe_ms, "cached", r->kvm.cached);
	return cli_print_json(json_pack("{s:s,s:b,s:s,s:o,s:o}", "version", CAISSON_VERSION, "can_run",
					r->can_run, "boundary", boundary_name(r->boundary), "kvm", kvm,
					"findings", list));
}

int cmd_doctor(int argc, char **argv)
{
	bool flag[3] = {false};
	struct cli_parse p;
	struct cai_error err;
	if (cli_options(argc, argv, options_doctor, set, flag, &p, &err) < 0) {
		cli_say("%s", err.text);
		return CLI_EXIT_USAGE;
	}
	if (flag[O_HELP]) {
		help_doctor();
		return 0;
	}
	if (p.next < argc) {
		cli_say("doctor takes no argument '%s'", argv[p.next]);
		return CLI_EXIT_USAGE;
	}
	struct host_report r;
	host_examine(&r, !flag[O_CACHED]);
	if (flag[O_JSON]) {
		int status = print_json(&r);
		return status ? status : !r.can_run;
	}
	print_text(&r);
	return r.can_run ? 0 : 1;
}
