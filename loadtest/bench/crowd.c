/* Many viewers in one process, made to cost little: they count frames and answer pings.
 *
 *     crowd REQUEST PORT COUNT [NEXT_PORT]
 *
 * Opens COUNT connections to 127.0.0.1:PORT, a thousand from each loopback address, sends each the
 * bytes of the file REQUEST (a handshake; an empty file means plain TCP and bare frames) and reads
 * what comes. "open MS" is printed once when all are in, so long after the first began. Then
 * standard input is obeyed line by line, and its end ends the process:
 *
 *     !    count from here on; answers "marked"
 *     ?    answers "OPEN FRAMES BYTES FEWEST MOST LOST REFUSED": viewers connected now, what came
 *          since the last "!" in all, the fewest and most frames of one viewer, connections that
 *          ended and handshakes that were refused since the start
 *
 * With NEXT_PORT a viewer that was thrown out comes back there, after the `retry_ms` of its `bye`
 * (msgpack), else within 0.5 to 1.5 s; after a refusal within 1 to 3 s. Without, a lost viewer
 * stays away, and one that is refused, or lost before all are in, ends the process.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { VIEWERS_MAX = 20000, PER_ADDRESS = 1000, UNDER_WAY_MAX = 64, EVENTS_MAX = 512,
       REQUEST_MAX = 4096, KEPT = 192, HEAD_MAX = 10, POLL_MS = 5 };
enum state { AWAY, WAITING, CONNECTING, ANSWERED, OPEN };
enum { CLOSE = 8, PING = 9, PONG = 10, CONTROL = 8 };

struct viewer {
    int fd, state, ends;            /* ends: bytes matched of the empty line after an HTTP head */
    unsigned head_size, kept_size;  /* of the frame that is being read */
    unsigned char head[HEAD_MAX], kept[KEPT];
    unsigned long long left;        /* payload bytes still to come */
    long due, retry_ms;             /* when to (re)connect, ms; what the bye said, or -1 */
    unsigned long frames;
};

static struct viewer viewers[VIEWERS_MAX];
static char request[REQUEST_MAX];
static size_t request_size;
static int count, epoll, port, next_port, opened, under_way, waiting, all_in;
static long began;
static unsigned long bytes, lost, refused;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static long now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void await(struct viewer *viewer, long ms)
{
    viewer->state = WAITING;
    viewer->due = now_ms() + ms;
    waiting++;
}

static void begin(struct viewer *viewer)
{
    int one = 1, number = viewer - viewers;
    struct sockaddr_in from = {.sin_family = AF_INET}, to = {.sin_family = AF_INET};
    struct epoll_event event = {.events = EPOLLOUT, .data.ptr = viewer};

    from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + number / PER_ADDRESS);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    to.sin_port = htons(lost && next_port ? next_port : port);
    memset(viewer, 0, offsetof(struct viewer, frames));
    viewer->retry_ms = -1;
    viewer->state = CONNECTING;
    viewer->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(viewer->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    setsockopt(viewer->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (bind(viewer->fd, (struct sockaddr *)&from, sizeof from) < 0)
        die("bind");
    if (connect(viewer->fd, (struct sockaddr *)&to, sizeof to) < 0 && errno != EINPROGRESS)
        die("connect");
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, viewer->fd, &event) < 0)
        die("epoll_ctl");
    waiting--;
    under_way++;
}

static void begin_due(void)
{
    long now = now_ms();
    for (int i = 0; waiting && i < count && (all_in || under_way < UNDER_WAY_MAX); i++)
        if (viewers[i].state == WAITING && viewers[i].due <= now)
            begin(&viewers[i]);
}

static void is_open(struct viewer *viewer)
{
    viewer->state = OPEN;
    under_way--;
    if (++opened == count && !all_in) {
        all_in = 1;
        printf("open %ld\n", now_ms() - began);
    }
}

static void connected(struct viewer *viewer)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = viewer};
    epoll_ctl(epoll, EPOLL_CTL_MOD, viewer->fd, &event);
    viewer->state = ANSWERED;
    if (!request_size)
        is_open(viewer);
    else
        (void)!write(viewer->fd, request, request_size); /* a failure is seen by the next read */
}

static void hang_up(struct viewer *viewer)
{
    int was_open = viewer->state == OPEN;
    long retry = viewer->retry_ms >= 0 ? viewer->retry_ms : 500 + rand() % 1000;

    if (!all_in && !next_port) {
        fputs("a viewer was lost before all were in\n", stderr);
        exit(1);
    }
    close(viewer->fd);
    viewer->state = AWAY;
    was_open ? opened-- : under_way--;
    lost++;
    if (next_port)
        await(viewer, retry);
}

static void refuse(struct viewer *viewer)
{
    if (!next_port) {
        fprintf(stderr, "refused: %.*s\n", (int)viewer->kept_size, viewer->kept);
        exit(1);
    }
    refused++;
    viewer->retry_ms = 1000 + rand() % 2000;
    hang_up(viewer);
}

/* retry_ms of a bye in msgpack; -1 when there is none. */
static long told_retry_ms(const unsigned char *payload, size_t size)
{
    static const char name[] = "retry_ms";
    const unsigned char *at = memmem(payload, size, name, sizeof name - 1);
    if (!at || !memmem(payload, size, "bye", 3))
        return -1;
    at += sizeof name - 1;
    return *at < 0x80 ? *at : *at == 0xcc ? at[1] : *at == 0xcd ? at[1] << 8 | at[2] : -1;
}

