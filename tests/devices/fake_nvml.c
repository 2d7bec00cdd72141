/* A small libnvidia-ml.so.1 for the tests. It holds no state of its own: all it answers comes from the file named by
 * HELIOS_FAKE_NVML, mapped, so a test changes the GPUs of a running probe by writing to its mapping of the same file.
 *
 * Every field is 64 bits wide, so that the layout is the same in C and in ctypes without thinking about padding.
 * Functions that are not here are missing for pynvml too, as with a driver that is older than they are. Builds:
 *   (nothing)    a driver of today
 *   -DOLD        one from before memory v2, process lists v3, peer-to-peer and fault events
 *   -DANCIENT    one from before nvmlInitWithFlags: too old for anything
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { GPUS = 16, SLICES = 7, PROCESSES = 8, NAME = 96 };
enum {
    OK = 0, UNINITIALIZED = 1, INVALID = 2, UNSUPPORTED = 3, NOT_FOUND = 6, TOO_SMALL = 7, NO_DRIVER = 9, TIMEOUT = 10,
    BAD_VERSION = 25
};

struct process { uint64_t pid, used_bytes; };
struct memory { uint64_t total, reserved, used; };
struct slice {
    struct memory memory;
    uint64_t instance, n_processes;
    struct process processes[PROCESSES];
    char uuid[NAME], name[NAME];
};
struct gpu {
    uint64_t error, hang_ms; /* what every call answers, and how long it takes */
    struct memory memory;
    uint64_t utilization, temperature, power_mw, power_limit_mw, ecc, numa, major, minor, pcie_generation, pcie_width;
    uint64_t nvlink, pcie_switch, xid, xid_instance, double_bit, mig, n_slices, n_processes;
    struct process processes[PROCESSES];
    struct slice slices[SLICES];
    char uuid[NAME], name[NAME];
};
struct state { uint64_t init_error, error, n_gpus; char driver[NAME]; struct gpu gpus[GPUS]; };
struct handle { int gpu, slice; };

static struct state *state;
static struct handle handles[GPUS][SLICES + 1]; /* [n][0] is the whole GPU */
static int users;

static char attached[4096];

