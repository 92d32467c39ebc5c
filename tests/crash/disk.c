/* SPDX-License-Identifier: MIT */
#include "disk.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PAGE = 4096, SECTOR = 512 };

/* Something done to a file that may not be on the disk yet. */
typedef struct Op {
        uint64_t serial;
        TraceType type; /* WRITE, ALLOCATE, TRUNCATE */
        bool durable;   /* one before it is not */
        bool lost;      /* its sync has failed */
        uint64_t at, len;
        char *data; /* owned */
} Op;

typedef struct Node {
        bool is_dir;
        char *image; /* owned; what is durable, but for ops */
        size_t size;
        Op *ops; /* owned; in order */
        size_t n_ops, cap_ops;
} Node;

typedef struct Name {
        char path[64];
        Node *node;
} Name;

typedef struct Names {
        Name *list; /* owned */
        size_t n, cap;
} Names;

typedef struct NameOp {
        uint64_t serial;
        TraceType type; /* OPEN: made; RENAME, UNLINK, MKDIR */
        char path[64], to[64];
        Node *node;
        bool lost;
} NameOp;

typedef struct Handle {
        int32_t pid, fd;
        Node *node;
        char path[64];
        uint64_t sync_serial; /* what was done before its sync began */
} Handle;

struct Disk {
        uint64_t serial;
        Names now, durable;
        NameOp *name_ops; /* owned; in order, not durable */
        size_t n_name_ops, cap_name_ops;
        Handle *handles; /* owned */
        size_t n_handles, cap_handles;
        Node **nodes; /* owned, all that ever were */
        size_t n_nodes, cap_nodes;
        DiskCounts counts;
};

static _Noreturn void give_up(const char *what, const char *name) {
        (void)fprintf(stderr, "disk: %s: %s\n", what, name);
        exit(3);
}

/* Room for one more. */
static void *room(void *array, size_t *cap, size_t n, size_t size) {
        if (n < *cap)
                return array;
        *cap = *cap ? *cap * 2 : 16;
        array = realloc(array, *cap * size);
        if (!array)
                give_up("out of memory", "");
        return array;
}

static void set_path(char to[static 64], const char *path) {
        if (strlen(path) >= 64)
                give_up("a name is too long", path);
        strcpy(to, path);
}

/* ---- nodes ---- */

static Node *node_new(Disk *d, bool is_dir) {
        Node *n = calloc(1, sizeof(*n));
        if (!n)
                give_up("out of memory", "");
        n->is_dir = is_dir;
        d->nodes = room(d->nodes, &d->cap_nodes, d->n_nodes, sizeof(Node *));
        d->nodes[d->n_nodes++] = n;
        return n;
}

static void resize(char **image, size_t *size, size_t to) {
        char *more = realloc(*image, to ? to : 1);
        if (!more)
                give_up("out of memory", "");
        if (to > *size)
                memset(more + *size, 0, to - *size);
        *image = more;
        *size = to;
}

static void put(char **image, size_t *size, uint64_t at, const char *data, size_t n) {
        if (n == 0)
                return;
        if (at + n > *size)
                resize(image, size, at + n);
        memcpy(*image + at, data, n);
}

static void apply_op(char **image, size_t *size, const Op *o) {
        if (o->type == TRACE_WRITE)
                put(image, size, o->at, o->data, o->len);
        else if (o->type == TRACE_TRUNCATE || o->at + o->len > *size)
                resize(image, size, o->at + o->len);
}

static void add_op(Disk *d, Node *n, TraceType type, uint64_t at, uint64_t len, const char *data) {
        Op o = { .serial = ++d->serial, .type = type, .at = at, .len = len };
        if (data) {
                o.data = malloc(len ? len : 1);
                if (!o.data)
                        give_up("out of memory", "");
                memcpy(o.data, data, len);
        }
        n->ops = room(n->ops, &n->cap_ops, n->n_ops, sizeof(Op));
        n->ops[n->n_ops++] = o;
}

/* Those at the front that are durable become part of the image. */
static void fold(Node *n) {
        size_t k = 0;
        for (; k < n->n_ops && n->ops[k].durable; k++) {
                apply_op(&n->image, &n->size, &n->ops[k]);
                free(n->ops[k].data);
        }
        n->n_ops -= k;
        memmove(n->ops, n->ops + k, n->n_ops * sizeof(Op));
}

