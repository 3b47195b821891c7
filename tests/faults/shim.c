/* Fails or kills a process at its N-th change of a file below one folder; loaded with LD_PRELOAD.

   A change is a call that writes, resizes, flushes, makes, renames, links or removes. The process
   arms the shim itself with fault_arm. What it counts lies in shared memory, so that a parent which
   forked the process reads the counts also of one that was killed. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

/* The values of injecting.Fault. */
enum { NONE, KILL, TORN, FULL, READ_ONLY, FAILING, INTERRUPT, TERMINATE };
/* What a call does to a file: on a full disk only what takes room fails. */
enum { TAKES_ROOM, TAKES_NONE };

static struct { long calls, hits; } *seen;
static char folder[4096];
static size_t folder_length;
static int is_armed, fault;
static long fault_at;

static void *next(const char *name) { return dlsym(RTLD_NEXT, name); }

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = next(#name)

/* Shared with every process forked from now on; called once. */
void fault_prepare(void) {
    seen = mmap(NULL, sizeof *seen, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (seen == MAP_FAILED) abort();
}

/* `path`: the folder, absolute and without links. `at`: which change, from 1; 0 only counts. */
void fault_arm(const char *path, int what, long at) {
    folder_length = strlen(path);
    if (folder_length >= sizeof folder) abort();
    memcpy(folder, path, folder_length + 1);
    fault = what;
    fault_at = at;
    seen->calls = seen->hits = 0;
    is_armed = 1;
}

long fault_calls(void) { return seen->calls; }
long fault_hits(void) { return seen->hits; }

static int is_below(const char *path) {
    return !strncmp(path, folder, folder_length) &&
           (path[folder_length] == '/' || path[folder_length] == 0);
}

static int name_of_fd(int fd, char *name, size_t size) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, name, size - 1);
    name[length < 0 ? 0 : length] = 0;
    return length > 0;
}

static int is_watched_fd(int fd) {
    char name[4096];
    return is_armed && name_of_fd(fd, name, sizeof name) && is_below(name);
}

static int is_watched(int parent, const char *path) {
    char base[4096], whole[8300];
    if (!is_armed || !path) return 0;
    if (path[0] == '/') return is_below(path);
    if (parent == AT_FDCWD ? !getcwd(base, sizeof base) : !name_of_fd(parent, base, sizeof base))
        return 0;
    snprintf(whole, sizeof whole, "%s/%s", base, path);
    return is_below(whole);
}

/* Counts a change; the errno that it fails with, 0 where it goes on, -1 where half of it is done. */
static int step(int room) {
    long call = __sync_add_and_fetch(&seen->calls, 1);
    if (!fault_at || call < fault_at) return 0;
    if (call == fault_at) {
        switch (fault) {
        case TORN: seen->hits = 1; if (room == TAKES_ROOM) return -1; /* fall through */
        case KILL: seen->hits = 1; kill(getpid(), SIGKILL); break;
        case INTERRUPT: seen->hits = 1; kill(getpid(), SIGINT); return 0;
        case TERMINATE: seen->hits = 1; kill(getpid(), SIGTERM); return 0;
        }
    }
    int error = 0;
    if (fault == FULL && room == TAKES_ROOM) error = ENOSPC;
    if (fault == READ_ONLY) error = EROFS;
    if (fault == FAILING) error = EIO;
    if (error) seen->hits++;
    return error;
}

#define FAIL_AT(is_mine, room) \
    if (is_mine) { \
        int error = step(room); \
        if (error < 0) kill(getpid(), SIGKILL); /* nothing of it can be torn */ \
        if (error > 0) { errno = error; return -1; } \
    }

#define WRITER(name, declaration, count, whole, half) \
    ssize_t name declaration { \
        REAL(name); \
        if (is_watched_fd(fd)) { \
            int error = step(TAKES_ROOM); \
            if (error > 0) { errno = error; return -1; } \
            if (error < 0) { (void)!(half); kill(getpid(), SIGKILL); } \
        } \
        return whole; \
    }

