/* matchcut simulation of a CUDA driver, for tests only: streams.

   Work is put off until somebody waits for it, so that what reads too early reads what was there before. Nothing here
   holds the lock while it runs a kernel: that needs Python's GIL, and threads that hold the GIL come here for the lock.
   For the same reason only calls during which PyCUDA lets go of the GIL wait for another thread's work. */
#include "driver.h"

#include <stdlib.h>
#include <string.h>

struct stream *streams;

static int execute(struct operation *operation) {
  switch (operation->kind) {
    case UPLOAD:
    case DOWNLOAD:
    case COPY: memmove(operation->target, operation->source, operation->size); break;
    case FILL8: memset(operation->target, (int)operation->value, operation->size); break;
    case FILL32:
      for (size_t at = 0; at < operation->size / 4; at++) ((uint32_t *)operation->target)[at] = operation->value;
      break;
    case LAUNCH:
      return callback(1, operation->function->program, NULL, operation->grid, operation->block, operation->shared,
                      operation->function->largest, operation->source, operation->size);
    case HOST: operation->host((void *)operation->source); break;
    case RECORD:
    case WAIT: break;
  }
  return SUCCESS;
}

int drain(struct stream *stream) {
  pthread_mutex_lock(&lock);
  for (;;) {
    while (stream->busy) pthread_cond_wait(&changed, &lock);
    struct operation *operation = stream->first;
    if (!operation || settings.lost) break;
    stream->busy = 1;
    pthread_mutex_unlock(&lock);
    if (operation->kind == WAIT && operation->event->pending) drain(operation->event->stream);
    int code = execute(operation);
    pthread_mutex_lock(&lock);
    stream->first = operation->next;
    if (!stream->first) stream->last = NULL;
    counts.operations += operation->kind != RECORD && operation->kind != WAIT;
    if (operation->kind == RECORD) {
      operation->event->pending--;
      operation->event->recorded++;
      operation->event->time = (long)counts.operations;
    }
    if (operation->kind == LAUNCH || (operation->kind == UPLOAD && operation->value)) free((void *)operation->source);
    free(operation);
    if (code && !settings.lost) settings.lost = code;
    stream->busy = 0;
    pthread_cond_broadcast(&changed);
  }
  pthread_mutex_unlock(&lock);
  return settings.lost;
}

int submit(struct stream *stream, struct operation operation) {
  if (stream->graph) return record(stream->graph, operation);
  struct operation *made = malloc(sizeof *made);
  *made = operation;
  made->next = NULL;
  pthread_mutex_lock(&lock);
  if (stream->last) stream->last->next = made;
  else stream->first = made;
  stream->last = made;
  if (made->kind == RECORD) {
    made->event->pending++;
    made->event->stream = stream;
  }
  pthread_mutex_unlock(&lock);
  return settings.immediate ? drain(stream) : SUCCESS;
}
