/* Frames to many sockets in one call: the loop that fan-out spends its time in, without Python.
 *
 *   send_one(fd, frame)         -> sent
 *   send_same(viewers, frame)   -> [(index, sent), ...]
 *   send_each(viewers, frames)  -> [(index, sent), ...]
 *   use_io_uring(wanted)        -> whether it is in use now
 *
 * `viewers` is a list of objects with an int attribute `fd`. Nothing blocks: a socket takes what it
 * can at once. The answer names those that did not take all of their frame, with the bytes they
 * took (0 also for a broken socket and for fd -1, "no plain socket").
 *
 * With io_uring (Linux 5.6; io_uring_enter(2)) a portion of sends is one system call, which is
 * cheaper than send(2) for each, and nothing is ever left in the ring: MSG_DONTWAIT completes every
 * send while it is submitted, and all completions are read before the call returns, so neither
 * frames nor descriptors are used after it. Where a kernel or a sandbox has no io_uring, send(2).
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#if defined(__linux__) && defined(__has_include)
#if __has_include(<linux/io_uring.h>)
#define HAVE_IO_URING 1
#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#endif
#endif

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0 /* Python ignores SIGPIPE anyway */
#endif

enum { PORTION = 256, FLAGS = MSG_DONTWAIT | MSG_NOSIGNAL };

typedef struct {
    int fd;
    const char *data;
    size_t size;
    ssize_t sent; /* bytes, or below 0 */
} Send;

static PyObject *fd_name; /* "fd", interned */

/* --- send(2) ------------------------------------------------------------------------------- */

static void send_plainly(Send *sends, int count) {
    for (int i = 0; i < count; i++) {
        if (sends[i].fd >= 0) sends[i].sent = send(sends[i].fd, sends[i].data, sends[i].size, FLAGS);
    }
}

/* --- io_uring ------------------------------------------------------------------------------ */

#ifdef HAVE_IO_URING

static struct {
    int fd; /* -1: not in use */
    pid_t owner; /* a forked child shares the rings with its parent and must not touch them */
    void *submissions, *completions;
    size_t submissions_size, completions_size, entries_size;
    struct io_uring_sqe *entries;
    unsigned *sq_tail, *sq_mask, *sq_array, *cq_head, *cq_tail, *cq_mask;
    struct io_uring_cqe *cqes;
} ring = {.fd = -1};

static void close_ring(void) {
    if (ring.fd < 0) return;
    if (ring.entries) munmap(ring.entries, ring.entries_size);
    if (ring.completions) munmap(ring.completions, ring.completions_size);
    if (ring.submissions) munmap(ring.submissions, ring.submissions_size);
    close(ring.fd);
    memset(&ring, 0, sizeof ring);
    ring.fd = -1;
}

static void *map_ring(size_t size, off_t what) {
    int flags = MAP_SHARED | MAP_POPULATE;
    void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, ring.fd, what);
    return at == MAP_FAILED ? NULL : at;
}

static int open_ring(void) {
    struct io_uring_params params;
    if (ring.fd >= 0 && ring.owner == getpid()) return 1;
    close_ring();
    memset(&params, 0, sizeof params);
    ring.fd = (int)syscall(__NR_io_uring_setup, PORTION, &params);
    if (ring.fd < 0) return 0;
    ring.owner = getpid();
    ring.submissions_size = params.sq_off.array + params.sq_entries * sizeof(unsigned);
    ring.completions_size = params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe);
    ring.entries_size = params.sq_entries * sizeof(struct io_uring_sqe);
    ring.submissions = map_ring(ring.submissions_size, IORING_OFF_SQ_RING);
    ring.completions = map_ring(ring.completions_size, IORING_OFF_CQ_RING);
    ring.entries = map_ring(ring.entries_size, IORING_OFF_SQES);
    if (!ring.submissions || !ring.completions || !ring.entries) {
        close_ring();
        return 0;
    }
    char *sq = ring.submissions, *cq = ring.completions;
    ring.sq_tail = (unsigned *)(sq + params.sq_off.tail);
    ring.sq_mask = (unsigned *)(sq + params.sq_off.ring_mask);
    ring.sq_array = (unsigned *)(sq + params.sq_off.array);
    ring.cq_head = (unsigned *)(cq + params.cq_off.head);
    ring.cq_tail = (unsigned *)(cq + params.cq_off.tail);
    ring.cq_mask = (unsigned *)(cq + params.cq_off.ring_mask);
    ring.cqes = (struct io_uring_cqe *)(cq + params.cq_off.cqes);
    return 1;
}

static unsigned submit(Send *sends, int count) {
    unsigned tail = *ring.sq_tail, submitted = 0;
    for (int i = 0; i < count; i++) {
        if (sends[i].fd < 0) continue;
        unsigned at = tail++ & *ring.sq_mask;
        struct io_uring_sqe *entry = &ring.entries[at];
        memset(entry, 0, sizeof *entry);
        entry->opcode = IORING_OP_SEND;
        entry->fd = sends[i].fd;
        entry->addr = (unsigned long)sends[i].data;
        entry->len = (unsigned)sends[i].size;
        entry->msg_flags = FLAGS;
        entry->user_data = (unsigned)i;
        ring.sq_array[at] = at;
        submitted++;
    }
    __atomic_store_n(ring.sq_tail, tail, __ATOMIC_RELEASE);
    return submitted;
}

