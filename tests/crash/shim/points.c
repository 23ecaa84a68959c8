/* Preloaded into holdfastd, this stands between it and Ceph's libraries. Each call of
 * them that is listed in calls.inc has a point before and one after it, and each message
 * that Ceph's messenger sends has one; at the point asked for the process gets a signal.
 * The page is shared with the test, which arms it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

enum { OFF, CALLS, MESSAGES };
enum { SEEN = 2000 };

struct page {
	_Atomic uint32_t what;   /* the kind of points that count; OFF: none */
	_Atomic uint32_t at;     /* the point for the signal; 0: none */
	_Atomic uint32_t signal;
	_Atomic uint32_t count;  /* of points passed */
	_Atomic uint32_t seen[SEEN]; /* twice the index of the call, plus 1 after it */
};

static struct page *page;
static __thread int depth; /* the libraries call each other, too */

__attribute__((constructor)) static void attach(void)
{
	const char *path = getenv("HOLDFAST_CRASH_PAGE");
	int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
	if (fd < 0)
		return;
	void *at = mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (at != MAP_FAILED)
		page = at;
	unsetenv("LD_PRELOAD");
}

static void point(uint32_t what, uint32_t name)
{
	if (!page || page->what != what)
		return;
	uint32_t n = atomic_fetch_add(&page->count, 1) + 1;
	if (n <= SEEN)
		page->seen[n - 1] = name;
	if (n == page->at)
		tgkill(getpid(), gettid(), (int)page->signal);
}

typedef long word; /* all arguments of these functions are integers and pointers */
typedef word (*any)(word, word, word, word, word, word, word, word, word, word, word, word);

#define CALL(name, index)                                                                      \
	word name(word a, word b, word c, word d, word e, word f, word g, word h, word i, word j, word k, word l) \
	{                                                                                      \
		static _Atomic(any) real;                                                      \
		if (!real)                                                                     \
			real = (any)dlsym(RTLD_NEXT, #name);                                   \
		if (!depth)                                                                    \
			point(CALLS, 2 * index);                                               \
		depth++;                                                                       \
		word answer = real(a, b, c, d, e, f, g, h, i, j, k, l);                        \
		depth--;                                                                       \
		if (!depth)                                                                    \
			point(CALLS, 2 * index + 1);                                           \
		return answer;                                                                 \
	}
#include "calls.inc"

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
	static _Atomic(ssize_t (*)(int, const struct msghdr *, int)) real;
	if (!real)
		real = (ssize_t(*)(int, const struct msghdr *, int))dlsym(RTLD_NEXT, "sendmsg");
	point(MESSAGES, 0);
	return real(fd, message, flags);
}
