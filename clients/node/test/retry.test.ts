import assert from 'node:assert/strict';
import { test } from 'node:test';

import { NotFoundError, OverloadedError, UnavailableError } from 'matchcut';
import { Attempts, DEFAULT_RETRY, NEVER, pauseAfter, READ, REFUSED } from '#internal/retry';

const away = new UnavailableError('away', { code: 'UNAVAILABLE' });
const full = (retryAfterMs?: number) => new OverloadedError('full', { code: 'RESOURCE_EXHAUSTED', retryAfterMs });

test('pauses double up to the maximum and shrink by up to half', () => {
  const policy = { ...DEFAULT_RETRY, attempts: 99 };
  const pauses = [1, 2, 3, 7, 8, 50].map((attempt) => pauseAfter(attempt, away, policy, () => 0));
  assert.deepEqual(pauses, [100, 200, 400, 6400, 10_000, 10_000]);
  assert.equal(pauseAfter(1, away, policy, () => 0.5), 75);
});

test('the last try is the last', () => {
  assert.equal(pauseAfter(3, away, DEFAULT_RETRY, () => 0), 400);
  assert.equal(pauseAfter(4, away, DEFAULT_RETRY, () => 0), undefined);
});

test('what the server asks for is waited, and up to a quarter more, unless it is too long', () => {
  assert.equal(pauseAfter(1, full(2000), DEFAULT_RETRY, () => 0), 2000);
  assert.equal(pauseAfter(1, full(2000), DEFAULT_RETRY, () => 0.8), 2400);
  assert.equal(pauseAfter(1, full(10_001), DEFAULT_RETRY, () => 0), undefined);
});

test('a limit that waiting does not lift is not waited for', () => {
  assert.equal(pauseAfter(1, full(), DEFAULT_RETRY, () => 0), undefined);
});

test('only the errors that a call allows are followed by another try', () => {
  const made = (repeatable: typeof READ) => new Attempts(DEFAULT_RETRY, repeatable, Infinity);
  const missing = new NotFoundError('none', { code: 'NOT_FOUND' });
  assert.notEqual(made(READ).pause(away), undefined);
  assert.notEqual(made(READ).pause(full(1)), undefined);
  assert.equal(made(READ).pause(missing), undefined);
  assert.equal(made(REFUSED).pause(away), undefined);
  assert.notEqual(made(REFUSED).pause(full(1)), undefined);
  assert.equal(made(NEVER).pause(full(1)), undefined);
});

test('tries share the timeout, and none begins that could not end in time', () => {
  let now = 5000;
  const attempts = new Attempts(DEFAULT_RETRY, READ, 350, () => now);
  assert.equal(attempts.remainingMs, 350);
  now += 100;
  assert.equal(attempts.remainingMs, 250);
  assert.equal(attempts.pause(away, () => 0), 100);
  now += 100;
  assert.equal(attempts.pause(away, () => 0), undefined); // 200 ms of the 150 that are left
  now += 1000;
  assert.equal(attempts.remainingMs, 0);
});
