import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { test } from 'node:test';

import { Metadata, status } from '@grpc/grpc-js';
import * as matchcut from 'matchcut';
import { errorFrom } from '#internal/errors';

import { type Answer, failure, serve } from './fake.js';

test('each status has its class', () => {
  const classes = {
    INVALID_ARGUMENT: matchcut.InvalidInputError,
    OUT_OF_RANGE: matchcut.InvalidInputError,
    NOT_FOUND: matchcut.NotFoundError,
    FAILED_PRECONDITION: matchcut.FailedPreconditionError,
    RESOURCE_EXHAUSTED: matchcut.OverloadedError,
    DEADLINE_EXCEEDED: matchcut.DeadlineExceededError,
    CANCELLED: matchcut.CancelledError,
    UNAVAILABLE: matchcut.UnavailableError,
    UNAUTHENTICATED: matchcut.UnauthenticatedError,
    PERMISSION_DENIED: matchcut.NotAllowedError,
    INTERNAL: matchcut.ServerError,
    UNIMPLEMENTED: matchcut.ServerError,
  };
  for (const [code, kind] of Object.entries(classes)) {
    const error = errorFrom(failure(status[code as keyof typeof status], 'words'));
    assert(error instanceof kind && error instanceof matchcut.MatchcutError, code);
    assert.equal(error.code, code);
    assert.equal(error.name, kind.name);
  }
});

test('the message and the details are kept', () => {
  const details = { reason: 'ITEM_NOT_FOUND', field: 'item_id', retrySeconds: 1.5 };
  const rpc = failure(status.NOT_FOUND, 'there is no item', details);
  const error = errorFrom(rpc) as matchcut.MatchcutError;
  const { message, reason, field, retryAfterMs, cause } = error;
  assert.deepEqual({ message, reason, field, retryAfterMs }, {
    message: 'there is no item',
    reason: 'ITEM_NOT_FOUND',
    field: 'item_id',
    retryAfterMs: 1500,
  });
  assert.equal(cause, rpc);
});

test('a status without details, and one with garbled ones, has the defaults', () => {
  const garbled = new Metadata();
  garbled.set('grpc-status-details-bin', Buffer.from([0xff, 0xff, 0xff]));
  for (const metadata of [new Metadata(), garbled]) {
    const error = errorFrom(Object.assign(failure(status.UNKNOWN, ''), { metadata })) as matchcut.MatchcutError;
    assert.deepEqual([error.reason, error.field, error.retryAfterMs], ['', '', undefined]);
    assert.equal(error.message, 'The call failed with status UNKNOWN and no message.');
  }
});

test("what is no failed call stays what it is", () => {
  const own = new RangeError('mine');
  assert.equal(errorFrom(own), own);
});

test('a token that no header may have is refused unsaid', () => {
  for (const token of ['two\nlines', 'trailing\n', 'caf\u00e9', 'nul\0']) {
    assert.throws(
      () => new matchcut.Client('localhost:1', { token }),
      (error) => error instanceof TypeError && !error.message.includes(token),
    );
  }
});

test('a timeout is above zero', async () => {
  for (const timeoutMs of [0, -1, NaN, '5' as unknown as number]) {
    assert.throws(() => new matchcut.Client('localhost:1', { timeoutMs }), TypeError);
    const client = new matchcut.Client('localhost:1');
    await assert.rejects(client.get('a', { timeoutMs }), TypeError);
    const { signal } = new AbortController();
    await assert.rejects(client.live(Buffer.from('x'), { timeoutMs, signal }).next(), TypeError);
    assert.equal(getEventListeners(signal, 'abort').length, 0);
    client.close();
  }
});

test('a timeout beyond measure is no bound', async () => {
  const handlers = { GetItem: (_: unknown, answer: Answer) => answer(null, { fromVectors: true }) };
  for (const timeoutMs of [2 ** 31, 1e12, 1e13, 1e300, Infinity]) {
    await serve(handlers, async (client) => {
      assert.equal((await client.get('a')).fromVectors, true);
      assert.equal((await client.get('a', { timeoutMs })).fromVectors, true);
    }, { timeoutMs });
  }
});
