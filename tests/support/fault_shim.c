/* Preloaded into a process that writes recordings: lets one call that changes a regular file fail,
   once, and those before and after it succeed, as on a disk that recovers.

   cc -shared -fPIC -o fault_shim.so fault_shim.c -ldl
   LD_PRELOAD=./fault_shim.so python …         and through ctypes.CDLL(None): fault_at and so on */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

/* Nothing is done; half is written, and that is returned; half is written, and then it fails, but
   not within a file's first sector, where HDF5's superblock is: that is whole on every disk. */
enum { FAILS, SHORT, TORN };
long fault_count = 0;        /* calls so far */
long fault_at = -1;          /* which of them fails; -1: none */
int fault_kind = FAILS;
int fault_errno = ENOSPC;
char fault_name[32] = "";    /* the call that failed, once one did */

static int due(int fd, const char *name) {
  struct stat file;
  if (fstat(fd, &file) || !S_ISREG(file.st_mode)) return 0;
  if (++fault_count != fault_at) return 0;
  snprintf(fault_name, sizeof fault_name, "%s", name);
  return 1;
}
static ssize_t fail(void) { errno = fault_errno; return -1; }

#define REAL(type, name, ...) type (*real)(__VA_ARGS__) = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

static int fails_whole(size_t size, off_t at) {
  return fault_kind == FAILS || size < 2 || (fault_kind == TORN && at + size <= 512);
}
#define WRITES(name, params, place, type, ...)                                       \
  ssize_t name params {                                                       \
    REAL(ssize_t, name, int, const void *, size_t type);                      \
    if (!due(fd, #name)) return real(fd, data, size __VA_ARGS__);             \
    if (fails_whole(size, place)) return fail();                              \
    ssize_t done = real(fd, data, size / 2 __VA_ARGS__);                      \
    return fault_kind == SHORT ? done : fail();                               \
  }
#define COMMA ,
WRITES(write, (int fd, const void *data, size_t size), lseek(fd, 0, SEEK_CUR), , )
WRITES(pwrite, (int fd, const void *data, size_t size, off_t at), at, COMMA off_t, COMMA at)
WRITES(pwrite64, (int fd, const void *data, size_t size, off_t at), at, COMMA off_t, COMMA at)

#define GATHERS(name)                                                         \
  ssize_t name(int fd, const struct iovec *parts, int count, off_t at) {      \
    REAL(ssize_t, name, int, const struct iovec *, int, off_t);               \
    if (!due(fd, #name)) return real(fd, parts, count, at);                   \
    if (fault_kind == FAILS || count < 2) return fail();                      \
    ssize_t done = real(fd, parts, count / 2, at);                            \
    return fault_kind == SHORT ? done : fail();                               \
  }
GATHERS(pwritev)
GATHERS(pwritev64)

/* What cannot be done by half fails. */
#define WHOLE(name, params, types, ...)                                       \
  int name params {                                                           \
    REAL(int, name, int types);                                               \
    return due(fd, #name) ? (int)fail() : real(fd __VA_ARGS__);               \
  }
WHOLE(ftruncate, (int fd, off_t size), COMMA off_t, COMMA size)
WHOLE(ftruncate64, (int fd, off_t size), COMMA off_t, COMMA size)
WHOLE(fsync, (int fd), , )
WHOLE(fdatasync, (int fd), , )
