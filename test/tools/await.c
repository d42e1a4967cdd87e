/* Waits for one condition, or tells what it asks about: the polls of the tests, without a process each.
 *
 *   await SECONDS CONDITION               waits so long (0: looks once); status 0: it holds
 *
 *   line FILE LEAST MOST PATTERN          so many lines match, as with grep (MOST "-": or more)
 *   newlines FILE LEAST                   it has so many whole lines
 *   file FILE                             it is there
 *   filled FILE                           it is there and not empty
 *   group first|last FILE PATTERN [NOT]   what the group of PATTERN matches in the first or last line
 *                                         that matches; it is printed, when it is not NOT
 *   living PID LEAST MOST                 so many of its children live
 *   none_of PID LIST                      none of its living children is on the list of pids
 *   gone PID                              there is no such process
 *   ended PID                             the same, or it is a zombie
 *   state PID LETTERS                     it has one of these states, as in ps(1)
 *   name PID NAME                         it is called so
 *   age PID SECONDS                       it has run for so long
 *
 *   children PID, living PID              prints its children; those that are no zombies
 *   tree PID ...                          prints them and all that descend from them
 *   kill PID ...                          kills all these; stopped first, they cannot start others
 *
 * When the time is over it says what it saw last. Status 2: wrong arguments. What proc(5) has is read
 * there, and elsewhere ps(1) is asked. */
#ifdef __linux__
#define _GNU_SOURCE /* CLOCK_BOOTTIME */
#endif
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <regex.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static void fail(const char *what, const char *which) {
  fprintf(stderr, "await: %s: %s\n", what, which);
  exit(2);
}

static void *grown(void *old, size_t size) {
  void *block = realloc(old, size);
  if (!block) fail("no memory", strerror(errno));
  return block;
}

