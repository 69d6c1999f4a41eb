/* matchcut simulation of a CUDA driver, for tests only: the types of cuda.h that it needs, under its own names. */
#ifndef MATCHCUT_SIMULATION_H
#define MATCHCUT_SIMULATION_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

enum {
  SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_DEVICE = 101, INVALID_IMAGE = 200,
  INVALID_CONTEXT = 201, NO_BINARY = 209, INVALID_HANDLE = 400, NOT_FOUND = 500, NOT_READY = 600, REFUSED = 701,
};

enum kind { UPLOAD, DOWNLOAD, COPY, FILL8, FILL32, LAUNCH, RECORD, WAIT };

/* A stretch of memory. Behind device memory lie GUARD bytes that nothing may change. */
struct block {
  uint8_t *data;
  size_t size;
  int pinned, freed;
  struct block *next;
};

struct function {
  char entry[256];
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
  struct operation *next;
};

struct stream {
  struct operation *first, *last;
  int busy;
  struct stream *next;
};

/* phase 0: may it be launched, 1: run it. Returns an error code. */
typedef int (*launched)(int phase, const char *entry, const unsigned *grid, const unsigned *block, unsigned shared,
                        int largest, const void *arguments, size_t size);

/* What a test sets; see simulation.py. Counts that inject a failure: the n-th call from now, 0 is never. */
struct settings {
  int capability, driver, devices, initial; /* initial: what cuInit returns */
  uint64_t memory;
  int fail_allocation, fail_pinned, fail_launch, launch_code, launch_deferred;
  int lost;      /* what nearly every call returns from now on, 0: nothing is wrong */
  int broken_pop; /* whether after a loss contexts can no longer be popped either */
  int immediate; /* whether work is done at once rather than when somebody waits for it */
};

struct counts {
  uint64_t used, blocks, pinned, streams, events, modules, loads, operations, overruns, misuses, contexts, leaked;
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
extern struct stream *streams;             /* all; a null stream stands for the first one, which always is there */

#endif
