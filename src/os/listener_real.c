// SPDX-License-Identifier: Apache-2.0
// listener_real.c - one listening socket that every loop watches; a connection wakes one of them
// (EPOLLEXCLUSIVE). An idle loop accepts; it keeps the connection unless another loop has fewer, so
// that long-lived streams do not heap up where it was quiet when they came. SO_REUSEPORT would hash
// connections onto loops however busy they are, would not serve unix sockets, and would reset the
// backlog of a loop that stops.
// Owner: listener_open's caller. Threads: close any; the rest the loops'.
#include "os/accept.h"
#include "os/real.h"
#include "os/stream_impl.h"
#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    BACKLOG = 4096,
    ACCEPTS_A_TURN = 16, // leaves some to the other loops
    FEWER = 2,           // by how much another loop must have less to get the connection
    BACK_OFF_MS = 100,   // out of files or memory: accepting again at once would only spin
};

typedef struct RealListener RealListener;
typedef struct Slot { // one a loop
    RealListener *listener;
    Loop *loop;
    Watch watch;
    Timer *again;
    atomic_size_t coming;  // handed over, not yet arrived
    pthread_mutex_t mutex; // held while accepted() runs, so that closing can wait for it
    bool inside;           // accepted() runs
    bool starved;          // counted in starved.paused; its loop's
    bool closed;           // under mutex
} Slot;

struct RealListener {
    Listener head;
    int fd;
    atomic_int open_slots;
    atomic_bool closing; // no more handing over
    void (*accepted)(void *arg, Loop *l, Stream *s);
    void *arg;
    struct stat file; // the unix socket's file, to remove our own only
    size_t slots_n;
    Slot slots[];
};

// ---- what pauses
static struct {
    atomic_llong pauses, paused; // paused: slots that wait or whose next try is still to come
    atomic_int error;
    _Atomic(void *) arg;
    void (*_Atomic fn)(void *arg, int error);
} starved;

void accept_state(AcceptState *out) {
    *out = (AcceptState){ starved.pauses, starved.paused > 0, starved.error };
}

void accept_on_pause(void (*fn)(void *arg, int error), void *arg) {
    starved.arg = arg;
    starved.fn = fn;
}

static bool is_unix(const Addr *a) { return str_starts(str_z(a->text), S("unix:")); }

typedef struct Handed { // a connection on its way to another loop
    Slot *slot;
    int fd;
    struct sockaddr_storage from;
} Handed;

static void give(Slot *slot, int fd, const struct sockaddr_storage *from) {
    RealListener *l = slot->listener;
    slot->inside = true;
    l->accepted(l->arg, slot->loop, real_stream_accepted(slot->loop, fd, from));
    slot->inside = false;
}

static void arrive(void *arg) {
    Handed *h = arg;
    Slot *slot = h->slot;
    slot->coming--;
    pthread_mutex_lock(&slot->mutex);
    if (slot->closed || loop_stopping(slot->loop)) close(h->fd);
    else give(slot, h->fd, &h->from);
    pthread_mutex_unlock(&slot->mutex);
    mem_free(h);
}

// Streams and timers, and what is on its way there: an estimate, since others change it meanwhile.
static size_t load(Slot *slot) { return slot->loop->owned + slot->coming; }

static Slot *least_busy(Slot *own) {
    RealListener *l = own->listener;
    Slot *best = own;
    size_t least = load(own);
    for (size_t i = 0; i < l->slots_n && !l->closing; i++) {
        size_t n = load(&l->slots[i]);
        if (n + FEWER < least) {
            least = n;
            best = &l->slots[i];
        }
    }
    return best;
}

// One connection; 0 or errno. EAGAIN: none waits.
static int accept_one(Slot *slot) {
    struct sockaddr_storage from = { 0 };
    socklen_t n = sizeof from;
    int fd =
        accept4(slot->listener->fd, (struct sockaddr *)&from, &n, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) return errno;
    Slot *to = least_busy(slot);
    if (to == slot) {
        give(slot, fd, &from);
    } else {
        Handed *h = mem_new(sizeof *h);
        *h = (Handed){ to, fd, from };
        to->coming++;
        loop_post(to->loop, arrive, h);
    }
    return 0;
}

// accept(2): these belong to a connection that is gone, not to the listener.
static bool gone_already(int e) {
    return e == ECONNABORTED || e == EINTR || e == EPROTO || e == ENETDOWN || e == EHOSTUNREACH
           || e == ENETUNREACH || e == EPERM || e == ETIMEDOUT;
}

static void note_starved(Slot *slot, bool now, int error) {
    if (now != slot->starved) starved.paused += now ? 1 : -1;
    slot->starved = now;
    if (!now) return;
    starved.pauses++;
    starved.error = error;
    void (*fn)(void *, int) = starved.fn;
    if (fn) fn(starved.arg, error);
}

static void accept_some(Slot *slot, int max) {
    for (int i = 0; i < max && !slot->closed; i++) {
        int e = accept_one(slot);
        if (e == EAGAIN) return;
        if (!e || gone_already(e)) continue;
        note_starved(slot, true, e);
        real_watch_del(slot->loop, &slot->watch);
        timer_start(slot->again, BACK_OFF_MS);
        return;
    }
}

static void on_connection(void *arg, unsigned events) {
    (void)events;
    Slot *slot = arg;
    pthread_mutex_lock(&slot->mutex);
    accept_some(slot, ACCEPTS_A_TURN);
    pthread_mutex_unlock(&slot->mutex);
}

static void on_again(void *arg) {
    Slot *slot = arg;
    int e = real_watch_add(slot->loop, &slot->watch, EPOLLIN | EPOLLEXCLUSIVE);
    note_starved(slot, e != 0, e); // if accepting fails again, that is seen at once
    if (e) timer_start(slot->again, BACK_OFF_MS);
}