static void sync_node(Node *n, uint64_t serial, bool failed) {
        for (size_t i = 0; i < n->n_ops && n->ops[i].serial <= serial; i++) {
                if (failed && !n->ops[i].durable)
                        n->ops[i].lost = true;
                else if (!n->ops[i].lost)
                        n->ops[i].durable = true;
        }
        fold(n);
}

/* ---- names ---- */

static Name *find(const Names *names, const char *path) {
        for (size_t i = 0; i < names->n; i++)
                if (strcmp(names->list[i].path, path) == 0)
                        return &names->list[i];
        return NULL;
}

static void set_name(Names *names, const char *path, Node *node) {
        Name *n = find(names, path);
        if (!n) {
                names->list = room(names->list, &names->cap, names->n, sizeof(Name));
                n = &names->list[names->n++];
                set_path(n->path, path);
        }
        n->node = node;
}

static void remove_name(Names *names, const char *path, const Node *node) {
        Name *n = find(names, path);
        if (n && n->node == node)
                *n = names->list[--names->n];
}

static void apply_name(Names *names, const NameOp *o) {
        if (o->type == TRACE_RENAME) {
                remove_name(names, o->path, o->node);
                set_name(names, o->to, o->node);
        } else if (o->type == TRACE_UNLINK)
                remove_name(names, o->path, o->node);
        else
                set_name(names, o->path, o->node);
}

static bool is_in(const char *path, const char *dir) {
        const char *slash = strrchr(path, '/');
        size_t n = slash ? (size_t)(slash - path) : 0;
        return strlen(dir) == n && strncmp(path, dir, n) == 0;
}

static void add_name_op(Disk *d, TraceType type, const char *path, const char *to, Node *node) {
        NameOp o = { .serial = ++d->serial, .type = type, .node = node };
        set_path(o.path, path);
        set_path(o.to, to ? to : "");
        apply_name(&d->now, &o);
        d->name_ops = room(d->name_ops, &d->cap_name_ops, d->n_name_ops, sizeof(NameOp));
        d->name_ops[d->n_name_ops++] = o;
}

static void sync_dir(Disk *d, const char *dir, uint64_t serial, bool failed) {
        size_t kept = 0;
        for (size_t i = 0; i < d->n_name_ops; i++) {
                NameOp *o = &d->name_ops[i];
                if (o->serial > serial || !is_in(o->path, dir) || o->lost || failed) {
                        o->lost = o->lost || (failed && o->serial <= serial && is_in(o->path, dir));
                        d->name_ops[kept++] = *o;
                } else
                        apply_name(&d->durable, o);
        }
        d->n_name_ops = kept;
}

/* ---- events ---- */

static Handle *handle_of(const Disk *d, const TraceEvent *e) {
        for (size_t i = d->n_handles; i-- > 0;)
                if (d->handles[i].fd == e->fd && d->handles[i].pid == e->pid)
                        return &d->handles[i];
        give_up("a descriptor was never opened", "");
}

static void on_open(Disk *d, const TraceEvent *e, const char *path) {
        const Name *n = find(&d->now, path);
        Handle h = { .pid = e->pid, .fd = e->fd, .node = n ? n->node : NULL };
        set_path(h.path, path);
        if (!n) {
                if (!e->made)
                        give_up("it was there before the trace", path);
                h.node = node_new(d, false);
                add_name_op(d, TRACE_OPEN, path, NULL, h.node);
        } else if (e->flags & O_TRUNC)
                add_op(d, h.node, TRACE_TRUNCATE, 0, 0, NULL);
        d->handles = room(d->handles, &d->cap_handles, d->n_handles, sizeof(Handle));
        d->handles[d->n_handles++] = h;
}

static bool is_log(const char *path) {
        const char *slash = strrchr(path, '/');
        return strncmp(slash ? slash + 1 : path, "log-", 4) == 0;
}

bool disk_lost_a_removal(const Disk *d) {
        for (size_t i = 0; i < d->n_name_ops; i++)
                if (d->name_ops[i].type == TRACE_UNLINK && d->name_ops[i].lost && is_log(d->name_ops[i].path))
                        return true;
        return false;
}

