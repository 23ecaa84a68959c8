/* Preloaded into holdfastd, this stands between it and Ceph's libraries. Each call of
 * them that is listed in calls.inc has a point before and one after it, and each message
 * that Ceph's messenger sends has one; at the point asked for the process gets a signal.
 * The page is shared with the test, which arms it. With HOLDFAST_CRASH_SYSCALLS each system
 * call that changes something on the machine waits for the test's leave (seccomp's user
 * notification), which is how the Go side, which calls the kernel itself, gets points. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { OFF, CALLS, MESSAGES };
enum { SEEN = 2000 };

struct page {
	_Atomic uint32_t what;   /* the kind of points that count; OFF: none */
	_Atomic uint32_t at;     /* the point for the signal; 0: none */
	_Atomic uint32_t signal;
	_Atomic uint32_t count;  /* of points passed */
	_Atomic uint32_t seen[SEEN]; /* twice the index of the call, plus 1 after it */
	_Atomic uint32_t pid;
	_Atomic uint32_t listener; /* where the system calls are asked about, plus 1 */
};

static struct page *page;
static __thread int depth; /* the libraries call each other, too */

#define ASK_FOR(call) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF)
#define ARGUMENT(n) (offsetof(struct seccomp_data, args) + 8 * (n))

/* ask makes the kernel ask about system calls. */
static void ask(void)
{
	static struct sock_filter program[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		ASK_FOR(SYS_mount), ASK_FOR(SYS_umount2), ASK_FOR(SYS_execve),
		ASK_FOR(SYS_renameat), ASK_FOR(SYS_renameat2), ASK_FOR(SYS_unlinkat), ASK_FOR(SYS_mkdirat),
#ifdef SYS_rename
		ASK_FOR(SYS_rename), ASK_FOR(SYS_unlink), ASK_FOR(SYS_mkdir), ASK_FOR(SYS_rmdir),
#endif
		/* an ioctl of a loop device ('L', 0x4c) or a block device (0x12) */
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ioctl, 0, 5),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, ARGUMENT(1)),
		BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0xff00),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0x4c00, 1, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0x1200, 0, 5),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
		/* a file opened for writing */
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, ARGUMENT(2)),
		BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, O_WRONLY | O_RDWR | O_CREAT, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog filter = {.len = sizeof program / sizeof *program, .filter = program};
	long fd = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &filter);
	page->pid = (uint32_t)getpid();
	page->listener = fd < 0 ? (uint32_t)-errno : (uint32_t)fd + 1;
	while (fd >= 0 && page->listener) /* the test takes it; here it would keep itself alive */
		usleep(1000);
	close((int)fd);
}

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
	if (page && getenv("HOLDFAST_CRASH_SYSCALLS"))
		ask();
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
