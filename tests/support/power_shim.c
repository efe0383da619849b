/* Preloaded into a process that writes recordings: logs, in order, every call that changes a file
   of one folder, with its data, and every sync; tests/support/power.py makes of the log what a loss of
   power may leave. A call that would change such a file in a way that is not logged is logged as
   unknown, and the reader of the log refuses it.

   cc -shared -fPIC -o power_shim.so power_shim.c -ldl
   POWER_LOG=log POWER_FOLDER=/real/path LD_PRELOAD=./power_shim.so python …
   and through ctypes.CDLL(None): power_mark(n), once what n stands for was promised.

   A record: u32 kind, u32 bytes of data, i64 inode, i64 at; then the data. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { WRITE = 1, TRUNCATE, SYNC, SYNC_FOLDER, CREATE, RENAME, LINK, UNLINK, MARK, UNKNOWN };

/* Held from before a call until it is logged, so that the log has the calls' own order. */
static pthread_mutex_t order = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static const char *folder;
static int log_to = -1;

static void hold(void) { pthread_mutex_lock(&order); }
static void let_go(void) { pthread_mutex_unlock(&order); }
static void begin_anew(void) { /* in a fork, where another thread may have had it */
  order = (pthread_mutex_t)PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
}
__attribute__((constructor)) static void at_fork(void) { pthread_atfork(hold, let_go, begin_anew); }

#define REAL(type, name, ...)                                     \
  static type (*real)(__VA_ARGS__);                               \
  if (!real) real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