static double now(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static long number(const char *text) {
  char *end;
  long value = strtol(text, &end, 10);
  if (*text == '\0' || *end != '\0') fail("not a number", text);
  return value;
}

static pid_t pid_in(const char *text) {
  long value = number(text);
  if (value <= 0) fail("not a pid", text);
  return (pid_t)value;
}

/* --- processes ------------------------------------------------------------------------------ */

struct process {
  pid_t pid, parent;
  char state;
  double age;
  char name[64];
};
struct list {
  struct process *at;
  int count;
};

static void add(struct list *list, const struct process *one) {
  if (list->count % 64 == 0)
    list->at = grown(list->at, (size_t)(list->count + 64) * sizeof *list->at);
  list->at[list->count++] = *one;
}

static int has_proc(void) { return access("/proc/self/stat", R_OK) == 0; }

/* False: there is no such process. */
static int read_proc(pid_t pid, struct process *one) {
  char path[64], text[1024], *name, *rest;
  unsigned long long start;
  ssize_t size;
  long parent;
  int fd;
  snprintf(path, sizeof path, "/proc/%ld/stat", (long)pid);
  if ((fd = open(path, O_RDONLY)) < 0) return 0;
  size = read(fd, text, sizeof text - 1);
  close(fd);
  if (size <= 0) return 0;
  text[size] = '\0';
  name = strchr(text, '(');
  rest = strrchr(text, ')');
  if (!name || !rest) return 0;
  *rest++ = '\0';
  if (sscanf(rest, " %c %ld %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %llu",
             &one->state, &parent, &start) != 3)
    return 0;
  one->pid = pid;
  one->parent = (pid_t)parent;
  snprintf(one->name, sizeof one->name, "%s", name + 1);
#ifdef CLOCK_BOOTTIME
  one->age = now(CLOCK_BOOTTIME) - (double)start / (double)sysconf(_SC_CLK_TCK);
#endif
  return 1;
}

/* Seconds of [[days-]hours:]minutes:seconds. */
static double seconds_in(const char *text) {
  double sum = 0, part = 0;
  for (; *text; text++) {
    if (isdigit((unsigned char)*text)) {
      part = part * 10 + (*text - '0');
    } else {
      sum = (sum + part) * (*text == '-' ? 24 : 60);
      part = 0;
    }
  }
  return sum + part;
}

/* All processes: from /proc, or else what ps(1) says. */
static struct list all_processes(void) {
  struct list all = {0};
  struct process one;
  if (has_proc()) {
    DIR *folder = opendir("/proc");
    struct dirent *entry;
    while (folder && (entry = readdir(folder)))
      if (isdigit((unsigned char)entry->d_name[0]) && read_proc((pid_t)atol(entry->d_name), &one))
        add(&all, &one);
    if (folder) closedir(folder);
  } else {
    char line[1024], state[32], age[64];
    long pid, parent;
    FILE *ps = popen("exec ps -A -o pid= -o ppid= -o stat= -o etime= -o comm=", "r");
    if (!ps) fail("ps", strerror(errno));
    while (fgets(line, sizeof line, ps)) {
      const char *name;
      if (sscanf(line, "%ld %ld %31s %63s %63[^\n]", &pid, &parent, state, age, one.name) != 5)
        continue;
      one.pid = (pid_t)pid;
      one.parent = (pid_t)parent;
      one.state = state[0];
      one.age = seconds_in(age);
      if ((name = strrchr(one.name, '/'))) memmove(one.name, name + 1, strlen(name));
      add(&all, &one);
    }
    pclose(ps);
  }
  return all;
}

static int find(pid_t pid, struct process *one) {
  struct list all;
  int i, found = 0;
  if (has_proc()) return read_proc(pid, one);
  all = all_processes();
  for (i = 0; i < all.count; i++) {
    if (all.at[i].pid != pid) continue;
    *one = all.at[i];
    found = 1;
  }
  free(all.at);
  return found;
}

static int is_zombie(const struct process *one) { return one->state == 'Z' || one->state == 'X'; }

/* Adds the children of one thread, from where Linux lists them. */
static void add_children(struct list *to, pid_t pid, const char *thread) {
  char path[64];
  struct process one;
  long child;
  FILE *file;
  snprintf(path, sizeof path, "/proc/%ld/task/%.20s/children", (long)pid, thread);
  if (!(file = fopen(path, "r"))) return;
  while (fscanf(file, "%ld", &child) == 1)
    if (read_proc((pid_t)child, &one)) add(to, &one);
  fclose(file);
}

static struct list children_of(pid_t pid, int zombies) {
  struct list found = {0}, all;
  char path[64], self[32];
  int i, kept = 0;
  /* The kernel may be built without these files. */
  snprintf(path, sizeof path, "/proc/self/task/%ld/children", (long)getpid());
  if (access(path, R_OK) == 0) {
    DIR *threads;
    struct dirent *entry;
    snprintf(path, sizeof path, "/proc/%ld/task", (long)pid);
    if ((threads = opendir(path))) {
      while ((entry = readdir(threads)))
        if (isdigit((unsigned char)entry->d_name[0])) {
          snprintf(self, sizeof self, "%.20s", entry->d_name);
          add_children(&found, pid, self);
        }
      closedir(threads);
    }
  } else {
    all = all_processes();
    for (i = 0; i < all.count; i++)
      if (all.at[i].parent == pid) add(&found, &all.at[i]);
    free(all.at);
  }
  if (zombies) return found;
  for (i = 0; i < found.count; i++)
    if (!is_zombie(&found.at[i])) found.at[kept++] = found.at[i];
  found.count = kept;
  return found;
}

static void print(const struct list *list) {
  int i;
  for (i = 0; i < list->count; i++) printf("%ld\n", (long)list->at[i].pid);
}

/* These processes and all that descend from them, as far as they are there. */
static struct list tree(char **roots, int count) {
  struct list all = all_processes(), found = {0};
  int i, j, k;
  for (i = 0; i < all.count; i++)
    for (j = 0; j < count; j++)
      if (all.at[i].pid == pid_in(roots[j])) {
        add(&found, &all.at[i]);
        all.at[i].parent = 0; /* found: nobody's child any more */
      }
  for (k = 0; k < found.count; k++)
    for (i = 0; i < all.count; i++)
      if (all.at[i].parent == found.at[k].pid && all.at[i].pid != found.at[k].pid) {
        add(&found, &all.at[i]);
        all.at[i].parent = 0;
      }
  free(all.at);
  return found;
}

/* A process that has been sent SIGSTOP may still finish a fork. (One that cannot be interrupted waits
   for something else, maybe for a child that has been stopped.) */
static void wait_until_stopped(pid_t pid) {
  const struct timespec pause = {0, 1000000};
  struct process one;
  while (find(pid, &one) && strchr("RS", one.state)) nanosleep(&pause, NULL);
}

static void kill_tree(char **roots, int count) {
  int before = -1, i;
  struct list found = {0};
  while (found.count > before) {
    before = found.count;
    free(found.at);
    found = tree(roots, count);
    for (i = 0; i < found.count; i++)
      if (kill(found.at[i].pid, SIGSTOP) == 0) wait_until_stopped(found.at[i].pid);
  }
  for (i = 0; i < found.count; i++) kill(found.at[i].pid, SIGKILL);
}

/* --- lines ---------------------------------------------------------------------------------- */

/* What has been read of a file up to the last newline is not looked at again, unless it was made
 * anew meanwhile: then the bytes at that place are others. */
static struct {
  int fd;
  ino_t inode;
  off_t done;     /* where the unfinished line begins */
  char last[256]; /* the end of what stands before that */
  size_t last_size;
  char *text; /* from there on */
  size_t size, room;
} file = {-1, 0, 0, {0}, 0, NULL, 0, 0};

static void forget_file(void) {
  if (file.fd >= 0) close(file.fd);
  file.fd = -1;
  file.done = 0;
  file.size = file.last_size = 0;
}

/* Reads what follows file.done. True: all that was read before is still there. */
static int read_file(const char *path) {
  struct stat is;
  char last[sizeof file.last];
  int same = file.fd >= 0;
  size_t room;
  ssize_t size;
  if (stat(path, &is) != 0) {
    forget_file();
    return 0;
  }
  if (same && (is.st_ino != file.inode || is.st_size < file.done ||
               pread(file.fd, last, file.last_size, file.done - (off_t)file.last_size) !=
                   (ssize_t)file.last_size ||
               memcmp(last, file.last, file.last_size) != 0))
    same = 0;
  if (!same) {
    forget_file();
    if ((file.fd = open(path, O_RDONLY | O_NONBLOCK)) < 0) return 0;
    file.inode = is.st_ino;
  }
  for (file.size = 0;; file.size += (size_t)size) {
    room = file.size + 65536;
    if (file.room < room + 1) file.text = grown(file.text, (file.room = 2 * room) + 1);
    size = pread(file.fd, file.text + file.size, 65536, file.done + (off_t)file.size);
    if (size <= 0) break;
  }
  return same;
}

/* The next line of what was read, without its newline; null when there is none. whole: it has one. */
static char *next_line(size_t *from, int *whole) {
  char *line = file.text + *from, *end;
  if (*from >= file.size) return NULL;
  end = memchr(line, '\n', file.size - *from);
  *whole = end != NULL;
  if (!end) end = file.text + file.size;
  *end = '\0';
  *from = (size_t)(end - file.text) + 1;
  return line;
}

/* Whole lines up to here (an offset in what was read) are not looked at again. */
static void done_with(size_t to) {
  size_t i;
  file.last_size = to < sizeof file.last ? to : sizeof file.last;
  if (to == 0) {
    file.last_size = file.done > 0 ? file.last_size : 0;
    return;
  }
  memcpy(file.last, file.text + to - file.last_size, file.last_size);
  for (i = 0; i < file.last_size; i++) /* where next_line() has put an end */
    if (file.last[i] == '\0') file.last[i] = '\n';
  file.done += (off_t)to;
}

static regex_t pattern;
static void compile(const char *text) {
  if (regcomp(&pattern, text, 0) != 0) fail("not a pattern", text);
}

static long whole_matches; /* of the lines that are done with */
static char whole_group[256];

/* How many lines match; with a group, its text in the first or last of them. */
static long count_matches(const char *path, int any, int first, char *group, size_t group_size) {
  regmatch_t match[2];
  size_t from = 0, done = 0;
  int whole, same = read_file(path);
  long count;
  char *line, part[sizeof whole_group];
  if (!same) {
    whole_matches = 0;
    whole_group[0] = '\0';
  }
  count = whole_matches;
  snprintf(part, sizeof part, "%s", whole_group);
  while (file.fd >= 0 && (line = next_line(&from, &whole))) {
    if (any ? whole : regexec(&pattern, line, 2, match, 0) == 0) {
      count++;
      if (group && (count == 1 || !first))
        snprintf(part, sizeof part, "%.*s", (int)(match[1].rm_eo - match[1].rm_so),
                 line + match[1].rm_so);
    }
    if (whole) {
      done = from;
      whole_matches = count;
      memcpy(whole_group, part, sizeof part);
    }
  }
  if (file.fd >= 0) done_with(done);
  if (group) snprintf(group, group_size, "%s", part);
  return count;
}

/* --- conditions ----------------------------------------------------------------------------- */

static char saw[4096]; /* what the last look has seen */

static void saw_children(const struct list *list) {
  size_t used = 0;
  int i;
  used += (size_t)snprintf(saw, sizeof saw, "%d:", list->count);
  for (i = 0; i < list->count && used < sizeof saw - 100; i++)
    used += (size_t)snprintf(saw + used, sizeof saw - used, " %ld (%s, %c)", (long)list->at[i].pid,
                             list->at[i].name, list->at[i].state);
}

static int between(long count, const char *least, const char *most) {
  return count >= number(least) && (strcmp(most, "-") == 0 || count <= number(most));
}

static int is_on(pid_t pid, const char *text) {
  char *end;
  for (; *text; text = end) {
    long value = strtol(text, &end, 10);
    if (end == text) {
      if (*text) end++;
    } else if (value == pid) {
      return 1;
    }
  }
  return 0;
}

static int holds_for_file(const char *what, char **argument, int count) {
  static int compiled;
  if (strcmp(what, "line") == 0 && count == 4) {
    long lines;
    if (!compiled++) compile(argument[3]);
    lines = count_matches(argument[0], 0, 0, NULL, 0);
    snprintf(saw, sizeof saw, "%ld such lines in %s", lines, argument[0]);
    return between(lines, argument[1], argument[2]);
  }
  if (strcmp(what, "newlines") == 0 && count == 2) {
    long lines = count_matches(argument[0], 1, 0, NULL, 0);
    snprintf(saw, sizeof saw, "%ld lines in %s", lines, argument[0]);
    return between(lines, argument[1], "-");
  }
  if (strcmp(what, "group") == 0 && (count == 3 || count == 4)) {
    char group[256];
    if (!compiled++) {
      compile(argument[2]);
      if (pattern.re_nsub < 1) fail("a pattern without a group", argument[2]);
    }
    if (count_matches(argument[1], 0, argument[0][0] == 'f', group, sizeof group) == 0) {
      snprintf(saw, sizeof saw, "no such line in %s", argument[1]);
      return 0;
    }
    snprintf(saw, sizeof saw, "%s", group);
    return count == 3 || strcmp(group, argument[3]) != 0;
  }
  if ((strcmp(what, "file") == 0 || strcmp(what, "filled") == 0) && count == 1) {
    struct stat is;
    const int there = stat(argument[0], &is) == 0;
    snprintf(saw, sizeof saw, "%s", there ? "it is empty" : "it is not there");
    return there && (what[4] == '\0' || is.st_size > 0);
  }
  fail("not a condition, or wrong arguments", what);
  return 0;
}

static int holds(const char *what, char **argument, int count) {
  struct process one;
  struct list list;
  pid_t pid;
  int found, i;
  if ((strcmp(what, "living") == 0 && count == 3) || (strcmp(what, "none_of") == 0 && count == 2)) {
    list = children_of(pid_in(argument[0]), 0);
    saw_children(&list);
    found = 1;
    for (i = 0; what[0] == 'n' && i < list.count; i++)
      if (is_on(list.at[i].pid, argument[1])) found = 0;
    if (what[0] == 'l') found = between(list.count, argument[1], argument[2]);
    free(list.at);
    return found;
  }
  if (strcmp(what, "gone") == 0 && count == 1) {
    snprintf(saw, sizeof saw, "it is still there");
    return kill(pid_in(argument[0]), 0) != 0 && errno == ESRCH;
  }
  if ((strcmp(what, "ended") == 0 && count == 1) ||
      ((strcmp(what, "state") == 0 || strcmp(what, "name") == 0 || strcmp(what, "age") == 0) &&
       count == 2)) {
    pid = pid_in(argument[0]);
    found = find(pid, &one);
    if (found)
      snprintf(saw, sizeof saw, "%s, state %c, %.1f s old", one.name, one.state, one.age);
    else
      snprintf(saw, sizeof saw, "no such process");
    if (what[0] == 'e') return !found || is_zombie(&one);
    if (!found) return 0;
    if (what[0] == 's') return strchr(argument[1], one.state) != NULL;
    if (what[0] == 'n') return strcmp(one.name, argument[1]) == 0;
    return one.age >= atof(argument[1]);
  }
  return holds_for_file(what, argument, count);
}

int main(int argc, char **argv) {
  double within, end, wait = 0.001;
  int count = argc - 3, holds_now;
  const char *what;
  struct list list;
  if (argc < 3) fail("no condition", "see await.c");
  within = atof(argv[1]);
  what = argv[2];
  argv += 3;
  if ((strcmp(what, "living") == 0 || strcmp(what, "children") == 0) && count == 1) {
    list = children_of(pid_in(argv[0]), what[0] == 'c');
    print(&list);
    return 0;
  }
  if (strcmp(what, "tree") == 0) {
    list = tree(argv, count);
    print(&list);
    return 0;
  }
  if (strcmp(what, "kill") == 0) {
    kill_tree(argv, count);
    return 0;
  }
  end = now(CLOCK_MONOTONIC) + within;
  while (!(holds_now = holds(what, argv, count)) && now(CLOCK_MONOTONIC) < end) {
    struct timespec t = {0, 0};
    t.tv_nsec = (long)(wait * 1e9);
    nanosleep(&t, NULL);
    if (wait < (has_proc() ? 0.02 : 0.1)) wait *= 2;
  }
  if (holds_now && strcmp(what, "group") == 0) puts(saw);
  if (!holds_now && within > 0) fprintf(stderr, "it saw: %s\n", saw);
  return holds_now ? 0 : 1;
}
