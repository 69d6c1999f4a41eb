import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';

import { status } from '@grpc/grpc-js';
import { InvalidInputError, UnavailableError } from 'matchcut';
import { CHUNK } from '#internal/sources';

import { event, failure, type Handlers, serve } from './fake.js';

const bytes = Buffer.alloc(3 * CHUNK - 1, 'media');
const kept = { item: { itemId: 'a' }, outcome: 'INGEST_OUTCOME_CREATED', encoder: {}, times: {} };

/** Answers an ingest once all of it came; `messages` gets what came. */
function ingest(messages: any[]): Handlers {
  return {
    Ingest(call, answer) {
      call.on('error', () => undefined);
      call.on('data', (message) => messages.push(message));
      call.on('end', () => answer(null, kept));
    },
  };
}

test('the header with the digest goes first, then chunks, then the end; progress grows to the size', async () => {
  const messages: any[] = [];
  const told: number[][] = [];
  await serve(ingest(messages), async (client) => {
    const onProgress = (...sent: (number | undefined)[]): void => void told.push(sent as number[]);
    const { outcome, item } = await client.ingest('a', bytes, { tags: ['x'], format: 'mp4', onProgress });
    assert.deepEqual([outcome, item.itemId, item.tags], ['INGEST_OUTCOME_CREATED', 'a', []]);
  }, { tenant: 'me' });
  assert.deepEqual(messages.map(({ message }) => message), ['header', 'chunk', 'chunk', 'chunk', 'end']);
  const { header } = messages[0];
  assert.deepEqual([header.tenant, header.item.tags, header.media.container.format], ['me', ['x'], 'mp4']);
  assert(header.contentSha256.equals(createHash('sha256').update(bytes).digest()));
  assert.deepEqual(told, [CHUNK, 2 * CHUNK, 3 * CHUNK - 1].map((sent) => [sent, bytes.length]));
});

test('of a part of the media there is no digest, and none of frames', async () => {
  const messages: any[] = [];
  await serve(ingest(messages), async (client) => {
    await client.ingest('a', bytes, { limits: { bytes: 10 } });
    await client.ingestFrames('a', [{ pixels: new Uint8Array(12), timeUs: 7 }], { width: 2, height: 2 });
  });
  const headers = messages.flatMap(({ header }) => header ?? []);
  assert.deepEqual(headers.map(({ contentSha256 }) => contentSha256.length), [0, 0]);
  assert.deepEqual(headers.map(({ media }) => media.form), ['container', 'frames']);
  assert.equal(messages.at(-2).chunk.frame.timeUs, 7);
});

test('a source that fails cancels the call, which never sees the end', async () => {
  const messages: any[] = [];
  const arrived = event();
  const cancelled = event();
  const handlers: Handlers = {
    Ingest(call) {
      call.on('data', ({ message }) => messages.push(message) === 2 && arrived.happen());
      call.on('error', () => undefined);
      call.on('cancelled', cancelled.happen);
    },
  };
  async function* broken(): AsyncGenerator<Uint8Array> {
    yield bytes.subarray(0, 5);
    await arrived.happened;
    throw new RangeError('the camera is gone');
  }
  await serve(handlers, async (client) => {
    await assert.rejects(client.ingest('a', broken()), new RangeError('the camera is gone'));
    await cancelled.happened;
  });
  assert.deepEqual(messages, ['header', 'chunk']);
});

test('a callback that throws, and a piece that is none, cancel the call with that error', async () => {
  await serve(ingest([]), async (client) => {
    const onProgress = (): void => {
      throw new RangeError('enough');
    };
    await assert.rejects(client.ingest('a', bytes, { onProgress }), new RangeError('enough'));
    await assert.rejects(client.ingest('a', ['text' as never]), TypeError);
    await assert.rejects(client.ingest('a', bytes, { tags: 'word' as never }), TypeError);
  });
});

for (const early of ['an error', 'unchanged'] as const) {
  test(`an early answer, ${early}, ends an endless upload at once`, async () => {
    const handlers: Handlers = {
      Ingest(call, answer) {
        call.on('error', () => undefined);
        call.on('data', ({ message }) => {
          if (message === 'chunk') {
            early === 'unchanged' ? answer(null, kept) : answer(failure(status.INVALID_ARGUMENT, 'no video'));
          }
        });
      },
    };
    const closed = event();
    function* endless(): Generator<Uint8Array> {
      try {
        for (;;) {
          yield bytes.subarray(0, CHUNK);
        }
      } finally {
        closed.happen();
      }
    }
    await serve(handlers, async (client) => {
      const call = client.ingest('a', endless());
      if (early === 'unchanged') {
        assert.equal((await call).item.itemId, 'a');
      } else {
        await assert.rejects(call, (error) => error instanceof InvalidInputError && error.message === 'no video');
      }
      await closed.happened;
    });
  });
}

test('what can be read twice is sent again when the server was away, a stream is not', async () => {
  const sizes: number[] = [];
  const told: number[] = [];
  let away = 1;
  const handlers: Handlers = {
    Ingest(call, answer) {
      let size = 0;
      call.on('data', ({ chunk }) => (size += chunk?.data.length ?? 0));
      call.on('end', () => {
        sizes.push(size);
        away-- > 0 ? answer(failure(status.UNAVAILABLE, 'shutting down')) : answer(null, kept);
      });
    },
  };
  await serve(handlers, async (client) => {
    await client.ingest('a', bytes, { onProgress: (sent) => told.push(sent) });
    assert.deepEqual(sizes, [bytes.length, bytes.length]);
    assert.deepEqual(told, [CHUNK, 2 * CHUNK, bytes.length]);
    away = 1;
    await assert.rejects(client.ingest('a', [bytes]), UnavailableError);
  });
});
