/* Preloaded into a process that reads or writes a recording: every lock of a file fails with the
   error whose number LOCK_ERRNO says, as on a file system that has no locks.

   cc -shared -fPIC -o lock_shim.so lock_shim.c -ldl
   LOCK_ERRNO=37 LD_PRELOAD=./lock_shim.so python … */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

static int refused(void) {
  const char *number = getenv("LOCK_ERRNO");
  errno = number ? atoi(number) : ENOLCK;
  return -1;
}

int flock(int fd, int operation) { (void)fd; (void)operation; return refused(); }
int lockf(int fd, int command, off_t size) { (void)fd; (void)command; (void)size; return refused(); }
int lockf64(int fd, int command, off64_t size) { (void)fd; (void)command; (void)size; return refused(); }

static int control(const char *name, int fd, int command, void *argument) {
  int (*real)(int, int, ...) = dlsym(RTLD_NEXT, name);
  switch (command) {
  case F_SETLK: case F_SETLKW: case F_OFD_SETLK: case F_OFD_SETLKW: return refused();
  default: return real(fd, command, argument);
  }
}

#define CONTROL(name)                                             \
  int name(int fd, int command, ...) {                            \
    va_list arguments;                                            \
    va_start(arguments, command);                                 \
    void *argument = va_arg(arguments, void *);                   \
    va_end(arguments);                                            \
    return control(#name, fd, command, argument);                 \
  }
CONTROL(fcntl)
CONTROL(fcntl64)