/* One whole frame is read; `kept` has the beginning of its payload. */
static void take(struct viewer *viewer)
{
    unsigned char answer[6 + 125] = {0x80, 0x80}; /* masked with zeros */
    int opcode = viewer->head[0] & 0x0f;

    if (!(opcode & CONTROL)) {
        long retry = viewer->kept_size < KEPT ? told_retry_ms(viewer->kept, viewer->kept_size) : -1;
        viewer->frames++;
        if (retry >= 0)
            viewer->retry_ms = retry;
    } else if (opcode != PONG) {
        answer[0] |= opcode == PING ? PONG : CLOSE;
        answer[1] |= viewer->kept_size;
        memcpy(answer + 6, viewer->kept, viewer->kept_size);
        (void)!write(viewer->fd, answer, 6 + viewer->kept_size);
    }
    viewer->head_size = viewer->kept_size = 0;
}

/* Header bytes wanted, as far as the first two tell. */
static unsigned head_wanted(const struct viewer *viewer)
{
    unsigned length = viewer->head_size < 2 ? 0 : viewer->head[1] & 0x7f;
    return length == 127 ? 10 : length == 126 ? 4 : 2;
}

static unsigned long long payload_size(const unsigned char *head)
{
    unsigned long long size = 0;
    int bytes_of_it = head[1] == 127 ? 8 : head[1] == 126 ? 2 : 0;
    for (int i = 0; i < bytes_of_it; i++)
        size = size << 8 | head[2 + i];
    return bytes_of_it ? size : head[1];
}

static void parse(struct viewer *viewer, const unsigned char *data, size_t size)
{
    bytes += size;
    while (size) {
        if (!viewer->left) {
            viewer->head[viewer->head_size++] = *data++;
            size--;
            if (viewer->head_size < 2 || viewer->head_size < head_wanted(viewer))
                continue;
            viewer->left = payload_size(viewer->head);
        }
        size_t here = size < viewer->left ? size : viewer->left;
        size_t room = KEPT - viewer->kept_size;
        size_t kept = here < room ? here : room;
        memcpy(viewer->kept + viewer->kept_size, data, kept);
        viewer->kept_size += kept;
        viewer->left -= here;
        data += here;
        size -= here;
        if (!viewer->left)
            take(viewer);
    }
}

/* Take the HTTP head off the front: where the frames begin, or the end of `data`. */
static const unsigned char *skip_head(
    struct viewer *viewer, const unsigned char *data, const unsigned char *end)
{
    static const char line[] = "\r\n\r\n";
    if (!viewer->kept_size) { /* the status line comes in one piece */
        viewer->kept_size = end - data < 64 ? end - data : 64;
        memcpy(viewer->kept, data, viewer->kept_size);
        if (!memmem(viewer->kept, viewer->kept_size, " 101 ", 5)) {
            refuse(viewer);
            return end;
        }
    }
    while (data < end && viewer->ends < 4) {
        viewer->ends = *data == line[viewer->ends] ? viewer->ends + 1 : *data == '\r';
        data++;
    }
    if (viewer->ends == 4) {
        viewer->kept_size = 0;
        is_open(viewer);
    }
    return data;
}

static void readable(struct viewer *viewer)
{
    static unsigned char data[1 << 16];
    ssize_t size = read(viewer->fd, data, sizeof data);
    const unsigned char *at = data, *end = data + size;

    if (size <= 0) {
        if (size == 0 || errno != EAGAIN)
            hang_up(viewer);
        return;
    }
    if (viewer->state == ANSWERED)
        at = skip_head(viewer, data, end);
    if (viewer->state == OPEN)
        parse(viewer, at, end - at);
}

static void tell(void)
{
    unsigned long total = 0, fewest = viewers[0].frames, most = 0;
    for (int i = 0; i < count; i++) {
        total += viewers[i].frames;
        fewest = viewers[i].frames < fewest ? viewers[i].frames : fewest;
        most = viewers[i].frames > most ? viewers[i].frames : most;
    }
    printf("%d %lu %lu %lu %lu %lu %lu\n", opened, total, bytes, fewest, most, lost, refused);
}

static void mark(void)
{
    bytes = 0;
    for (int i = 0; i < count; i++)
        viewers[i].frames = 0;
    puts("marked");
}

static void obey(void)
{
    char lines[64];
    ssize_t size = read(STDIN_FILENO, lines, sizeof lines);
    if (size <= 0)
        exit(0);
    for (ssize_t i = 0; i < size; i++)
        if (lines[i] == '?')
            tell();
        else if (lines[i] == '!')
            mark();
}

static void load_request(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        die(path);
    request_size = fread(request, 1, sizeof request, file);
    fclose(file);
}

int main(int argc, char **argv)
{
    struct epoll_event events[EVENTS_MAX], input = {.events = EPOLLIN, .data.ptr = NULL};

    if (argc < 4 || (count = atoi(argv[3])) < 1 || count > VIEWERS_MAX)
        return 2;
    setvbuf(stdout, NULL, _IOLBF, 0);
    load_request(argv[1]);
    port = atoi(argv[2]);
    next_port = argc > 4 ? atoi(argv[4]) : 0;
    epoll = epoll_create1(0);
    epoll_ctl(epoll, EPOLL_CTL_ADD, STDIN_FILENO, &input);
    began = now_ms();
    for (int i = 0; i < count; i++)
        await(&viewers[i], 0);
    for (;;) {
        begin_due();
        int ready = epoll_wait(epoll, events, EVENTS_MAX, waiting ? POLL_MS : -1);
        for (int i = 0; i < ready; i++) {
            struct viewer *viewer = events[i].data.ptr;
            if (!viewer)
                obey();
            else if (viewer->state == CONNECTING)
                connected(viewer);
            else
                readable(viewer);
        }
    }
}
