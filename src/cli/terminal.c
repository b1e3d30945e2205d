/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/terminal.h"

#include <signal.h>
#include <sys/ioctl.h>
#include <unistd.h>

void terminal_raw(struct terminal *t)
{
	if (t->fd < 0 || (!t->raw && tcgetattr(t->fd, &t->saved) < 0))
		return;
	struct termios raw = t->saved;
	cfmakeraw(&raw);
	if (t->keep_quit) {
		raw.c_lflag |= ISIG;
		raw.c_cc[VINTR] = raw.c_cc[VSUSP] = _POSIX_VDISABLE;
		raw.c_cc[VQUIT] = 0x1c; /* Ctrl-\ */
	}
	t->raw = tcsetattr(t->fd, TCSADRAIN, &raw) == 0;
}

void terminal_restore(struct terminal *t)
{
	if (!t->raw)
		return;
	t->raw = false;
	/* From the background this would stop us for ever: a shell that took the terminal back has set its
	 * own modes, but ours must still be undone for those that do not. */
	sigset_t ttou, old;
	sigemptyset(&ttou);
	sigaddset(&ttou, SIGTTOU);
	sigprocmask(SIG_BLOCK, &ttou, &old);
	tcsetattr(t->fd, TCSADRAIN, &t->saved);
	sigprocmask(SIG_SETMASK, &old, NULL);
}

void terminal_size(const int *fds, unsigned n, uint16_t *rows, uint16_t *cols)
{
	struct winsize w;
	*rows = *cols = 0;
	for (unsigned i = 0; i < n; i++)
		if (ioctl(fds[i], TIOCGWINSZ, &w) == 0) {
			*rows = w.ws_row;
			*cols = w.ws_col;
			return;
		}
}
