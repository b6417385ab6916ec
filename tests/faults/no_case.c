/* A file system that keeps case and does not tell it apart, below the folder NO_CASE: LD_PRELOAD.

   Every path below it is looked up without case, as macOS and Windows do. Only what Python calls. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *as_stored(const char *path, char *found) {
  const char *folder = getenv("NO_CASE");
  if (!path || !folder || strncmp(path, folder, strlen(folder))) return path;
  const char *name = strrchr(path, '/') + 1;
  size_t length = (size_t)(name - path);
  if (length >= PATH_MAX - 256) return path;
  memcpy(found, path, length);
  found[length] = 0;
  DIR *open = opendir(found);
  if (!open) return path;
  struct dirent *entry;
  const char *result = path;
  while ((entry = readdir(open)))
    if (!strcasecmp(entry->d_name, name)) {
      strcpy(found + length, entry->d_name);
      result = found;
      break;
    }
  closedir(open);
  return result;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define PATHS char a[PATH_MAX], b[PATH_MAX]; (void)b

#define OPEN(name)                                             \
  int name(const char *path, int flags, ...) {                 \
    va_list rest; va_start(rest, flags);                       \
    int mode = va_arg(rest, int); va_end(rest); PATHS;         \
    return REAL(name)(as_stored(path, a), flags, mode);        \
  }
OPEN(open) OPEN(open64)

#define STAT(name, kind)                                       \
  int name(const char *path, struct kind *info) {              \
    PATHS; return REAL(name)(as_stored(path, a), info);        \
  }
STAT(stat, stat) STAT(lstat, stat) STAT(stat64, stat64) STAT(lstat64, stat64)

int access(const char *path, int mode) { PATHS; return REAL(access)(as_stored(path, a), mode); }
int unlink(const char *path) { PATHS; return REAL(unlink)(as_stored(path, a)); }
int rename(const char *from, const char *to) {
  PATHS; return REAL(rename)(as_stored(from, a), as_stored(to, b));
}
int link(const char *from, const char *to) {
  PATHS; return REAL(link)(as_stored(from, a), as_stored(to, b));
}