static void on_rename(Disk *d, const char *from, const char *to) {
        const Name *n = find(&d->now, from);
        if (!n)
                give_up("what was renamed was not there", from);
        if (is_log(to)) {
                d->counts.n_healed += find(&d->now, to) != NULL;
                d->counts.n_segments++;
        }
        add_name_op(d, TRACE_RENAME, from, to, n->node);
}

static void on_unlink(Disk *d, const char *path) {
        const Name *n = find(&d->now, path);
        if (!n)
                give_up("what was removed was not there", path);
        d->counts.n_removed += is_log(path);
        add_name_op(d, TRACE_UNLINK, path, NULL, n->node);
}

static void on_sync_end(Disk *d, const TraceEvent *e) {
        const Handle *h = handle_of(d, e);
        d->counts.n_syncs++;
        if (h->node->is_dir)
                sync_dir(d, h->path, h->sync_serial, e->error != 0);
        else
                sync_node(h->node, h->sync_serial, e->error != 0);
}

void disk_feed(Disk *d, const TraceEvent *e, const char *name, const char *data) {
        char path[PATH_MAX] = "";
        if (e->error && e->type != TRACE_SYNC_END)
                return; /* it changed nothing */
        if (e->n_name >= sizeof(path))
                give_up("a name is too long", "");
        memcpy(path, name, e->n_name);
        path[e->n_name] = '\0';
        switch (e->type) {
        case TRACE_OPEN:
                on_open(d, e, path);
                return;
        case TRACE_CLOSE:
                *handle_of(d, e) = d->handles[d->n_handles - 1];
                d->n_handles--;
                return;
        case TRACE_WRITE:
                add_op(d, handle_of(d, e)->node, TRACE_WRITE, e->at, e->n_data, data);
                return;
        case TRACE_ALLOCATE:
        case TRACE_TRUNCATE:
                add_op(d, handle_of(d, e)->node, e->type, e->at, e->len, NULL);
                return;
        case TRACE_SYNC_BEGIN:
                handle_of(d, e)->sync_serial = d->serial;
                return;
        case TRACE_SYNC_END:
                on_sync_end(d, e);
                return;
        case TRACE_RENAME:
                on_rename(d, path, path + strlen(path) + 1);
                return;
        case TRACE_UNLINK:
                on_unlink(d, path);
                return;
        case TRACE_MKDIR:
                add_name_op(d, TRACE_MKDIR, path, NULL, node_new(d, true));
                return;
        default:
                return;
        }
}

/* ---- the cut ---- */

typedef struct Dice {
        uint64_t state;
} Dice;

static uint64_t roll(Dice *r, uint64_t n) {
        r->state = r->state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        return (r->state >> 33) % n;
}

/* From one page border to the next: there, half there, or not. */
static void put_torn(char **image, size_t *size, const Op *o, Dice *r) {
        for (uint64_t done = 0; done < o->len;) {
                uint64_t at = o->at + done, n = PAGE - at % PAGE, fate = roll(r, 100);
                n = n < o->len - done ? n : o->len - done;
                if (fate < 50)
                        put(image, size, at, o->data + done, n);
                else if (fate < 60) {
                        uint64_t end = at - at % PAGE + SECTOR * (1 + roll(r, PAGE / SECTOR - 1));
                        if (end > at)
                                put(image, size, at, o->data + done, n < end - at ? n : end - at);
                }
                done += n;
        }
}

static void put_file(const Node *n, const char *path, Dice *r) {
        char *image = NULL;
        size_t size = 0;
        put(&image, &size, 0, n->image, n->size);
        for (size_t i = 0; i < n->n_ops; i++) {
                const Op *o = &n->ops[i];
                if (o->durable || (o->type == TRACE_WRITE ? roll(r, 100) < 15 : roll(r, 2) == 0))
                        apply_op(&image, &size, o);
                else if (o->type == TRACE_WRITE)
                        put_torn(&image, &size, o, r);
        }
        int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd < 0 || ftruncate(fd, (off_t)size) < 0)
                give_up("cannot be made", path);
        static const char zeros[PAGE];
        for (size_t at = 0; at < size; at += PAGE) { /* holes stay holes: running is large */
                size_t k = size - at < PAGE ? size - at : PAGE;
                if (memcmp(image + at, zeros, k) != 0 && pwrite(fd, image + at, k, (off_t)at) != (ssize_t)k)
                        give_up("cannot be written", path);
        }
        (void)close(fd);
        free(image);
}