static int is_on(void) {
  if (log_to >= 0) return 1;
  if (!(folder = getenv("POWER_FOLDER")) || !getenv("POWER_LOG")) return 0;
  int (*open_it)(const char *, int, ...) = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open");
  int low = open_it(getenv("POWER_LOG"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  log_to = fcntl(low, F_DUPFD_CLOEXEC, 700); /* out of the way of what the process opens */
  close(low);
  return log_to >= 0;
}

static void put(int kind, int64_t inode, int64_t at, const void *data, size_t size) {
  struct { uint32_t kind, size; int64_t inode, at; } head = {kind, size, inode, at};
  struct iovec parts[2] = {{&head, sizeof head}, {(void *)data, size}};
  ssize_t (*gather)(int, const struct iovec *, int) =
      (ssize_t(*)(int, const struct iovec *, int))dlsym(RTLD_NEXT, "writev");
  if (gather(log_to, parts, 2) != (ssize_t)(sizeof head + size)) abort();
}

/* The path within the folder, or NULL. */
static const char *within(const char *path) {
  size_t size = strlen(folder);
  return strncmp(path, folder, size) || (path[size] && path[size] != '/') ? NULL : path + size;
}

/* The inode of a descriptor's file where it lies in the folder, else 0. */
static int64_t inode_of(int fd, struct stat *found) {
  char link[64], path[PATH_MAX];
  struct stat own;
  if (!found) found = &own;
  if (!is_on()) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t size = readlink(link, path, sizeof path - 1);
  if (size < 0) return 0;
  path[size] = 0;
  return within(path) && !fstat(fd, found) ? (int64_t)found->st_ino : 0;
}

static char *whole(const char *path, char *into) { /* a relative one: from the working folder */
  if (path[0] == '/' || !getcwd(into, PATH_MAX)) return strcpy(into, path);
  strcat(into, "/");
  return strcat(into, path);
}

void power_mark(long n) {
  pthread_mutex_lock(&order);
  if (is_on()) put(MARK, 0, n, NULL, 0);
  pthread_mutex_unlock(&order);
}

/* ------------------------------------------------------------------ data */

#define POSITIONED(name)                                                      \
  ssize_t name(int fd, const void *data, size_t size, off_t at) {             \
    REAL(ssize_t, name, int, const void *, size_t, off_t);                    \
    pthread_mutex_lock(&order);                                               \
    int64_t inode = inode_of(fd, NULL);                                       \
    ssize_t done = real(fd, data, size, at);                                  \
    if (inode && done > 0) put(WRITE, inode, at, data, done);                 \
    pthread_mutex_unlock(&order);                                             \
    return done;                                                              \
  }
POSITIONED(pwrite)
POSITIONED(pwrite64)

static void put_vector(int64_t inode, const struct iovec *parts, off_t at, ssize_t done) {
  for (; done > 0; parts++) {
    size_t size = parts->iov_len < (size_t)done ? parts->iov_len : (size_t)done;
    put(WRITE, inode, at, parts->iov_base, size);
    at += size;
    done -= size;
  }
}
#define GATHERED(name)                                                        \
  ssize_t name(int fd, const struct iovec *parts, int count, off_t at) {      \
    REAL(ssize_t, name, int, const struct iovec *, int, off_t);               \
    pthread_mutex_lock(&order);                                               \
    int64_t inode = inode_of(fd, NULL);                                       \
    ssize_t done = real(fd, parts, count, at);                                \
    if (inode) put_vector(inode, parts, at, done);                            \
    pthread_mutex_unlock(&order);                                             \
    return done;                                                              \
  }
GATHERED(pwritev)
GATHERED(pwritev64)

static off_t place(int fd, const struct stat *file) {
  return fcntl(fd, F_GETFL) & O_APPEND ? file->st_size : lseek(fd, 0, SEEK_CUR);
}
ssize_t write(int fd, const void *data, size_t size) {
  REAL(ssize_t, write, int, const void *, size_t);
  struct stat file;
  pthread_mutex_lock(&order);
  int64_t inode = inode_of(fd, &file);
  off_t at = inode ? place(fd, &file) : 0;
  ssize_t done = real(fd, data, size);
  if (inode && done > 0) put(WRITE, inode, at, data, done);
  pthread_mutex_unlock(&order);
  return done;
}
ssize_t writev(int fd, const struct iovec *parts, int count) {
  REAL(ssize_t, writev, int, const struct iovec *, int);
  struct stat file;
  pthread_mutex_lock(&order);
  int64_t inode = inode_of(fd, &file);
  off_t at = inode ? place(fd, &file) : 0;
  ssize_t done = real(fd, parts, count);
  if (inode) put_vector(inode, parts, at, done);
  pthread_mutex_unlock(&order);
  return done;
}

#define SYNCED(name)                                                          \
  int name(int fd) {                                                          \
    REAL(int, name, int);                                                     \
    struct stat file;                                                         \
    pthread_mutex_lock(&order);                                               \
    int64_t inode = inode_of(fd, &file);                                      \
    int done = real(fd);                                                      \
    if (inode && !done) put(S_ISDIR(file.st_mode) ? SYNC_FOLDER : SYNC, inode, 0, NULL, 0); \
    pthread_mutex_unlock(&order);                                             \
    return done;                                                              \
  }
SYNCED(fsync)
SYNCED(fdatasync)

#define SHORTENED(name)                                                       \
  int name(int fd, off_t size) {                                              \
    REAL(int, name, int, off_t);                                              \
    pthread_mutex_lock(&order);                                               \
    int64_t inode = inode_of(fd, NULL);                                       \
    int done = real(fd, size);                                                \
    if (inode && !done) put(TRUNCATE, inode, size, NULL, 0);                  \
    pthread_mutex_unlock(&order);                                             \
    return done;                                                              \
  }
SHORTENED(ftruncate)
SHORTENED(ftruncate64)

/* ------------------------------------------------------------------ names */

static int opened(int (*real)(const char *, int, ...), const char *path, int flags, mode_t mode) {
  char all[PATH_MAX];
  struct stat file;
  pthread_mutex_lock(&order);
  const char *name = is_on() ? within(whole(path, all)) : NULL;
  int existed = name && !stat(all, &file), fd = real(path, flags, mode);
  if (name && fd >= 0 && !fstat(fd, &file) && S_ISREG(file.st_mode)) {
    if (!existed) put(CREATE, file.st_ino, 0, name, strlen(name));
    else if (flags & O_TRUNC) put(TRUNCATE, file.st_ino, 0, NULL, 0);
  }
  pthread_mutex_unlock(&order);
  return fd;
}
#define MODE(flags)                                                           \
  mode_t mode = 0;                                                            \
  if (flags & (O_CREAT | O_TMPFILE)) {                                        \
    va_list rest;                                                             \
    va_start(rest, flags);                                                    \
    mode = va_arg(rest, mode_t);                                              \
    va_end(rest);                                                             \
  }
#define OPEN(name)                                                            \
  int name(const char *path, int flags, ...) {                                \
    MODE(flags)                                                               \
    REAL(int, name, const char *, int, ...);                                  \
    if (!(flags & (O_CREAT | O_TRUNC))) return real(path, flags, mode);       \
    return opened(real, path, flags, mode);                                   \
  }
OPEN(open)
OPEN(open64)
#define OPEN_AT(name, plain)                                                  \
  int name(int at, const char *path, int flags, ...) {                        \
    MODE(flags)                                                               \
    REAL(int, name, int, const char *, int, ...);                             \
    if (at == AT_FDCWD || path[0] == '/') return plain(path, flags, mode);    \
    return real(at, path, flags, mode);                                       \
  }
OPEN_AT(openat, open)
OPEN_AT(openat64, open64)

static void put_names(int kind, const char *from, const char *to) {
  char a[PATH_MAX], b[PATH_MAX], both[2 * PATH_MAX];
  const char *first = within(whole(from, a)), *second = to ? within(whole(to, b)) : "";
  if (!first && (!second || !to)) return;
  if (!first || !second) { put(UNKNOWN, 0, 0, "into or out of the folder", 25); return; }
  int size = snprintf(both, sizeof both, "%s%c%s", first, 0, second);
  put(kind, 0, 0, both, to ? size : (int)strlen(first));
}
#define NAMED(name, kind, params, first, second, ...)                         \
  int name params {                                                           \
    int(*real) params = (int(*) params)dlsym(RTLD_NEXT, #name);               \
    pthread_mutex_lock(&order);                                               \
    int done = real(__VA_ARGS__);                                             \
    if (!done && is_on()) put_names(kind, first, second);                     \
    pthread_mutex_unlock(&order);                                             \
    return done;                                                              \
  }
NAMED(rename, RENAME, (const char *from, const char *to), from, to, from, to)
NAMED(link, LINK, (const char *from, const char *to), from, to, from, to)
NAMED(unlink, UNLINK, (const char *path), path, NULL, path)
NAMED(truncate, UNKNOWN, (const char *path, off_t size), path, NULL, path, size)
NAMED(truncate64, UNKNOWN, (const char *path, off_t size), path, NULL, path, size)
NAMED(renameat2, UNKNOWN, (int a, const char *from, int b, const char *to, unsigned f), from, to, a, from, b, to, f)

/* What nobody here does today. */
#define NOT_KNOWN(type, name, params, fd, ...)                                \
  type name params {                                                          \
    type(*real) params = (type(*) params)dlsym(RTLD_NEXT, #name);             \
    int64_t inode = inode_of(fd, NULL);                                       \
    if (inode) put(UNKNOWN, inode, 0, #name, strlen(#name));                  \
    return real(__VA_ARGS__);                                                 \
  }
NOT_KNOWN(ssize_t, sendfile, (int to, int from, off_t *at, size_t n), to, to, from, at, n)
NOT_KNOWN(ssize_t, sendfile64, (int to, int from, off_t *at, size_t n), to, to, from, at, n)
NOT_KNOWN(ssize_t, copy_file_range, (int from, off_t *a, int to, off_t *b, size_t n, unsigned f), to, from, a, to, b, n, f)
NOT_KNOWN(int, fallocate, (int fd, int mode, off_t at, off_t size), fd, fd, mode, at, size)
NOT_KNOWN(int, fallocate64, (int fd, int mode, off_t at, off_t size), fd, fd, mode, at, size)
NOT_KNOWN(int, posix_fallocate, (int fd, off_t at, off_t size), fd, fd, at, size)
NOT_KNOWN(int, posix_fallocate64, (int fd, off_t at, off_t size), fd, fd, at, size)