static unsigned collect(Send *sends) {
    unsigned head = *ring.cq_head, begin = head;
    while (head != __atomic_load_n(ring.cq_tail, __ATOMIC_ACQUIRE)) {
        struct io_uring_cqe *done = &ring.cqes[head++ & *ring.cq_mask];
        sends[done->user_data].sent = done->res;
    }
    __atomic_store_n(ring.cq_head, head, __ATOMIC_RELEASE);
    return head - begin;
}

/* What a kernel says that does not know IORING_OP_SEND (before 5.6, or made to look like it). */
static int is_refused(ssize_t sent) { return sent == -EINVAL || sent == -EOPNOTSUPP; }

/* At most PORTION sends. When io_uring_enter(2) takes no more of them, the ring is given up and the
 * rest sent plainly. */
static void send_through_ring(Send *sends, int count) {
    unsigned waiting = submit(sends, count), left = waiting;
    while (waiting) {
        int taken = (int)syscall(
            __NR_io_uring_enter, ring.fd, left, waiting, IORING_ENTER_GETEVENTS, NULL, 0);
        int interrupted = taken < 0 && errno == EINTR;
        unsigned done = collect(sends);
        if (taken > 0) left -= (unsigned)taken;
        if (taken <= 0 && !done && !interrupted) break; /* would never end */
        waiting -= done;
    }
    int refused = waiting > 0; /* then what is not completed was never taken */
    for (int i = 0; i < count; i++) refused |= is_refused(sends[i].sent);
    if (!refused) return;
    close_ring();
    for (int i = 0; i < count; i++) {
        if (sends[i].sent == -ECANCELED || is_refused(sends[i].sent)) send_plainly(&sends[i], 1);
    }
}

static int ring_is_ours(void) { return ring.fd >= 0 && ring.owner == getpid(); }

#else

static int open_ring(void) { return 0; }
static void close_ring(void) {}
static int ring_is_ours(void) { return 0; }
static void send_through_ring(Send *sends, int count) { send_plainly(sends, count); }

#endif

/* --- Python -------------------------------------------------------------------------------- */

/* The descriptor that a Python int is; -1: none that can be. */
static int small(PyObject *number) {
    int overflow;
    long fd = PyLong_AsLongAndOverflow(number, &overflow);
    return overflow || fd < 0 || fd > INT_MAX ? -1 : (int)fd;
}

/* The slow way to a viewer's descriptor; -2 with an exception set. */
static int fd_of(PyObject *viewer) {
    PyObject *number = PyObject_GetAttr(viewer, fd_name);
    if (!number) return -2;
    long fd = PyLong_AsLong(number);
    Py_DECREF(number);
    if (fd == -1 && PyErr_Occurred()) return -2;
    return fd < 0 || fd > INT_MAX ? -1 : (int)fd;
}

/* Where objects of a type keep `fd` when it is one of its `__slots__`; 0: it is none. */
static Py_ssize_t slot_of(PyTypeObject *type) {
    PyObject *found = PyObject_GetAttr((PyObject *)type, fd_name);
    Py_ssize_t offset = 0;
    if (found && Py_IS_TYPE(found, &PyMemberDescr_Type)) {
        PyMemberDef *member = ((PyMemberDescrObject *)found)->d_member;
        if (member->type == T_OBJECT_EX) offset = member->offset;
    }
    PyErr_Clear();
    Py_XDECREF(found);
    return offset;
}

static PyObject **slot_in(PyObject *viewer, Py_ssize_t offset) {
    return (PyObject **)((char *)viewer + offset);
}

/* Begin to load what will be needed soon: 10,000 viewers are in no cache when their tick comes. */
static void look_ahead(PyObject *viewers, Py_ssize_t at, PyTypeObject *type, Py_ssize_t offset) {
    if (at + 8 >= PyList_GET_SIZE(viewers)) return;
    PyObject *next = PyList_GET_ITEM(viewers, at + 4), *later = PyList_GET_ITEM(viewers, at + 8);
    __builtin_prefetch(later);
    __builtin_prefetch(slot_in(later, offset));
    if (Py_IS_TYPE(next, type)) __builtin_prefetch(*slot_in(next, offset));
}

/* `sends[i]` for viewers[start + i]; false with an exception set. Looking for `fd` may run Python,
 * which may change both lists: the frames are taken only when that is over. */
