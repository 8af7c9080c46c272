// SPDX-License-Identifier: Apache-2.0
// usage.c - what this process and its machine use now, from /proc (proc(5)) and getrusage(2).
// Threads: any.
#include "os/real.h"
#include <dirent.h>
#include <stdio.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static int64_t micros(struct timeval t) { return (int64_t)t.tv_sec * 1000000 + t.tv_usec; }

// Fields 20, 22 and 23 after the name, which may hold blanks and brackets itself.
static void process_stat(OsUsage *u) {
    char text[1024];
    ssize_t n = real_read_small("/proc/self/stat", text, sizeof text);
    const char *at = n > 0 ? strrchr(text, ')') : NULL;
    long long threads = 0;
    unsigned long long start = 0, mapped = 0;
    struct timespec up, wall;
    if (!at
        || sscanf(at + 1,
                  " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d"
                  " %lld %*d %llu %llu",
                  &threads, &start, &mapped)
               != 3)
        return;
    u->threads = threads;
    u->virtual_bytes = (int64_t)mapped;
    clock_gettime(CLOCK_BOOTTIME, &up);
    clock_gettime(CLOCK_REALTIME, &wall);
    int64_t lived_ms = (up.tv_sec * 1000LL + up.tv_nsec / 1000000)
                       - (int64_t)(start * 1000 / (unsigned long long)sysconf(_SC_CLK_TCK));
    u->started_ms = wall.tv_sec * 1000LL + wall.tv_nsec / 1000000 - lived_ms;
}

static int64_t count_open(void) {
    DIR *d = opendir("/proc/self/fd");
    int64_t n = -3; // ".", ".." and the one that reads
    if (!d) return 0;
    while (readdir(d)) n++;
    closedir(d);
    return n > 0 ? n : 0;
}

// user nice system idle iowait irq softirq steal, in clock ticks; user has no guest time of its own
static void host_cpu(OsUsage *u) {
    char text[512]; // the first line is the sum over the processors
    unsigned long long t[8] = { 0 };
    if (real_read_small("/proc/stat", text, sizeof text) <= 0) return;
    if (sscanf(text, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &t[0], &t[1], &t[2], &t[3],
               &t[4], &t[5], &t[6], &t[7])
        != 8)
        return;
    static const OsCpuMode of[8] = {
        OS_CPU_USER,   OS_CPU_NICE,      OS_CPU_SYSTEM,    OS_CPU_IDLE,
        OS_CPU_IOWAIT, OS_CPU_INTERRUPT, OS_CPU_INTERRUPT, OS_CPU_STEAL
    };
    int64_t tick = sysconf(_SC_CLK_TCK);
    for (size_t i = 0; i < countof(t); i++) u->host_cpu_ms[of[i]] += (int64_t)t[i] * 1000 / tick;
}

void real_usage(Os *os, OsUsage *out) {
    struct rusage self;
    if (getrusage(RUSAGE_SELF, &self) == 0)
        out->cpu_us = micros(self.ru_utime) + micros(self.ru_stime);
    out->memory_bytes = real_pid_memory_bytes(os, getpid());
    process_stat(out);
    out->open_files = count_open();
    host_cpu(out);
}
