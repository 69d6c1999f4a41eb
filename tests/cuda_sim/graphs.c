/* matchcut simulation of a CUDA driver, for tests only: graphs, which hold what was put on a stream while it recorded.

   While a thread records, it may neither ask for memory nor wait: that spoils the recording, as a driver's does. */
#include "driver.h"

#include <stdlib.h>
#include <string.h>

_Thread_local struct graph *recording;

int refused_while_recording(void) {
  if (!recording) return SUCCESS;
  recording->spoilt = 1;
  return CAPTURE_UNSUPPORTED;
}

int record(struct graph *graph, struct operation operation) {
  int known = operation.kind == LAUNCH || operation.kind == HOST || operation.kind == COPY ||
              operation.kind == FILL8 || operation.kind == FILL32;
  if (!known) {
    if (operation.kind == UPLOAD && operation.value) free((void *)operation.source);
    graph->spoilt = 1;
    return CAPTURE_UNSUPPORTED;
  }
  struct operation *made = malloc(sizeof *made);
  *made = operation;
  made->next = NULL;
  if (graph->last) graph->last->next = made;
  else graph->first = made;
  graph->last = made;
  return SUCCESS;
}

static void drop(struct graph *graph) {
  while (graph->first) {
    struct operation *next = graph->first->next;
    if (graph->first->kind == LAUNCH) free((void *)graph->first->source);
    free(graph->first);
    graph->first = next;
  }
  free(graph);
  counts.graphs--;
}

API cuStreamBeginCapture_v2(void *stream, int mode) {
  READY;
  if (mode != 1) return misuse("a recording that other threads can spoil");
  if (of(stream)->graph || recording) return misuse("a recording within another");
  counts.graphs++;
  recording = of(stream)->graph = calloc(1, sizeof(struct graph));
  return SUCCESS;
}
API cuStreamEndCapture(void *stream, void **made) {
  READY;
  struct graph *graph = of(stream)->graph;
  *made = NULL;
  if (!graph || graph != recording) return misuse("the end of a recording that did not begin");
  recording = of(stream)->graph = NULL;
  if (!graph->spoilt) return *made = graph, SUCCESS;
  drop(graph);
  return CAPTURE_INVALIDATED;
}
/* One object is both kinds of graph here: the first destroy makes it the executable one alone, the second frees it. */
API cuGraphInstantiateWithFlags(void **made, void *graph, unsigned long long flags) {
  READY;
  if (flags) return INVALID_VALUE;
  if (settings.fail_graph > 0 && --settings.fail_graph == 0) return OUT_OF_MEMORY;
  ((struct graph *)graph)->executable = 1;
  return *made = graph, SUCCESS;
}
API cuGraphDestroy(void *graph) {
  READY;
  struct graph *drawn = graph;
  if (!drawn->executable) drop(drawn);
  return SUCCESS;
}
API cuGraphExecDestroy(void *graph) {
  READY;
  drop(graph);
  return SUCCESS;
}
API cuGraphLaunch(void *graph, void *stream) {
  READY;
  for (struct operation *each = ((struct graph *)graph)->first; each; each = each->next) {
    struct operation operation = *each;
    if (operation.kind == LAUNCH) {
      /* What was there while it was recorded may be gone by now. */
      int code = callback(0, operation.function->program, NULL, operation.grid, operation.block, operation.shared,
                          operation.function->largest, operation.source, operation.size);
      if (code) return code;
      operation.source = memcpy(malloc(operation.size + 1), operation.source, operation.size);
    }
    int code = submit(of(stream), operation);
    if (code) return code;
  }
  counts.replays++;
  return SUCCESS;
}
/* A function of the host in its turn on a stream; stands for the kernels of libraries that the simulation has not. */
API cuLaunchHostFunc(void *stream, void (*function)(void *), void *value) {
  READY;
  return submit(of(stream), (struct operation){HOST, .source = value, .host = function});
}
