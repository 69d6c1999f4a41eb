import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { test } from 'node:test';
import { pathToFileURL } from 'node:url';

import { batches, packEvent } from '#internal/packing';
import { CHUNK, collect, container, digest, Meter, until } from '#internal/sources';

const never = new AbortController().signal;
const bytes = Uint8Array.from({ length: 2 * CHUNK + 5 }, (_, at) => at * 7);

test('paths, URLs and bytes are read in chunks, can be read twice and are hashed', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'matchcut-'));
  t.after(() => rm(folder, { recursive: true }));
  const path = join(folder, 'clip');
  await writeFile(path, bytes);
  for (const given of [path, pathToFileURL(path), bytes]) {
    const source = await container(given);
    assert.equal(source.size, bytes.length);
    for (let turn = 0; turn < 2; turn++) {
      const pieces = await collect(source, never);
      assert.deepEqual(pieces.map(({ length }) => length), [CHUNK, CHUNK, 5]);
      assert(Buffer.concat(pieces).equals(bytes));
    }
    assert.deepEqual(await digest(source, never), createHash('sha256').update(bytes).digest());
  }
});

test('a stream is of unknown size, is not hashed, and large pieces of it are cut', async () => {
  const source = await container([bytes.subarray(0, 3), bytes.subarray(3)]);
  assert.deepEqual([source.size, source.replayable], [undefined, false]);
  assert.equal((await digest(source, never)).length, 0);
  const pieces = await collect(source, never);
  assert.deepEqual(pieces.map(({ length }) => length), [3, CHUNK, CHUNK, 2]);
});

test('what is no media is refused', async () => {
  await assert.rejects(container('/not/there.mp4'), { code: 'ENOENT' });
  await assert.rejects(container(5 as never), TypeError);
  await assert.rejects(collect(await container(['text' as never]), never), /Uint8Arrays, not string/);
});

test('the signal ends the reading of a file, and of a stream that nothing comes from', async () => {
  await assert.rejects(collect(await container(import.meta.filename ?? process.argv[1]!), AbortSignal.abort()), {
    name: 'AbortError',
  });
  const controller = new AbortController();
  const stream = new PassThrough();
  const step = until(controller.signal, stream).next();
  controller.abort();
  await assert.rejects(step);
  assert(stream.destroyed);
});

test('progress goes on where the try before ended', () => {
  const told: [number, number | undefined][] = [];
  const meter = new Meter((...sent) => told.push(sent), 9);
  meter.restart();
  meter.add(4);
  meter.restart();
  meter.add(4);
  meter.add(0);
  meter.add(5);
  assert.deepEqual(told, [[4, 9], [9, 9]]);
});

test('batches are full but for the last', async () => {
  const sizes = async (count: number): Promise<number[]> => {
    const all: number[] = [];
    for await (const batch of batches(Array(count).keys(), 3)) {
      all.push(batch.length);
    }
    return all;
  };
  assert.deepEqual(await sizes(0), []);
  assert.deepEqual(await sizes(6), [3, 3]);
  assert.deepEqual(await sizes(7), [3, 3, 1]);
});

test('an event gets an id where the server would make another one each time', () => {
  const event = { userId: 'ann', itemId: 'a', kind: 'EVENT_KIND_LIKE' } as const;
  const made = packEvent(event).eventId ?? '';
  assert.match(made, /^[0-9a-f]{32}$/);
  assert.notEqual(packEvent(event).eventId, made);
  assert.equal(packEvent({ ...event, eventId: 'mine' }).eventId, 'mine');
  assert.equal(packEvent({ ...event, timeUs: 5 }).eventId, undefined);
});