static int attach(const char *file) {
    int fd = open(file, O_RDWR);
    if (fd < 0) return NO_DRIVER;
    void *mapping = mmap(0, sizeof *state, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (mapping == MAP_FAILED) return NO_DRIVER;
    state = mapping;
    snprintf(attached, sizeof attached, "%s", file);
    for (int g = 0; g < GPUS; g++)
        for (int s = 0; s <= SLICES; s++) handles[g][s] = (struct handle){g, s - 1};
    return OK;
}

int nvmlInit_v2(void) {
    const char *file = getenv("HELIOS_FAKE_NVML");
    if (!file) return NO_DRIVER;
    /* A test that left a hanging probe behind must not leave its GPUs to the next one. */
    if (strcmp(file, attached)) users = 0;
    int error = users ? OK : attach(file);
    if (!error) error = state->init_error;
    if (!error) users++;
    return error;
}

int nvmlShutdown(void) {
    if (!users) return UNINITIALIZED;
    users--; /* the mapping stays: a thread of a hanging probe may still be in it */
    return OK;
}

const char *nvmlErrorString(int error) {
    switch (error) {
    case NO_DRIVER: return "Driver Not Loaded";
    case 15: return "GPU is lost";
    case 16: return "GPU requires reset";
    case 18: return "Driver/library version mismatch";
    default: return "Unknown Error";
    }
}

#ifndef ANCIENT
int nvmlInitWithFlags(unsigned flags) { (void)flags; return nvmlInit_v2(); }

static int failing(void) { return users ? (int)state->error : UNINITIALIZED; }

static int refused(struct handle *h) {
    if (failing()) return failing();
    if (!h) return INVALID;
    struct gpu *g = &state->gpus[h->gpu];
    if (g->hang_ms) usleep(g->hang_ms * 1000);
    return (int)g->error;
}

/* Opens every function on a device: g is its GPU, s its slice or null. */
#define DEVICE(h)                                                                                      \
    int refusal = refused(h);                                                                          \
    if (refusal) return refusal;                                                                       \
    struct gpu *g = &state->gpus[(h)->gpu];                                                            \
    struct slice *s = (h)->slice < 0 ? 0 : &g->slices[(h)->slice];                                     \
    (void)g; (void)s

int nvmlSystemGetDriverVersion(char *out, unsigned size) {
    if (failing()) return failing();
    snprintf(out, size, "%s", state->driver);
    return OK;
}

int nvmlDeviceGetCount_v2(unsigned *n) {
    if (failing()) return failing();
    *n = (unsigned)state->n_gpus;
    return OK;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, struct handle **out) {
    if (index >= state->n_gpus) return INVALID;
    *out = &handles[index][0];
    return refused(*out);
}

int nvmlDeviceGetName(struct handle *h, char *out, unsigned size) {
    DEVICE(h);
    snprintf(out, size, "%s", s ? s->name : g->name);
    return OK;
}

int nvmlDeviceGetUUID(struct handle *h, char *out, unsigned size) {
    DEVICE(h);
    snprintf(out, size, "%s", s ? s->uuid : g->uuid);
    return OK;
}

struct memory_v1 { unsigned long long total, free, used; };
int nvmlDeviceGetMemoryInfo(struct handle *h, struct memory_v1 *out) {
    DEVICE(h);
    struct memory m = s ? s->memory : g->memory;
    *out = (struct memory_v1){m.total, m.total - m.reserved - m.used, m.used + m.reserved};
    return OK;
}

int nvmlDeviceGetUtilizationRates(struct handle *h, unsigned out[2]) {
    DEVICE(h);
    if (g->mig) return UNSUPPORTED;
    out[0] = (unsigned)g->utilization;
    out[1] = 0;
    return OK;
}

int nvmlDeviceGetTemperature(struct handle *h, int sensor, unsigned *out) {
    DEVICE(h);
    (void)sensor;
    *out = (unsigned)g->temperature;
    return OK;
}

/* A field of the whole GPU that the driver does not offer for a slice. */
#define WHOLE_GPU(function, type, value)                                                               \
    int function(struct handle *h, type *out) {                                                        \
        DEVICE(h);                                                                                     \
        if (s) return UNSUPPORTED;                                                                     \
        *out = (type)(value);                                                                          \
        return OK;                                                                                     \
    }
WHOLE_GPU(nvmlDeviceGetPowerUsage, unsigned, g->power_mw)
WHOLE_GPU(nvmlDeviceGetPowerManagementLimit, unsigned, g->power_limit_mw)
WHOLE_GPU(nvmlDeviceGetCurrPcieLinkGeneration, unsigned, g->pcie_generation)
WHOLE_GPU(nvmlDeviceGetCurrPcieLinkWidth, unsigned, g->pcie_width)

int nvmlDeviceGetCudaComputeCapability(struct handle *h, int *major, int *minor) {
    DEVICE(h);
    *major = (int)g->major;
    *minor = (int)g->minor;
    return OK;
}

int nvmlDeviceGetTotalEccErrors(struct handle *h, int type, int counter, unsigned long long *out) {
    DEVICE(h);
    *out = type == 1 && counter == 0 ? g->ecc : 0;
    return s ? UNSUPPORTED : OK;
}

int nvmlDeviceGetMemoryAffinity(struct handle *h, unsigned n, unsigned long *nodes, unsigned scope) {
    DEVICE(h);
    (void)scope;
    memset(nodes, 0, n * sizeof *nodes);
    nodes[g->numa / 64] = 1ul << (g->numa % 64);
    return OK;
}

int nvmlDeviceGetTopologyCommonAncestor(struct handle *h, struct handle *other, unsigned *level) {
    DEVICE(h);
    if (refused(other)) return refused(other);
    struct gpu *o = &state->gpus[other->gpu];
    *level = g->numa != o->numa ? 50 : g->pcie_switch && g->pcie_switch == o->pcie_switch ? 10 : 30;
    return OK;
}

struct listed { unsigned pid; unsigned long long used_bytes; unsigned instance, compute_instance; };
static int list(struct handle *h, unsigned *n, struct listed *out) {
    DEVICE(h);
    uint64_t have = s ? s->n_processes : g->n_processes;
    struct process *processes = s ? s->processes : g->processes;
    unsigned room = *n;
    *n = (unsigned)have;
    if (room < have) return TOO_SMALL;
    for (unsigned i = 0; i < have; i++)
        out[i] = (struct listed){(unsigned)processes[i].pid, processes[i].used_bytes, ~0u, ~0u};
    return OK;
}
int nvmlDeviceGetComputeRunningProcesses_v2(struct handle *h, unsigned *n, struct listed *out) { return list(h, n, out); }

#ifndef OLD
int nvmlDeviceGetComputeRunningProcesses_v3(struct handle *h, unsigned *n, struct listed *out) { return list(h, n, out); }

struct memory_v2 { unsigned version; unsigned long long total, reserved, free, used; };
int nvmlDeviceGetMemoryInfo_v2(struct handle *h, struct memory_v2 *out) {
    DEVICE(h);
    if (out->version >> 24 != 2) return BAD_VERSION;
    struct memory m = s ? s->memory : g->memory;
    out->total = m.total;
    out->reserved = m.reserved;
    out->used = m.used;
    out->free = m.total - m.reserved - m.used;
    return OK;
}

struct temperature { unsigned version, sensor; int degrees; };
int nvmlDeviceGetTemperatureV(struct handle *h, struct temperature *out) {
    DEVICE(h);
    out->degrees = (int)g->temperature;
    return OK;
}

int nvmlDeviceGetP2PStatus(struct handle *h, struct handle *other, int capability, int *out) {
    DEVICE(h);
    if (refused(other)) return refused(other);
    int both = g->nvlink && state->gpus[other->gpu].nvlink;
    *out = capability == 2 && both ? 0 : 5;
    return OK;
}

int nvmlDeviceGetMigMode(struct handle *h, unsigned *now, unsigned *pending) {
    DEVICE(h);
    *now = *pending = (unsigned)g->mig;
    return OK;
}

WHOLE_GPU(nvmlDeviceGetMaxMigDeviceCount, unsigned, SLICES)

int nvmlDeviceGetMigDeviceHandleByIndex(struct handle *h, unsigned index, struct handle **out) {
    DEVICE(h);
    if (index >= SLICES || !g->mig || !g->slices[index].memory.total) return NOT_FOUND;
    *out = &handles[h->gpu][index + 1];
    return OK;
}

int nvmlDeviceGetGpuInstanceId(struct handle *h, unsigned *out) {
    DEVICE(h);
    if (!s) return INVALID;
    *out = (unsigned)s->instance;
    return OK;
}

/* An event set is the set of boards registered with it. */
static char registered[GPUS];
int nvmlEventSetCreate(void **set) {
    if (failing()) return failing();
    memset(registered, 0, sizeof registered);
    *set = registered;
    return OK;
}
int nvmlEventSetFree(void *set) { (void)set; return OK; }

WHOLE_GPU(nvmlDeviceGetSupportedEventTypes, unsigned long long, 0xff)

int nvmlDeviceRegisterEvents(struct handle *h, unsigned long long types, char *set) {
    DEVICE(h);
    if (s || !types) return UNSUPPORTED;
    set[h->gpu] = 1;
    return OK;
}

struct event { void *device; unsigned long long type, data; unsigned instance, compute_instance; };
int nvmlEventSetWait_v2(char *set, struct event *out, unsigned timeout_ms) {
    for (unsigned waited_ms = 0;; waited_ms += 2) {
        if (failing()) return failing();
        for (unsigned i = 0; i < state->n_gpus; i++) {
            struct gpu *g = &state->gpus[i];
            if (!set[i]) continue;
            unsigned long long xid = __atomic_exchange_n(&g->xid, 0, __ATOMIC_SEQ_CST);
            unsigned long long double_bit = __atomic_exchange_n(&g->double_bit, 0, __ATOMIC_SEQ_CST);
            if (xid || double_bit) {
                unsigned instance = g->xid_instance ? (unsigned)g->xid_instance : ~0u;
                *out = (struct event){&handles[i][0], xid ? 8 : 2, xid, instance, ~0u};
                return OK;
            }
            if (g->error) return (int)g->error;
        }
        if (waited_ms >= timeout_ms) return TIMEOUT;
        usleep(2000);
    }
}
#endif
#endif
