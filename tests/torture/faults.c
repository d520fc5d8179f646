/* Loaded before libc (LD_PRELOAD): stops a process, or fails it, at the Nth thing it does to the files of one folder.
 *
 * Letters of what is done: c create, w write, s sync, l link, r rename, u unlink, m make a folder, t truncate.
 * With a journal, each of them is also written down, with what was there before, so that what had not been synced can
 * be taken back as a power cut would. What is written down: see `struct record` and power.py.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { NOTHING, KILL_BEFORE, KILL_AFTER, FAIL };

struct record {
    char what;          /* a letter as above; S for the sync of a folder */
    char pad[7];
    int64_t inode;      /* of the file; of the folder it stands in for c, l, r, u, m */
    int64_t inode2;     /* of the folder a renamed file stood in; of the file for c, l, u */
    int64_t offset;     /* of a write; length after a truncation */
    int64_t size;       /* of the file before */
    int64_t grave;      /* number of the link that keeps a file which was unlinked or renamed over, or 0 */
    int64_t num_path, num_path2, num_old;
    int64_t length;     /* of a write */
};

static char scope[PATH_MAX], part[256], letters[32], graves[PATH_MAX];
static volatile int armed;
static long nth, seen, num_graves, fired;
static int action, failure, journal = -1;
static int64_t budget = -1, written;
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;

#define REAL(name) \
    static __typeof__(name) *real; \
    if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

static ssize_t plain_write(int fd, const void *data, size_t n) { REAL(write); return real(fd, data, n); }
static int plain_linkat(const char *a, const char *b) { REAL(linkat); return real(AT_FDCWD, a, AT_FDCWD, b, 0); }

/* How things will go from now on. An empty list of letters only counts. */
void torture_arm(const char *folder, const char *which, const char *in_path, long at, int what, int number) {
    pthread_mutex_lock(&turn);
    snprintf(scope, sizeof scope, "%s", folder);
    snprintf(letters, sizeof letters, "%s", which);
    snprintf(part, sizeof part, "%s", in_path);
    nth = at; seen = 0; fired = 0; action = what; failure = number;
    armed = 1;
    pthread_mutex_unlock(&turn);
}
void torture_disarm(void) { action = NOTHING; nth = -1; }
void torture_journal(const char *path, const char *folder) {
    snprintf(graves, sizeof graves, "%s", folder);
    journal = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}
void torture_budget(int64_t bytes) { budget = bytes; written = 0; }
long torture_seen(void) { return seen; }
long torture_fired(void) { return fired; }

static int inside(const char *path) {
    size_t n = strlen(scope);
    return armed && n && !strncmp(path, scope, n) && (path[n] == '/' || !path[n]);
}
static int of_fd(int fd, char *path) {
    char link[64];
    if (!armed || fd == journal) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, PATH_MAX - 1);
    if (n <= 0) return 0;
    path[n] = 0;
    return inside(path);
}
/* The folder that the folder of the index stands in: its sync brings down the name of the index. */
static int holds_scope(int fd, char *path) {
    char link[64];
    if (!armed || journal < 0) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, PATH_MAX - 1);
    if (n <= 0) return 0;
    path[n] = 0;
    return !strncmp(scope, path, n) && scope[n] == '/' && !strchr(scope + n + 1, '/');
}
static int of_path(int folder, const char *name, char *path) {
    if (!armed) return 0;
    if (name[0] == '/') snprintf(path, PATH_MAX, "%s", name);
    else {
        char link[64], base[PATH_MAX];
        ssize_t n;
        snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        n = readlink(folder == AT_FDCWD ? "/proc/self/cwd" : link, base, sizeof base - 1);
        if (n <= 0) return 0;
        base[n] = 0;
        if (n + strlen(name) + 2 > PATH_MAX) return 0;
        memcpy(path, base, n); path[n] = '/'; strcpy(path + n + 1, name);
    }
    return inside(path);
}
static int meets(char letter, const char *path) {
    if (letters[0] && !strchr(letters, letter)) return NOTHING;
    if (part[0] && !strstr(path, part)) return NOTHING;
    if (++seen != nth || action == NOTHING) return NOTHING;
    fired = 1;
    if (action == KILL_BEFORE) kill(getpid(), SIGKILL), pause();
    return action;
}
static void after(int what) { if (what == KILL_AFTER) kill(getpid(), SIGKILL), pause(); }
static int64_t inode(const char *path) { struct stat s; return lstat(path, &s) ? 0 : (int64_t)s.st_ino; }
static int64_t inode_of_folder(const char *path) {
    char folder[PATH_MAX];
    snprintf(folder, sizeof folder, "%s", path);
    char *slash = strrchr(folder, '/');
    if (!slash) return 0;
    *slash = 0;
    return inode(folder);
}
static int64_t bury(const char *path) {
    char grave[PATH_MAX + 32];
    struct stat s;
    if (journal < 0 || lstat(path, &s) || !S_ISREG(s.st_mode)) return 0;
    snprintf(grave, sizeof grave, "%s/%ld", graves, ++num_graves);
    return plain_linkat(path, grave) ? 0 : num_graves;
}
static void note(struct record *r, const char *path, const char *path2, const void *old) {
    if (journal < 0) return;
    r->num_path = strlen(path); r->num_path2 = path2 ? strlen(path2) : 0;
    size_t n = sizeof *r + r->num_path + r->num_path2 + r->num_old;
    char *all = malloc(n), *p = all;
    memcpy(p, r, sizeof *r); p += sizeof *r;
    memcpy(p, path, r->num_path); p += r->num_path;
    if (path2) memcpy(p, path2, r->num_path2), p += r->num_path2;
    if (r->num_old) memcpy(p, old, r->num_old);
    plain_write(journal, all, n);
    free(all);
}
static void note_write(int fd, const char *path, int64_t offset, int64_t length, char what) {
    struct stat s;
    if (journal < 0 || fstat(fd, &s) || !S_ISREG(s.st_mode)) return;
    struct record r = {.what = what, .inode = s.st_ino, .offset = offset, .size = s.st_size, .length = length};
    int64_t from = what == 't' ? offset : r.offset, to = what == 't' ? s.st_size : offset + length;
    if (to > s.st_size) to = s.st_size;
    char *old = NULL;
    if (from < to && (old = malloc(to - from))) {
        int in = open(path, O_RDONLY | O_CLOEXEC);  /* the descriptor may be for writing only */
        r.num_old = in < 0 ? 0 : pread(in, old, to - from, from);
        if (in >= 0) close(in);
        if (r.num_old < 0) r.num_old = 0;
    }
    note(&r, path, NULL, old);
    free(old);
}

