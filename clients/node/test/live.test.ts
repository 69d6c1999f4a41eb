import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';

import { status } from '@grpc/grpc-js';
import { NotAllowedError, ServerError, type UserRanking } from 'matchcut';

import { event, failure, type Handlers, serve } from './fake.js';

/** Answers each chunk with a ranking, and the end with the last one. */
const echo: Handlers = {
  RecommendLive(call) {
    let revision = 0;
    call.on('data', ({ chunk }) => chunk && call.write({ revision: ++revision }));
    call.on('end', () => {
      call.write({ revision: ++revision, final: true });
      call.end();
    });
  },
};

test('each chunk is answered, and the end', async () => {
  await serve(echo, async (client) => {
    const seen: [number, boolean][] = [];
    for await (const { revision, final } of client.livePictures([{ data: Buffer.of(1) }, { data: Buffer.of(2) }])) {
      seen.push([revision, final]);
    }
    assert.deepEqual(seen, [[1, false], [2, false], [3, true]]);
  });
});

test('a clip too large for one message is streamed, and the last ranking returned', async () => {
  await serve(echo, async (client) => {
    const { revision, final } = await client.recommend({ clip: new Uint8Array(8 * 1024 * 1024 + 1) });
    assert.deepEqual([revision, final], [34, true]);
    assert.equal((await client.recommend({ clip: [Buffer.of(1)] })).revision, 2);
  });
  await serve({ RecommendLive: (call) => call.end() }, async (client) => {
    await assert.rejects(client.recommend({ clip: [Buffer.of(1)] }), ServerError);
  });
});

test('leaving the loop cancels the call and lets go of the source', async () => {
  const cancelled = event();
  const closed = event();
  const handlers: Handlers = {
    RecommendLive(call) {
      call.on('error', () => undefined);
      call.on('cancelled', cancelled.happen);
      call.on('data', () => call.write({ revision: 1 }));
    },
  };
  function* endless() {
    try {
      for (;;) {
        yield { pixels: new Uint8Array(12) };
      }
    } finally {
      closed.happen();
    }
  }
  await serve(handlers, async (client) => {
    for await (const { revision } of client.liveFrames(endless(), { width: 2, height: 2 })) {
      assert.equal(revision, 1);
      break;
    }
    await Promise.all([cancelled.happened, closed.happened]);
  });
});

test('a signal ends the wait for a ranking, and a stream that is waited for is destroyed', async () => {
  await serve({ RecommendLive: (call) => void call.on('error', () => undefined) }, async (client) => {
    const stream = new PassThrough();
    const signal = AbortSignal.timeout(30);
    await assert.rejects(client.live(stream, { signal }).next(), { name: 'TimeoutError' });
    assert(stream.destroyed);
  });
});

test('an error of the source is thrown where rankings are awaited', async () => {
  async function* broken(): AsyncGenerator<Uint8Array> {
    yield Buffer.of(1);
    throw new RangeError('gone');
  }
  await serve(echo, async (client) => {
    await assert.rejects(async () => {
      for await (const _ of client.live(broken()));
    }, new RangeError('gone'));
  });
});

/** Answers the header, events (two at a time, the later one first) and chunks. */
const dialogue: Handlers = {
  RecommendForUserLive(call) {
    const lists: string[] = [];
    let revision = 0;
    const list = (eventId = '', final = false): void => call.write({ revision: ++revision, eventId, final });
    call.on('error', () => undefined);
    call.on('data', ({ message, event }) => {
      if (message !== 'event') {
        list();
      } else if (lists.push(event.eventId) === 2) {
        lists.splice(0).reverse().forEach((eventId) => list(eventId));
      }
    });
    call.on('end', () => {
      list('', true);
      call.end();
    });
  },
};

test('an event is answered by its own list, other lists are iterated over', async () => {
  await serve(dialogue, async (client) => {
    const live = await client.recommendLiveFor('ann');
    assert.equal(live.ranking?.revision, 1);
    const [first, second] = await Promise.all([
      live.event({ itemId: 'a', kind: 'EVENT_KIND_LIKE', eventId: 'one' }),
      live.event({ itemId: 'b', kind: 'EVENT_KIND_LIKE' }),
    ]);
    assert.deepEqual([first.eventId, first.revision, second.revision], ['one', 3, 2]);
    const last = await live.end();
    assert.deepEqual([last.revision, last.final], [4, true]);
    const others: UserRanking[] = [];
    for await (const list of live) {
      others.push(list);
    }
    assert.deepEqual(others.map(({ revision }) => revision), [4]);
    await assert.rejects(live.event({ itemId: 'c', kind: 'EVENT_KIND_LIKE' }), ServerError);
  });
});

test('many calls may share a signal, and many events be under way, without a warning', async (t) => {
  const warnings: Error[] = [];
  const note = (warning: Error): void => void warnings.push(warning);
  process.on('warning', note);
  t.after(() => process.off('warning', note));
  const { signal } = new AbortController();
  await serve(dialogue, async (client) => {
    const lives = await Promise.all(Array.from({ length: 12 }, () => client.recommendLiveFor('ann', { signal })));
    const events = Array.from({ length: 24 }, () => lives[0]!.event({ itemId: 'a', kind: 'EVENT_KIND_LIKE' }));
    assert.equal(new Set((await Promise.all(events)).map(({ revision }) => revision)).size, 24);
    await Promise.all(lives.map((live) => live.end()));
    await setImmediate();
  });
  assert.deepEqual(warnings, []);
});

test('the end of live media is the end of the list', async () => {
  await serve(dialogue, async (client) => {
    const pictures = [{ data: Buffer.of(1) }, { data: Buffer.of(2) }];
    const live = await client.recommendLiveFor('ann', { media: { pictures } });
    const revisions: number[] = [];
    for await (const { revision } of live) {
      revisions.push(revision);
    }
    assert.deepEqual(revisions, [1, 2, 3, 4]);
  });
});

test('a list that is refused rejects, and one that is closed rejects whoever waits', async () => {
  const off = failure(status.PERMISSION_DENIED, 'off', { reason: 'USERS_OFF' });
  const refusing: Handlers = { RecommendForUserLive: (call) => void call.emit('error', off) };
  await serve(refusing, async (client) => {
    await assert.rejects(client.recommendLiveFor('ann'), (error) => error instanceof NotAllowedError);
  });
  await serve(dialogue, async (client) => {
    const live = await client.recommendLiveFor('ann');
    const waiting = live.event({ itemId: 'a', kind: 'EVENT_KIND_LIKE' });
    live.close();
    await assert.rejects(waiting, { code: 'CANCELLED' });
    await assert.rejects(live.end(), { code: 'CANCELLED' });
  });
});
