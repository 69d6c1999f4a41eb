import assert from 'node:assert/strict';
import { test } from 'node:test';

import { status } from '@grpc/grpc-js';
import { CancelledError, Client, DeadlineExceededError, OverloadedError, UnavailableError } from 'matchcut';

import { event, failure, serve } from './fake.js';

const silent = { GetItem: () => undefined };

test('the token goes along, and zero values come back', async () => {
  const seen: unknown[] = [];
  const handlers = {
    GetItem(call: any, answer: any) {
      seen.push(call.metadata.get('authorization')[0], call.request.tenant);
      answer(null, { item: { itemId: 'a' }, segments: [{}] });
    },
  };
  await serve(handlers, async (client) => {
    const { item, segments, fromVectors } = await client.get('a');
    assert.deepEqual([item.title, item.durationUs, item.attributes, fromVectors], ['', 0, {}, false]);
    assert.deepEqual(segments, [{ range: null, vector: [] }]);
  }, { token: 'secret', tenant: 'me' });
  assert.deepEqual(seen, ['Bearer secret', 'me']);
});

test('vectors may be typed arrays, and their ranges unknown', async () => {
  const seen: unknown[] = [];
  const handlers = {
    IngestVectors({ request }: any, answer: any) {
      seen.push(...request.segments);
      answer(null, { item: {} });
    },
  };
  await serve(handlers, async (client) => {
    const range = { startUs: 1, endUs: 2 ** 52 + 1 };
    await client.ingestVectors('a', [{ vector: Float32Array.of(0.5, -1) }, { range, vector: [2] }]);
    assert.deepEqual(seen, [{ range: null, vector: [0.5, -1] }, { range, vector: [2] }]);
  });
});

test('items come page by page', async () => {
  const asked: string[] = [];
  const handlers = {
    ListItems({ request }: any, answer: any) {
      asked.push(`${request.pageToken}:${request.pageSize}:${request.tags.allOf}`);
      const at = Number(request.pageToken || 0);
      answer(null, { items: [{ itemId: `${at}` }, { itemId: `${at}b` }], nextPageToken: at < 2 ? `${at + 1}` : '' });
    },
  };
  await serve(handlers, async (client) => {
    const ids: string[] = [];
    for await (const { itemId } of client.items({ pageSize: 2, tags: { allOf: ['x'] } })) {
      ids.push(itemId);
    }
    assert.deepEqual(ids, ['0', '0b', '1', '1b', '2', '2b']);
    assert.deepEqual(asked, [':2:x', '1:2:x', '2:2:x']);
  });
});

test('a read is tried again, a removal only where the server refused to begin', async () => {
  const failures: any[] = [];
  let calls = 0;
  const handler = (reply: object) => (_: any, answer: any) => {
    calls += 1;
    const failed = failures.shift();
    failed ? answer(failed) : answer(null, reply);
  };
  await serve({ GetItem: handler({ item: {} }), RemoveItem: handler({ removed: true }) }, async (client) => {
    failures.push(failure(status.UNAVAILABLE, 'away'));
    failures.push(failure(status.RESOURCE_EXHAUSTED, 'full', { retrySeconds: 0.001 }));
    await client.get('a');
    assert.equal(calls, 3);
    failures.push(failure(status.RESOURCE_EXHAUSTED, 'full', { retrySeconds: 0 }));
    assert.equal(await client.remove('a'), true);
    assert.equal(calls, 5);
    failures.push(failure(status.UNAVAILABLE, 'away'));
    await assert.rejects(client.remove('a'), UnavailableError);
    failures.push(failure(status.RESOURCE_EXHAUSTED, 'too large'));
    await assert.rejects(client.get('a'), OverloadedError);
    failures.push(...Array(4).fill(failure(status.UNAVAILABLE, 'away')));
    await assert.rejects(client.get('a'), UnavailableError);
    assert.equal(calls, 11);
  });
});

test('events go out in calls of 500, with ids', async () => {
  const sizes: number[] = [];
  const ids = new Set<string>();
  const handlers = {
    RecordEvents({ request }: any, answer: any) {
      sizes.push(request.events.length);
      request.events.forEach(({ eventId }: any) => ids.add(eventId));
      answer(null, { recorded: request.events.length - 1, duplicates: 1, unknownItems: 2 });
    },
  };
  await serve(handlers, async (client) => {
    const events = Array(1001).fill({ userId: 'ann', itemId: 'a', kind: 'EVENT_KIND_CLICK' });
    const told: number[] = [];
    const total = await client.record(events, { onProgress: ({ recorded }) => told.push(recorded) });
    assert.deepEqual(total, { recorded: 998, duplicates: 3, unknownItems: 6, expired: 0 });
    assert.deepEqual(told, [499, 998, 998]);
  });
  assert.deepEqual(sizes, [500, 500, 1]);
  assert.equal(ids.size, 1001);
});

test('the timeout ends a call', async () => {
  await serve(silent, async (client) => {
    await assert.rejects(client.get('a', { timeoutMs: 20 }), DeadlineExceededError);
  });
  await serve(silent, async (client) => {
    await assert.rejects(client.get('a'), DeadlineExceededError);
  }, { timeoutMs: 20 });
});

test('a signal ends a call with its reason, before it, during it and between tries', async () => {
  const arrived = event();
  const cancelled = event();
  const handlers = {
    GetItem(call: any) {
      call.on('cancelled', cancelled.happen);
      arrived.happen();
    },
    ListItems: (_: any, answer: any) => answer(failure(status.UNAVAILABLE, 'away', { retrySeconds: 5 })),
  };
  await serve(handlers, async (client) => {
    const why = new RangeError('no longer wanted');
    await assert.rejects(client.get('a', { signal: AbortSignal.abort(why) }), why);
    const controller = new AbortController();
    const call = client.get('a', { signal: controller.signal });
    await arrived.happened;
    controller.abort(why);
    await assert.rejects(call, why);
    await cancelled.happened;
    await assert.rejects(client.page({ signal: AbortSignal.timeout(50) }), { name: 'TimeoutError' });
  });
});

test('closing the client cancels what is under way, and then nothing more can be asked', async () => {
  const arrived = event();
  await serve({ GetItem: arrived.happen }, async (client) => {
    const call = client.get('a');
    await arrived.happened;
    client.close();
    await assert.rejects(call, CancelledError);
    await assert.rejects(client.get('a'), /closed/);
  });
});

test('without a server it is unavailable, and what cannot be is said at once', async () => {
  const client = new Client('127.0.0.1:1', { retry: { attempts: 2, initialMs: 1 } });
  await assert.rejects(client.health(), UnavailableError);
  await assert.rejects(client.recommend({}), TypeError);
  await assert.rejects(client.recommend({ items: ['a'], vector: [1] }), /items and vector/);
  client.close();
  assert.throws(() => new Client('127.0.0.1:1', { certificate: { chain: 'c', key: 'k' } }), TypeError);
});