#define FAILING(back) if (what == FAIL) { pthread_mutex_unlock(&turn); errno = failure; return back; }
#define LEAVE { int e = errno; after(what); pthread_mutex_unlock(&turn); errno = e; }

static int over_budget(int64_t n) {
    if (budget < 0) return 0;
    if (written + n > budget) return 1;
    written += n;
    return 0;
}

#define WRITES(declared, call, offset_of, length) \
    char path[PATH_MAX]; \
    if (!of_fd(fd, path)) return call; \
    pthread_mutex_lock(&turn); \
    int what = meets('w', path); \
    FAILING(-1) \
    if (over_budget(length)) { pthread_mutex_unlock(&turn); errno = ENOSPC; return -1; } \
    note_write(fd, path, offset_of, length, 'w'); \
    ssize_t done = call; \
    LEAVE \
    return done;

static int64_t place(int fd) {
    int64_t at = lseek(fd, 0, SEEK_CUR);
    struct stat s;
    return (fcntl(fd, F_GETFL) & O_APPEND) && !fstat(fd, &s) ? (int64_t)s.st_size : at;
}
ssize_t write(int fd, const void *data, size_t n) { REAL(write); WRITES(write, real(fd, data, n), place(fd), n) }
ssize_t pwrite(int fd, const void *data, size_t n, off_t at) { REAL(pwrite); WRITES(pwrite, real(fd, data, n, at), at, n) }
ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at) { REAL(pwrite64); WRITES(pwrite64, real(fd, data, n, at), at, n) }
static int64_t all_of(const struct iovec *v, int n) { int64_t sum = 0; for (int i = 0; i < n; i++) sum += v[i].iov_len; return sum; }
ssize_t writev(int fd, const struct iovec *v, int n) { REAL(writev); WRITES(writev, real(fd, v, n), place(fd), all_of(v, n)) }

#define TRUNCATES(call) \
    char path[PATH_MAX]; \
    if (!of_fd(fd, path)) return call; \
    pthread_mutex_lock(&turn); \
    int what = meets('t', path); \
    FAILING(-1) \
    note_write(fd, path, length, 0, 't'); \
    int done = call; \
    LEAVE \
    return done;
int ftruncate(int fd, off_t length) { REAL(ftruncate); TRUNCATES(real(fd, length)) }
int ftruncate64(int fd, off64_t length) { REAL(ftruncate64); TRUNCATES(real(fd, length)) }

#define SYNCS(call) \
    char path[PATH_MAX]; \
    int above = holds_scope(fd, path); \
    if (!above && !of_fd(fd, path)) return call; \
    pthread_mutex_lock(&turn); \
    int what = above ? NOTHING : meets('s', path); \
    struct stat s; \
    struct record r = {.what = 's'}; \
    if (!fstat(fd, &s)) { r.inode = s.st_ino; r.what = S_ISDIR(s.st_mode) ? 'S' : 's'; } \
    if (what == FAIL) r.what = 'x'; \
    if (what == FAIL) note(&r, path, NULL, NULL); \
    FAILING(-1) \
    int done = call; \
    if (!done) note(&r, path, NULL, NULL); \
    LEAVE \
    return done;
