/* Preloaded into a process that writes a recording: counts what changes files, and, when told to,
   kills the process just before the n-th of those calls, or lets them fail as on a full disk.

   cc -shared -fPIC -o kill_shim.so kill_shim.c -ldl
   LD_PRELOAD=./kill_shim.so python …          and through ctypes.CDLL(None): shim_kill_at and so on */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

long shim_count = 0;         /* calls so far */
long shim_kill_at = -1;      /* SIGKILL just before this call; -1: never */
int shim_partial = 0;        /* … or within it, where it is a write that crosses a page's end:
                                nowhere else does the kernel let a signal cut a write short */
int shim_errno = 0;          /* writes fail with this error, while it is not 0 */

static int due(void) { return ++shim_count >= shim_kill_at && shim_kill_at >= 0; }
static void die(void) { kill(getpid(), SIGKILL); for (;;) pause(); }

static ssize_t put(const char *name, int fd, const void *data, size_t size, off_t at) {
  ssize_t (*real)(int, const void *, size_t, off_t) = dlsym(RTLD_NEXT, name);
  if (due()) {
    off_t end = (at + (off_t)size / 2 + 4095) / 4096 * 4096; /* a page's end, about the middle */
    if (shim_partial && end - at < (off_t)size) real(fd, data, end - at, at);
    die();
  }
  if (shim_errno) { errno = shim_errno; return -1; }
  return real(fd, data, size, at);
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { return put("pwrite", fd, data, size, at); }
ssize_t pwrite64(int fd, const void *data, size_t size, off_t at) { return put("pwrite64", fd, data, size, at); }

#define PASSED(type, name, params, args)                          \
  type name params {                                              \
    type(*real) params = dlsym(RTLD_NEXT, #name);                 \
    if (due()) die();                                             \
    return real args;                                             \
  }
PASSED(int, ftruncate, (int fd, off_t size), (fd, size))
PASSED(int, ftruncate64, (int fd, off_t size), (fd, size))
PASSED(int, fsync, (int fd), (fd))
PASSED(int, rename, (const char *from, const char *to), (from, to))
PASSED(int, unlink, (const char *path), (path))
PASSED(int, link, (const char *from, const char *to), (from, to))
