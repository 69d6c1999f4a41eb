/* matchcut simulation of a CUDA driver, for tests only: modules, functions and launches. What a kernel does, and
   whether it was launched as it has to be, simulation.py says. */
#include "driver.h"

#include <stdlib.h>
#include <string.h>

static struct function *functions; /* all that there ever were, so that none is lost to a leak checker */

/* Whether the device runs code for `arch`; specific: sm_90a and the like. */
static int runs(int arch, int specific) {
  int embedded = settings.capability == 87 || arch == 87;
  if (arch == settings.capability) return 1;
  return !specific && !embedded && arch / 10 == settings.capability / 10 && arch < settings.capability;
}

/* How long an ELF file is: its header says where its tables are, and these where its sections are. */
static size_t length(const uint8_t *elf) {
  uint64_t segments, sections, at, size;
  uint16_t counts[4]; /* size of a segment's entry, how many; size of a section's entry, how many */
  memcpy(&segments, elf + 32, 8);
  memcpy(&sections, elf + 40, 8);
  memcpy(counts, elf + 54, 8);
  uint64_t end = segments + counts[0] * counts[1], other = sections + counts[2] * counts[3];
  if (other > end) end = other;
  for (unsigned section = 0; section < counts[3]; section++) {
    const uint8_t *entry = elf + sections + section * counts[2];
    uint32_t kind;
    memcpy(&kind, entry + 4, 4);
    memcpy(&at, entry + 24, 8);
    memcpy(&size, entry + 32, 8);
    if (kind != 8 && at + size > end) end = at + size; /* 8: memory that has no bytes in the file */
  }
  return end;
}

API cuModuleLoadDataEx(void **made, const void *image, unsigned options, void *names, void *values) {
  READY;
  (void)options, (void)names, (void)values;
  const uint8_t *bytes = image;
  size_t size;
  if (!memcmp(bytes, "\177ELF", 4)) {
    uint32_t flags;
    memcpy(&flags, bytes + 48, sizeof flags);
    int newer = bytes[7] == 0x41; /* the layout of the flags from sm_100 on */
    if (bytes[18] != 190) return INVALID_IMAGE;
    if (!runs((int)(newer ? flags >> 8 & 0xff : flags & 0xff), (int)(newer ? flags & 8 : flags & 0x800)))
      return NO_BINARY;
    size = length(bytes);
  } else {
    const char *target = strstr(image, ".target sm_");
    if (!strstr(image, ".version") || !target) return INVALID_IMAGE;
    if (atoi(target + strlen(".target sm_")) > settings.capability) return NO_BINARY;
    size = strlen(image);
  }
  struct module *module = malloc(sizeof *module);
  module->image = memcpy(malloc(size), image, size);
  module->size = size;
  counts.modules++, counts.loads++;
  return *made = module, SUCCESS;
}
API cuModuleUnload(void *module) {
  READY;
  free(((struct module *)module)->image);
  free(module);
  return counts.modules--, SUCCESS;
}
API cuModuleGetFunction(void **made, void *module, const char *name) {
  READY;
  struct module *of = module;
  int program = callback(2, 0, name, NULL, NULL, 0, 0, of->image, of->size);
  if (!program) return NOT_FOUND;
  struct function *function = calloc(1, sizeof *function);
  function->program = program;
  function->largest = 48 << 10;
  function->next = functions;
  functions = function;
  return *made = function, SUCCESS;
}
API cuFuncSetAttribute(void *function, int attribute, int value) {
  READY;
  if (attribute != 8 || value > LARGEST_SHARED) return INVALID_VALUE;
  return ((struct function *)function)->largest = value, SUCCESS;
}
API cuLaunchKernel(void *function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                   unsigned block_y, unsigned block_z, unsigned shared, void *stream, void **parameters, void **extra) {
  READY;
  if (settings.fail_launch > 0 && --settings.fail_launch == 0) {
    if (settings.launch_code == REFUSED) return REFUSED;
    settings.lost = settings.launch_code;
    return settings.launch_deferred ? SUCCESS : settings.lost;
  }
  if (parameters || !extra || extra[0] != (void *)1 || extra[2] != (void *)2) return misuse("parameters not in a buffer");
  struct function *launched = function;
  size_t size = *(size_t *)extra[3];
  struct operation operation = {LAUNCH, .size = size, .function = launched, .shared = shared,
                                .grid = {grid_x, grid_y, grid_z}, .block = {block_x, block_y, block_z}};
  int code = callback(0, launched->program, NULL, operation.grid, operation.block, shared, launched->largest, extra[1],
                      size);
  if (code) return code;
  operation.source = memcpy(malloc(size + 1), extra[1], size);
  return submit(of(stream), operation);
}