static int prepare(Send *sends, int count, PyObject *viewers, PyObject *frames, Py_ssize_t start) {
    int own = PyList_Check(frames);
    PyTypeObject *type = NULL;
    Py_ssize_t offset = 0;
    for (int i = 0; i < count && start + i < PyList_GET_SIZE(viewers); i++) {
        PyObject *viewer = PyList_GET_ITEM(viewers, start + i);
        if (!Py_IS_TYPE(viewer, type)) offset = slot_of(type = Py_TYPE(viewer));
        if (offset) look_ahead(viewers, start + i, type, offset);
        PyObject *number = offset ? *slot_in(viewer, offset) : NULL;
        sends[i].fd = number && PyLong_CheckExact(number) ? small(number) : fd_of(viewer);
        if (sends[i].fd == -2) return 0;
    }
    if (PyList_GET_SIZE(viewers) < start + count || (own && PyList_GET_SIZE(frames) < start + count)) {
        PyErr_SetString(PyExc_RuntimeError, "the lists changed");
        return 0;
    }
    for (int i = 0; i < count; i++) {
        PyObject *frame = own ? PyList_GET_ITEM(frames, start + i) : frames;
        if (!PyBytes_Check(frame)) {
            PyErr_SetString(PyExc_TypeError, "a frame is bytes");
            return 0;
        }
        sends[i].data = PyBytes_AS_STRING(frame);
        sends[i].size = (size_t)PyBytes_GET_SIZE(frame);
        sends[i].sent = sends[i].fd < 0 ? 0 : -ECANCELED;
    }
    return 1;
}

static int report(PyObject *found, const Send *sends, int count, Py_ssize_t start) {
    for (int i = 0; i < count; i++) {
        if (sends[i].sent == (ssize_t)sends[i].size) continue;
        Py_ssize_t sent = sends[i].sent > 0 ? sends[i].sent : 0;
        PyObject *pair = Py_BuildValue("(nn)", start + i, sent);
        if (!pair || PyList_Append(found, pair) < 0) {
            Py_XDECREF(pair);
            return 0;
        }
        Py_DECREF(pair);
    }
    return 1;
}

/* The GIL is kept: a portion takes about a millisecond, and no Python runs between taking the frames
 * and the last send, so that nobody can drop one or reuse a descriptor. */
static PyObject *send_frames(PyObject *viewers, PyObject *frames) {
    Send sends[PORTION];
    PyObject *found = PyList_New(0);
    if (!found) return NULL;
    Py_ssize_t size = PyList_GET_SIZE(viewers);
    for (Py_ssize_t start = 0; start < size; start += PORTION) {
        int count = (int)(size - start < PORTION ? size - start : PORTION);
        if (!prepare(sends, count, viewers, frames, start)) goto failed;
        if (count > 1 && ring_is_ours()) {
            send_through_ring(sends, count);
        } else {
            send_plainly(sends, count);
        }
        if (!report(found, sends, count, start)) goto failed;
    }
    return found;
failed:
    Py_DECREF(found);
    return NULL;
}

static PyObject *send_one(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    (void)self;
    if (count != 2 || !PyLong_Check(args[0]) || !PyBytes_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "send_one(fd, frame) takes an int and bytes");
        return NULL;
    }
    long fd = PyLong_AsLong(args[0]);
    if (fd == -1 && PyErr_Occurred()) return NULL;
    if (fd > INT_MAX) fd = -1;
    Send one = {(int)fd, PyBytes_AS_STRING(args[1]), (size_t)PyBytes_GET_SIZE(args[1]), 0};
    send_plainly(&one, 1);
    return PyLong_FromSsize_t(one.sent > 0 ? one.sent : 0);
}

static PyObject *send_same(PyObject *self, PyObject *args) {
    PyObject *viewers, *frame;
    (void)self;
    if (!PyArg_ParseTuple(args, "O!O!", &PyList_Type, &viewers, &PyBytes_Type, &frame)) return NULL;
    return send_frames(viewers, frame);
}

static PyObject *send_each(PyObject *self, PyObject *args) {
    PyObject *viewers, *frames;
    (void)self;
    if (!PyArg_ParseTuple(args, "O!O!", &PyList_Type, &viewers, &PyList_Type, &frames)) return NULL;
    if (PyList_GET_SIZE(viewers) != PyList_GET_SIZE(frames)) {
        PyErr_SetString(PyExc_ValueError, "as many frames as viewers are needed");
        return NULL;
    }
    return send_frames(viewers, frames);
}

static PyObject *use_io_uring(PyObject *self, PyObject *wanted) {
    int on = PyObject_IsTrue(wanted);
    (void)self;
    if (on < 0) return NULL;
    if (!on) close_ring();
    return PyBool_FromLong(on && open_ring());
}

static PyMethodDef methods[] = {
    {"send_one", (PyCFunction)(void (*)(void))send_one, METH_FASTCALL,
     "send_one(fd, frame): see the file's head."},
    {"send_same", send_same, METH_VARARGS, "send_same(viewers, frame): see the file's head."},
    {"send_each", send_each, METH_VARARGS, "send_each(viewers, frames): see the file's head."},
    {"use_io_uring", use_io_uring, METH_O, "use_io_uring(wanted): whether it is in use now."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_send_many", "Frames to many sockets in one call.", -1, methods,
    NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__send_many(void) {
    fd_name = PyUnicode_InternFromString("fd");
    return fd_name ? PyModule_Create(&module) : NULL;
}