WRITER(write, (int fd, const void *data, size_t n), n, real(fd, data, n), real(fd, data, n / 2))
WRITER(pwrite, (int fd, const void *data, size_t n, off_t at), n, real(fd, data, n, at),
       real(fd, data, n / 2, at))
WRITER(pwrite64, (int fd, const void *data, size_t n, off64_t at), n, real(fd, data, n, at),
       real(fd, data, n / 2, at))
WRITER(writev, (int fd, const struct iovec *parts, int n), n, real(fd, parts, n),
       real(fd, parts, n / 2))

int fsync(int fd) { REAL(fsync); FAIL_AT(is_watched_fd(fd), TAKES_NONE) return real(fd); }
int fdatasync(int fd) { REAL(fdatasync); FAIL_AT(is_watched_fd(fd), TAKES_NONE) return real(fd); }
int ftruncate(int fd, off_t n) {
    REAL(ftruncate); FAIL_AT(is_watched_fd(fd), TAKES_NONE) return real(fd, n);
}
int ftruncate64(int fd, off64_t n) {
    REAL(ftruncate64); FAIL_AT(is_watched_fd(fd), TAKES_NONE) return real(fd, n);
}
int unlink(const char *path) {
    REAL(unlink); FAIL_AT(is_watched(AT_FDCWD, path), TAKES_NONE) return real(path);
}
int unlinkat(int parent, const char *path, int flags) {
    REAL(unlinkat); FAIL_AT(is_watched(parent, path), TAKES_NONE) return real(parent, path, flags);
}
int rmdir(const char *path) {
    REAL(rmdir); FAIL_AT(is_watched(AT_FDCWD, path), TAKES_NONE) return real(path);
}
int rename(const char *from, const char *to) {
    REAL(rename); FAIL_AT(is_watched(AT_FDCWD, to), TAKES_NONE) return real(from, to);
}
int renameat(int from_parent, const char *from, int parent, const char *to) {
    REAL(renameat); FAIL_AT(is_watched(parent, to), TAKES_NONE)
    return real(from_parent, from, parent, to);
}
int link(const char *from, const char *to) {
    REAL(link); FAIL_AT(is_watched(AT_FDCWD, to), TAKES_ROOM) return real(from, to);
}
int linkat(int from_parent, const char *from, int parent, const char *to, int flags) {
    REAL(linkat); FAIL_AT(is_watched(parent, to), TAKES_ROOM)
    return real(from_parent, from, parent, to, flags);
}
int mkdir(const char *path, mode_t mode) {
    REAL(mkdir); FAIL_AT(is_watched(AT_FDCWD, path), TAKES_ROOM) return real(path, mode);
}
int mkdirat(int parent, const char *path, mode_t mode) {
    REAL(mkdirat); FAIL_AT(is_watched(parent, path), TAKES_ROOM) return real(parent, path, mode);
}

static int makes_file(int parent, const char *path, int flags) {
    if (!(flags & (O_CREAT | O_TRUNC)) || !is_watched(parent, path)) return 0;
    return flags & O_TRUNC || faccessat(parent, path, F_OK, 0) != 0;
}

#define MODE_OF(flags) \
    mode_t mode = 0; \
    if (flags & (O_CREAT | __O_TMPFILE)) { \
        va_list rest; \
        va_start(rest, flags); \
        mode = va_arg(rest, mode_t); \
        va_end(rest); \
    }

#define OPENER(name) \
    int name(const char *path, int flags, ...) { \
        REAL(name); \
        MODE_OF(flags) \
        FAIL_AT(makes_file(AT_FDCWD, path, flags), TAKES_ROOM) \
        return real(path, flags, mode); \
    }
#define OPENER_AT(name) \
    int name(int parent, const char *path, int flags, ...) { \
        REAL(name); \
        MODE_OF(flags) \
        FAIL_AT(makes_file(parent, path, flags), TAKES_ROOM) \
        return real(parent, path, flags, mode); \
    }
OPENER(open)
OPENER(open64)
OPENER_AT(openat)
OPENER_AT(openat64)