int fsync(int fd) { REAL(fsync); SYNCS(real(fd)) }
int fdatasync(int fd) { REAL(fdatasync); SYNCS(real(fd)) }

static int creating(int folder, const char *name, int flags, mode_t mode, int (*opens)(int, const char *, int, mode_t)) {
    char path[PATH_MAX];
    struct stat s;
    if (!armed || !(flags & (O_CREAT | O_TRUNC)) || (flags & O_TMPFILE) == O_TMPFILE || !of_path(folder, name, path))
        return opens(folder, name, flags, mode);
    int there = !lstat(path, &s);
    if (there && !(flags & O_TRUNC)) return opens(folder, name, flags, mode);
    pthread_mutex_lock(&turn);
    int what = meets('c', path);
    FAILING(-1)
    if (there && s.st_size) {
        int fd = open(path, O_RDWR | O_CLOEXEC);
        if (fd >= 0) note_write(fd, path, 0, 0, 't'), close(fd);
    }
    int done = opens(folder, name, flags, mode);
    if (done >= 0 && !there) {
        struct record r = {.what = 'c', .inode = inode_of_folder(path), .inode2 = inode(path)};
        note(&r, path, NULL, NULL);
    }
    LEAVE
    return done;
}
static int by_openat(int folder, const char *name, int flags, mode_t mode) { REAL(openat); return real(folder, name, flags, mode); }
#define MODE mode_t mode = 0; if (flags & (O_CREAT | O_TMPFILE)) { va_list l; va_start(l, flags); mode = va_arg(l, mode_t); va_end(l); }
int open(const char *name, int flags, ...) { MODE return creating(AT_FDCWD, name, flags, mode, by_openat); }
int open64(const char *name, int flags, ...) { MODE return creating(AT_FDCWD, name, flags | O_LARGEFILE, mode, by_openat); }
int openat(int folder, const char *name, int flags, ...) { MODE return creating(folder, name, flags, mode, by_openat); }
int openat64(int folder, const char *name, int flags, ...) { MODE return creating(folder, name, flags | O_LARGEFILE, mode, by_openat); }

#define NAMES(letter, at, name, prepare, call) \
    char path[PATH_MAX]; \
    if (!of_path(at, name, path)) return call; \
    pthread_mutex_lock(&turn); \
    int what = meets(letter, path); \
    FAILING(-1) \
    struct record r = {.what = letter, .inode = inode_of_folder(path)}; \
    prepare; \
    int done = call; \
    if (!done) { if (!r.inode2) r.inode2 = inode(path); note(&r, path, NULL, NULL); } \
    LEAVE \
    return done;
int mkdir(const char *name, mode_t mode) { REAL(mkdir); NAMES('m', AT_FDCWD, name, , real(name, mode)) }
int mkdirat(int at, const char *name, mode_t mode) { REAL(mkdirat); NAMES('m', at, name, , real(at, name, mode)) }
int link(const char *old, const char *name) { REAL(link); NAMES('l', AT_FDCWD, name, , real(old, name)) }
int linkat(int at, const char *old, int at2, const char *name, int flags) { REAL(linkat); NAMES('l', at2, name, , real(at, old, at2, name, flags)) }
#define BURIED r.inode2 = inode(path); r.grave = bury(path)
int unlink(const char *name) { REAL(unlink); NAMES('u', AT_FDCWD, name, BURIED, real(name)) }
int unlinkat(int at, const char *name, int flags) {
    REAL(unlinkat);
    if (flags & AT_REMOVEDIR) return real(at, name, flags);
    NAMES('u', at, name, BURIED, real(at, name, flags))
}
#define RENAMES(at, old, at2, name, call) \
    char path[PATH_MAX], from[PATH_MAX]; \
    if (!of_path(at2, name, path) || !of_path(at, old, from)) return call; \
    pthread_mutex_lock(&turn); \
    int what = meets('r', path); \
    FAILING(-1) \
    struct record r = {.what = 'r', .inode = inode_of_folder(path), .inode2 = inode_of_folder(from), .grave = bury(path)}; \
    int done = call; \
    if (!done) note(&r, path, from, NULL); \
    LEAVE \
    return done;
int rename(const char *old, const char *name) { REAL(rename); RENAMES(AT_FDCWD, old, AT_FDCWD, name, real(old, name)) }
int renameat(int at, const char *old, int at2, const char *name) { REAL(renameat); RENAMES(at, old, at2, name, real(at, old, at2, name)) }
int renameat2(int at, const char *old, int at2, const char *name, unsigned flags) { REAL(renameat2); RENAMES(at, old, at2, name, real(at, old, at2, name, flags)) }
