/* matchcut simulation of a CUDA driver, for tests only: device memory is host memory, with a guard behind each block.
   Fresh memory is full of 0xA5, so that nothing relies on zeros. */
#include "driver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GUARD 256
#define FRESH 0xA5
#define FENCE 0xC5

static struct block *blocks;

int misuse(const char *what) {
  counts.misuses++;
  fprintf(stderr, "matchcut simulation: misuse of the driver: %s\n", what);
  return INVALID_VALUE;
}

static int injected(int *countdown) { return *countdown > 0 && --*countdown == 0; }

int allocate(int pinned, size_t size, struct block **made) {
  pthread_mutex_lock(&lock);
  sweep(0);
  int refused = injected(pinned ? &settings.fail_pinned : &settings.fail_allocation);
  if (!size || refused || (!pinned && counts.used + size > settings.memory)) {
    pthread_mutex_unlock(&lock);
    return size ? OUT_OF_MEMORY : misuse("allocation of no bytes");
  }
  struct block *block = calloc(1, sizeof *block);
  size_t whole = (size + GUARD - 1) / GUARD * GUARD + GUARD;
  block->data = aligned_alloc(GUARD, whole);
  block->size = size;
  block->pinned = pinned;
  memset(block->data, FRESH, size);
  memset(block->data + size, FENCE, whole - size);
  block->next = blocks;
  blocks = block;
  if (pinned) counts.pinned++;
  else counts.blocks++, counts.used += size;
  pthread_mutex_unlock(&lock);
  *made = block;
  return SUCCESS;
}

int release(int pinned, const void *data) {
  pthread_mutex_lock(&lock);
  struct block *block = blocks;
  while (block && (block->data != data || block->pinned != pinned || block->freed)) block = block->next;
  if (block) {
    block->freed = 1;
    if (pinned) counts.pinned--;
    else counts.blocks--, counts.used -= block->size;
    sweep(0);
  }
  pthread_mutex_unlock(&lock);
  return block ? SUCCESS : misuse("memory is freed that is not allocated");
}

void sweep(int all) {
  for (struct stream *stream = streams; stream && !all; stream = stream->next)
    if (stream->first || stream->busy) return;
  for (struct block **at = &blocks; *at;) {
    struct block *block = *at;
    if (!block->freed && !all) {
      at = &block->next;
      continue;
    }
    size_t padding = (block->size + GUARD - 1) / GUARD * GUARD + GUARD - block->size;
    for (size_t byte = 0; byte < padding; byte++)
      if (block->data[block->size + byte] != FENCE) {
        counts.overruns++;
        fprintf(stderr, "matchcut simulation: written behind a block of %zu bytes\n", block->size);
        break;
      }
    *at = block->next;
    free(block->data);
    free(block);
  }
}

struct block *around(const void *data, size_t size, int pinned) {
  const uint8_t *from = data;
  pthread_mutex_lock(&lock);
  struct block *block = blocks;
  while (block && (block->freed || block->pinned != pinned || from < block->data ||
                   from + size > block->data + block->size))
    block = block->next;
  pthread_mutex_unlock(&lock);
  return block;
}

/* For the callback: bytes from an address of device memory to the end of its block; 0: it is in none. */
__attribute__((visibility("default"))) uint64_t matchcut_simulation_extent(const void *data) {
  struct block *block = around(data, 1, 0);
  return block ? (uint64_t)(block->data + block->size - (const uint8_t *)data) : 0;
}