static void choose_names(const Disk *d, Dice *r, Names *names) {
        *names = (Names) { 0 };
        for (size_t i = 0; i < d->durable.n; i++)
                set_name(names, d->durable.list[i].path, d->durable.list[i].node);
        uint64_t how = roll(r, 4), first = d->n_name_ops ? roll(r, d->n_name_ops + 1) : 0;
        for (size_t i = 0; i < d->n_name_ops; i++)
                if ((how == 2 && i < first) || (how == 3 && roll(r, 2) == 0))
                        apply_name(names, &d->name_ops[i]);
}

void disk_cut(const Disk *d, uint64_t seed, const char *dir) {
        Dice r = { .state = seed * UINT64_C(0x9E3779B97F4A7C15) + 1 };
        char path[PATH_MAX];
        Names names;
        (void)roll(&r, 2);
        choose_names(d, &r, &names);
        if (mkdir(dir, 0700) < 0)
                give_up("cannot be made", dir);
        for (int dirs = 1; dirs >= 0; dirs--)
                for (size_t i = 0; i < names.n; i++) {
                        const Name *n = &names.list[i];
                        if (n->node->is_dir != dirs || n->path[0] == '\0')
                                continue;
                        const char *slash = strrchr(n->path, '/');
                        (void)snprintf(path, sizeof(path), "%.*s", slash ? (int)(slash - n->path) : 0, n->path);
                        if (path[0] && !find(&names, path))
                                continue; /* its directory is not there */
                        (void)snprintf(path, sizeof(path), "%s/%s", dir, n->path);
                        if (!n->node->is_dir)
                                put_file(n->node, path, &r);
                        else if (mkdir(path, 0700) < 0)
                                give_up("cannot be made", path);
                }
        free(names.list);
}

/* ---- life ---- */

Disk *disk_new(void) {
        Disk *d = calloc(1, sizeof(*d));
        if (!d)
                give_up("out of memory", "");
        Node *root = node_new(d, true);
        set_name(&d->now, "", root);
        set_name(&d->durable, "", root);
        return d;
}

Disk *disk_free(Disk *d) {
        if (!d)
                return NULL;
        for (size_t i = 0; i < d->n_nodes; i++) {
                Node *n = d->nodes[i];
                for (size_t k = 0; k < n->n_ops; k++)
                        free(n->ops[k].data);
                free(n->ops);
                free(n->image);
                free(n);
        }
        free(d->nodes);
        free(d->handles);
        free(d->name_ops);
        free(d->now.list);
        free(d->durable.list);
        free(d);
        return NULL;
}

static void load_file(Node *n, const char *path) {
        struct stat st;
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || fstat(fd, &st) < 0)
                give_up("cannot be read", path);
        resize(&n->image, &n->size, (size_t)st.st_size);
        if (read(fd, n->image, n->size) != st.st_size)
                give_up("cannot be read", path);
        (void)close(fd);
}

static void load_below(Disk *d, const char *dir, const char *below) {
        char path[PATH_MAX], name[PATH_MAX];
        (void)snprintf(path, sizeof(path), "%s/%s", dir, below);
        DIR *dp = opendir(path);
        if (!dp)
                give_up("cannot be read", path);
        for (struct dirent *e; (e = readdir(dp));) {
                if (e->d_name[0] == '.')
                        continue;
                (void)snprintf(name, sizeof(name), "%s%s%s", below, below[0] ? "/" : "", e->d_name);
                Node *n = node_new(d, e->d_type == DT_DIR);
                set_name(&d->now, name, n);
                set_name(&d->durable, name, n);
                (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
                if (n->is_dir)
                        load_below(d, dir, name);
                else
                        load_file(n, path);
        }
        closedir(dp);
}

void disk_load(Disk *d, const char *dir) {
        load_below(d, dir, "");
}

const DiskCounts *disk_counts(const Disk *d) {
        return &d->counts;
}
