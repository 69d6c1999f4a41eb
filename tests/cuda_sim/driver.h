/* matchcut simulation of a CUDA driver, for tests only: the types of cuda.h that it needs, under its own names. */
#ifndef MATCHCUT_SIMULATION_H
#define MATCHCUT_SIMULATION_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#define API __attribute__((visibility("default"))) int
#define READY                        \
  do {                               \
    int code = ready();              \
    if (code) return code;           \
  } while (0)
#define LARGEST_SHARED (227 << 10)

enum {
  SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_DEVICE = 101, INVALID_IMAGE = 200,
  INVALID_CONTEXT = 201, NO_BINARY = 209, INVALID_HANDLE = 400, NOT_FOUND = 500, NOT_READY = 600, REFUSED = 701,
  CAPTURE_UNSUPPORTED = 900, CAPTURE_INVALIDATED = 901,
};

enum kind { UPLOAD, DOWNLOAD, COPY, FILL8, FILL32, LAUNCH, HOST, RECORD, WAIT };

/* A stretch of memory. Behind device memory lie GUARD bytes that nothing may change. */
struct block {
  uint8_t *data;
  size_t size;
  int pinned, freed;
  struct block *next;
};

struct module {
  uint8_t *image;
  size_t size;
};

struct function {
  int program; /* as the callback numbered it */
  int largest; /* MAX_DYNAMIC_SHARED_SIZE_BYTES */
  struct function *next;
};

struct event {
  int recorded, pending; /* records that are done, that are not */
  long time;             /* how many operations of the device were done by then */
  struct stream *stream; /* of the last record */
};

struct operation {
  enum kind kind;
  uint8_t *target;
  const uint8_t *source;
  size_t size;
  unsigned value;
  struct function *function;
  unsigned grid[3], block[3], shared;
  struct event *event;
  void (*host)(void *); /* called with `source` */
  struct operation *next;
};

struct graph {
  struct operation *first, *last;
  int spoilt, executable;
};

struct stream {
  struct operation *first, *last;
  int busy;
  struct graph *graph; /* what it records at present; NULL: it does what it is told */
  struct stream *next;
};

/* phase 0: may it be launched, 1: run it; returns an error code. 2: which program is the function `entry` of the file
   in `data`; returns its number, 0 where there is none. */
typedef int (*launched)(int phase, int program, const char *entry, const unsigned *grid, const unsigned *block,
                        unsigned shared, int largest, const void *data, size_t size);

/* What a test sets; see simulation.py. Counts that inject a failure: the n-th call from now, 0 is never. */
struct settings {
  int capability, driver, devices, initial; /* initial: what cuInit returns */
  uint64_t memory;
  int fail_allocation, fail_pinned, fail_launch, launch_code, launch_deferred;
  int lost;      /* what nearly every call returns from now on, 0: nothing is wrong */
  int broken_pop; /* whether after a loss contexts can no longer be popped either */
  int immediate; /* whether work is done at once rather than when somebody waits for it */
  int fail_graph;
};

struct counts {
  uint64_t used, blocks, pinned, streams, events, modules, loads, operations, overruns, misuses, contexts, leaked;
  uint64_t graphs, replays; /* graphs: that are there now */
};

extern struct settings settings;
extern struct counts counts;
extern launched callback;
extern pthread_mutex_t lock;
extern pthread_cond_t changed;

int ready(void);                           /* SUCCESS, or why no call may go on */
int misuse(const char *what);              /* counts a mistake of the caller, returns INVALID_VALUE */
int allocate(int pinned, size_t size, struct block **made);
int release(int pinned, const void *data); /* device memory only once all streams are idle, as its work may use it */
void sweep(int all);                       /* frees what has been released; all: what has not been, too */
struct block *around(const void *data, size_t size, int pinned); /* the block that all of these bytes lie in */
int drain(struct stream *stream);          /* does its work, or waits for the thread that does */
int submit(struct stream *stream, struct operation operation);
int record(struct graph *graph, struct operation operation); /* instead of doing it */
int refused_while_recording(void);         /* SUCCESS where this thread does not record */
struct stream *of(void *stream);           /* a handle's stream; 0 is the default one */
extern struct stream *streams;             /* all; a null stream stands for the first one, which always is there */

#endif