// join and leave run on the slot's loop.
static void join(void *arg) {
    Slot *slot = arg;
    RealListener *l = slot->listener;
    slot->again = timer_new(slot->loop, on_again, slot);
    slot->watch = (Watch){ .fd = l->fd, .fn = on_connection, .arg = slot };
    on_again(slot);
}

static void leave(void *arg) {
    Slot *slot = arg;
    RealListener *l = slot->listener;
    assert(slot->closed && !slot->inside);
    real_watch_del(slot->loop, &slot->watch);
    timer_free(slot->again);
    note_starved(slot, false, 0);
    if (atomic_fetch_sub(&l->open_slots, 1) > 1) return;
    close(l->fd); // the last one out
    for (size_t i = 0; i < l->slots_n; i++) pthread_mutex_destroy(&l->slots[i].mutex);
    mem_free(l);
}

static void on_slot_loop(Slot *slot, void (*fn)(void *), bool here) {
    if (here) fn(slot);
    else loop_post(slot->loop, fn, slot);
}

static void remove_own_file(RealListener *l) {
    struct stat now;
    const char *path = l->head.addr.text + 5;
    if (!is_unix(&l->head.addr) || stat(path, &now) < 0) return;
    if (now.st_ino == l->file.st_ino && now.st_dev == l->file.st_dev) unlink(path);
}

static void close_listener(Listener *head) {
    RealListener *l = (RealListener *)head;
    l->closing = true;
    remove_own_file(l); // from here on nobody new comes to a unix socket: the drain takes them all
    for (size_t i = 0; i < l->slots_n; i++)
        if (loop_is_mine(l->slots[i].loop) && !l->slots[i].inside && l->slots[i].again) {
            accept_some(&l->slots[i], BACKLOG);
            break;
        }
    for (size_t i = 0; i < l->slots_n; i++) { // waits for accepted() on other loops
        Slot *slot = &l->slots[i];
        bool here = loop_is_mine(slot->loop) && slot->inside;
        if (!here) pthread_mutex_lock(&slot->mutex);
        slot->closed = true;
        if (!here) pthread_mutex_unlock(&slot->mutex);
    }
    size_t n = l->slots_n;           // l goes with its last slot
    for (size_t i = 0; i < n; i++) { // a lone slot has nothing posted to wait for, unless inside
        Slot *slot = &l->slots[i];
        bool here = n == 1 && loop_is_mine(slot->loop) && !slot->inside && slot->again;
        on_slot_loop(slot, leave, here);
    }
}

// --- opening

// Somebody answers at the unix socket, or it is no socket at all: not ours to replace.
static bool stale(const struct sockaddr_un *at) {
    struct stat st;
    if (lstat(at->sun_path, &st) < 0) return errno == ENOENT;
    if (!S_ISSOCK(st.st_mode)) return false;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return false;
    int rc = connect(fd, (const struct sockaddr *)at, sizeof *at);
    bool refused = rc < 0 && errno == ECONNREFUSED;
    close(fd);
    return refused;
}

static int bind_to(int fd, const struct sockaddr_storage *at, socklen_t n) {
    const int on = 1, off = 0;
    if (at->ss_family == AF_UNIX) fchmod(fd, 0600); // the file gets the socket's mode
    if (at->ss_family != AF_UNIX) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (at->ss_family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    if (bind(fd, (const struct sockaddr *)at, n) == 0) return 0;
    const struct sockaddr_un *un = (const struct sockaddr_un *)at;
    if (errno != EADDRINUSE || at->ss_family != AF_UNIX || !stale(un)) return errno;
    unlink(un->sun_path);
    return bind(fd, (const struct sockaddr *)at, n) < 0 ? errno : 0;
}

static int open_socket(const Addr *addr, int *out_fd) {
    struct sockaddr_storage at;
    socklen_t n;
    if (!addr_to_sockaddr(addr, &at, &n)) return EINVAL;
    int fd = socket(at.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return errno;
    real_socket_options(fd, at.ss_family); // accepted sockets inherit them
    int e = bind_to(fd, &at, n);
    if (!e && listen(fd, BACKLOG) < 0) e = errno;
    if (e) close(fd);
    else *out_fd = fd;
    return e;
}

static void set_addr(RealListener *l, const Addr *asked) {
    struct sockaddr_storage at;
    socklen_t n = sizeof at;
    l->head.addr = *asked;
    if (is_unix(asked)) {
        if (stat(asked->text + 5, &l->file) < 0) l->file = (struct stat){ 0 };
    } else if (getsockname(l->fd, (struct sockaddr *)&at, &n) == 0) {
        addr_from_sockaddr(&at, &l->head.addr);
    }
}

err real_listener_open(Ctx *c, const ListenSpec *spec, Listener **out) {
    int fd = -1;
    int e = open_socket(spec->addr, &fd);
    if (e) return os_fail(c, e, "listen on", str_z(spec->addr->text));
    RealListener *l = mem_new(sizeof *l + spec->loops_n * sizeof *l->slots);
    l->head.close = close_listener;
    l->fd = fd;
    l->accepted = spec->accepted;
    l->arg = spec->arg;
    l->slots_n = spec->loops_n;
    l->open_slots = (int)spec->loops_n;
    set_addr(l, spec->addr);
    for (size_t i = 0; i < l->slots_n; i++) {
        l->slots[i].listener = l;
        l->slots[i].loop = spec->loops[i];
        pthread_mutex_init(&l->slots[i].mutex, NULL);
    }
    for (size_t i = 0; i < l->slots_n; i++)
        on_slot_loop(&l->slots[i], join, loop_is_mine(l->slots[i].loop));
    *out = &l->head;
    return ERR_OK;
}
