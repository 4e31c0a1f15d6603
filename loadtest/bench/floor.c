/* The floor of fan-out: what the kernel takes for one write(2) per viewer of a prebuilt frame.
 *
 *     floor PORT
 *
 * One thread, one epoll instance, TCP on 127.0.0.1:PORT. Whatever bytes one connection sends are
 * written to every connection as they are: the sender prebuilds the frame. No handshake, no
 * parser, no user space buffer: a write that does not take the whole frame ends the process, so
 * that a loss cannot look like speed.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CONNECTIONS_MAX = 65536, FRAME_MAX = 65536, EVENTS_MAX = 1024 };

static int viewers[CONNECTIONS_MAX]; /* descriptors, dense */
static int place[CONNECTIONS_MAX];   /* descriptor -> index in viewers */
static int count;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void forget(int fd)
{
    int last = viewers[--count];
    viewers[place[fd]] = last;
    place[last] = place[fd];
    close(fd);
}

static void admit(int listener, int epoll)
{
    int fd, one = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        if (fd >= CONNECTIONS_MAX || epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0)
            die("admit");
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        place[fd] = count;
        viewers[count++] = fd;
    }
}

static void fan_out(int fd)
{
    static char frame[FRAME_MAX];
    ssize_t size = read(fd, frame, sizeof frame);
    if (size <= 0) {
        if (size == 0 || errno != EAGAIN)
            forget(fd);
        return;
    }
    for (int i = 0; i < count; i++)
        if (write(viewers[i], frame, size) != size)
            die("write");
}

int main(int argc, char **argv)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    struct epoll_event events[EVENTS_MAX];
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), epoll = epoll_create1(0), one = 1;
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener};

    if (argc != 2)
        return 2;
    address.sin_port = htons(atoi(argv[1]));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 4096) < 0)
        die("listen");
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int ready = epoll_wait(epoll, events, EVENTS_MAX, -1);
        for (int i = 0; i < ready; i++)
            if (events[i].data.fd == listener)
                admit(listener, epoll);
            else
                fan_out(events[i].data.fd);
    }
}
