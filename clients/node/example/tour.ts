/**
 * A tour of matchcut in TypeScript. Every client has this program, and each prints the same lines; see
 * clients/README.md.
 *
 *     tour build/media             the tour
 *     tour build/media restart     waits for a line, then asks a server that may be away
 *
 * It finds the server as the command line does, but for the tenant, which is "tour" unless MATCHCUT_TENANT names
 * another: MATCHCUT_SERVER, MATCHCUT_TLS_CA, MATCHCUT_CLIENT_TOKEN_FILE.
 */

import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

import {
  Client,
  type EventInput,
  type FrameInput,
  type Ingested,
  type Item,
  MatchcutError,
  NotFoundError,
  type PictureInput,
  type Ranking,
  type UserRanking,
} from 'matchcut';

const CLIPS = { a: ['people'], bikes: ['traffic', 'outdoors'], carphone: ['people', 'traffic'] };
const SECOND = 1_000_000; // in microseconds, as all times are
const HOUR_AGO = (Date.now() - 3_600_000) * 1000; // when things happened, since the Unix epoch
const SIDE = 64; // of the frames that are made here
const FORM = { width: SIDE, height: SIDE };

/** Connects, and takes the tour that the command line names. */
async function main(): Promise<void> {
  const [media = '', what] = process.argv.slice(2);
  const client = connect();
  try {
    await (what === 'restart' ? restart(client, media) : tour(client, media));
  } finally {
    client.close();
  }
}

/** A client that tries again for a good while, so that a server may be restarted. */
function connect(): Client {
  const { MATCHCUT_SERVER, MATCHCUT_TENANT, MATCHCUT_TLS_CA, MATCHCUT_CLIENT_TOKEN_FILE } = process.env;
  return new Client(MATCHCUT_SERVER ?? '127.0.0.1:7411', {
    tenant: MATCHCUT_TENANT ?? 'tour',
    tls: MATCHCUT_TLS_CA,
    token: MATCHCUT_CLIENT_TOKEN_FILE && readFileSync(MATCHCUT_CLIENT_TOKEN_FILE, 'utf8').trim(),
    timeoutMs: 60_000,
    retry: { attempts: 30, initialMs: 200, maximumMs: 1000 },
  });
}

/** Takes out what a tour puts in. */
async function tidy(client: Client): Promise<void> {
  for (const name of [...Object.keys(CLIPS), 'twin']) {
    await client.remove(name, { allowMissing: true });
  }
}

/** Everything once. */
async function tour(client: Client, media: string): Promise<void> {
  console.log('health:', await client.health());
  await tidy(client);
  await fill(client, media);
  await look(client);
  await ask(client, media);
  await watch(client, media);
  await follow(client);
  await fail(client, media);
  await stop(client, media);
  await tidy(client);
  console.log(`left: ${(await all(client.items())).length} items`);
}

/** Items go in, with progress. */
async function fill(client: Client, media: string): Promise<void> {
  for (const [name, tags] of Object.entries(CLIPS)) {
    const sent: number[] = [];
    let size: number | undefined;
    const told = await client.ingest(name, join(media, `${name}.mp4`), {
      title: `The clip ${name}`,
      tags,
      attributes: { file: `${name}.mp4` },
      onProgress: (done, total) => {
        sent.push(done);
        size = total;
      },
    });
    const grew = sent.every((done, at) => at === 0 || sent[at - 1]! < done);
    console.log(`${name}: sent ${sent.at(-1)} of ${size} bytes, ${grew ? 'growing' : 'not growing'}`);
    console.log(`${name}: ${outcome(told)}`);
  }
  const again = await client.ingest('bikes', join(media, 'bikes.mp4'), { title: 'Bikes', tags: CLIPS.bikes });
  console.log(`bikes again: ${outcome(again)}, titled ${again.item.title}`);
}

/** What an ingest did, in words. */
function outcome({ outcome, segmentCount, item, report }: Ingested): string {
  const done = outcome.replace('INGEST_OUTCOME_', '');
  const words = `${done}, ${segmentCount} segments, ${(item.durationUs / SECOND).toFixed(2)} s`;
  return report ? `${words}, ${report.codec} ${report.width} x ${report.height}` : words;
}

/** What is in the catalogue, and an item from a vector of another's. */
async function look(client: Client): Promise<void> {
  const { item, segments } = await client.get('carphone', { vectors: true });
  console.log(`carphone: ${item.title}, tags ${item.tags.join(' ')}, file ${item.attributes.file}`);
  const { range, vector } = segments[0]!;
  const [start, end] = [range!.startUs, range!.endUs].map((time) => (time / SECOND).toFixed(2));
  console.log(`carphone: first segment ${start} to ${end} s, ${vector.length} numbers`);
  const segment = { range: { startUs: 0, endUs: SECOND }, vector };
  console.log('twin:', outcome(await client.ingestVectors('twin', [segment], { title: 'A vector' })));
  console.log('items:', ids(await all(client.items({ pageSize: 2 }))));
  const traffic = client.items({ tags: { allOf: ['traffic'], noneOf: ['people'] } });
  console.log('traffic, not people:', ids(await all(traffic)));
}

/** The catalogue is ranked against items, a vector and a clip. */
async function ask(client: Client, media: string): Promise<void> {
  const clip = join(media, 'carphone_distorted.mp4');
  show('like bikes', await client.recommend({ items: ['bikes'] }));
  const { vector } = (await client.get('carphone', { vectors: true })).segments[0]!;
  show('like a vector', await client.recommend({ vector }, { limit: 2 }));
  show('like a clip', await client.recommend({ clip }, { excludeItemIds: ['twin'] }));
  show('like a clip, people only', await client.recommend({ clip }, { tags: { anyOf: ['people'] } }));
}

/** Live media, and rankings that improve. */
async function watch(client: Client, media: string): Promise<void> {
  const options = { framesPerUpdate: 4, limit: 2 };
  const rankings = await all(client.live(join(media, 'bikes.mp4'), options));
  console.log('live container:', rankings.map(({ revision }) => revision).join(' '));
  for await (const ranking of client.liveFrames(frames(9), FORM, options)) {
    show(`live frames ${ranking.revision}${ranking.final ? ', the last' : ''}`, ranking);
  }
  show('live pictures', (await all(client.livePictures(pictures(media)))).at(-1)!);
}

/** Two photographs, a second apart. */
async function* pictures(media: string): AsyncGenerator<PictureInput> {
  for (const [second, name] of ['lion', 'tower'].entries()) {
    yield { data: await readFile(join(media, `${name}.jpg`)), timeUs: second * SECOND };
  }
}

/** Frames of 64 x 64 pixels, RGB: two colours that move, two frames a second. */
function* frames(count: number): Generator<FrameInput> {
  for (let at = 0; at < count; at++) {
    const pixels = new Uint8Array(SIDE * SIDE * 3);
    for (let y = 0, next = 0; y < SIDE; y++) {
      for (let x = 0; x < SIDE; x++) {
        pixels[next++] = x * 4 + at * 16; // modulo 256, as bytes are
        pixels[next++] = y * 4;
        pixels[next++] = x * y + at * 8;
      }
    }
    yield { pixels, timeUs: (at * SECOND) / 2 };
  }
}

/** What a user did, and what that user should see. */
async function follow(client: Client): Promise<void> {
  showUser('nobody knows ann', await client.recommendFor('ann'));
  const minutes = (count: number): number => HOUR_AGO + count * 60 * SECOND;
  const events: EventInput[] = [
    { userId: 'ann', itemId: 'bikes', kind: 'EVENT_KIND_LIKE', timeUs: minutes(0), eventId: '1' },
    { userId: 'ann', itemId: 'a', kind: 'EVENT_KIND_WATCH', timeUs: minutes(1), fraction: 0.25, eventId: '2' },
    { userId: 'ann', itemId: 'not-there-yet', kind: 'EVENT_KIND_CLICK', timeUs: minutes(2), eventId: '3' },
  ];
  for (const turn of ['first', 'second']) {
    const { recorded, duplicates, unknownItems } = await client.record(events);
    console.log(`${turn} time: ${recorded} new, ${duplicates} known, ${unknownItems} of unknown items`);
  }
  showUser('for ann', await client.recommendFor('ann', { includeSeen: true }));
  showUser('for ann, unseen', await client.recommendFor('ann'));
  const history: EventInput[] = [{ itemId: 'carphone', kind: 'EVENT_KIND_LIKE', timeUs: minutes(3) }];
  showUser('for a history', await client.recommendFor('', { history }));
  const live = await client.recommendLiveFor('ann', { includeSeen: true });
  showUser('live for ann', live.ranking!);
  const save: EventInput = { itemId: 'carphone', kind: 'EVENT_KIND_SAVE', timeUs: minutes(3), eventId: '4' };
  showUser('ann saves carphone', await live.event(save));
  showUser('the end', await live.end());
  const [receipt, again] = [await client.forget('ann'), await client.forget('ann')];
  console.log(`ann forgotten: ${receipt.events} events; again: ${again.events}`);
}

/** What goes wrong comes as the language's own errors, with the server's words. */
async function fail(client: Client, media: string): Promise<void> {
  await missed('an item that is not there', client.get('nobody'));
  await missed('a vector too short', client.ingestVectors('short', [{ vector: [1, 2] }]));
  await missed('no video', client.ingest('text', Buffer.from('This is no video at all. '.repeat(100))));
  await missed('too many', client.recommend({ items: ['bikes'] }, { limit: 1001 }));
  const late = client.recommend({ clip: join(media, 'bikes.mp4') }, { timeoutMs: 1 });
  await missed('no time', late, { words: false });
}

/** Prints the error of a call. */
async function missed(what: string, call: Promise<unknown>, { words = true } = {}): Promise<void> {
  try {
    await call;
    console.log(`${what}: no error`);
  } catch (error) {
    if (!(error instanceof MatchcutError)) {
      throw error;
    }
    const { code, reason, field, message } = error;
    console.log(`${what}: ${(words ? [code, reason, field || '-', message] : [code]).join(' ')}`);
  }
}

/** Calls that are given up leave nothing behind. */
async function stop(client: Client, media: string): Promise<void> {
  for await (const ranking of client.liveFrames(endless(), FORM, { framesPerUpdate: 1 })) {
    console.log(`stopped after ranking ${ranking.revision}`);
    break;
  }

  class Enough extends Error {}

  async function* half(): AsyncGenerator<Uint8Array> {
    yield (await readFile(join(media, 'bikes.mp4'))).subarray(0, 200_000);
    throw new Enough();
  }

  await client.ingest('half', half()).catch((error: unknown) => {
    if (error instanceof Enough) {
      console.log('an upload given up');
    }
  });
  await client.get('half').catch((error: unknown) => {
    if (error instanceof NotFoundError) {
      console.log('half: not there');
    }
  });
}

/** The made frames, again and again. */
function* endless(): Generator<FrameInput> {
  for (let at = 0; ; ) {
    for (const { pixels } of frames(4)) {
      yield { pixels, timeUs: at };
      at += SECOND / 2;
    }
  }
}

/** Puts an item in, waits for a line on standard input, and asks for it: of a server that is being restarted. */
async function restart(client: Client, media: string): Promise<void> {
  await client.ingest('bikes', join(media, 'bikes.mp4'));
  console.log('ready');
  await line();
  show('after a restart', await client.recommend({ items: ['bikes'], includeThemselves: true }));
  await client.remove('bikes');
}

/** Waits for a line on standard input, or its end. */
async function line(): Promise<void> {
  const lines = createInterface({ input: process.stdin });
  for await (const _ of lines) {
    break;
  }
  lines.close();
}

/** One line for a ranking. */
function show(what: string, { matches }: Ranking): void {
  console.log(`${what}: ${listed(matches.map(({ item, score }) => `${item.itemId} ${score.toFixed(3)}`))}`);
}

/** One line for a user's list. */
function showUser(what: string, { matches, cold, events }: UserRanking): void {
  const known = cold ? 'cold' : `${events} events`;
  const why = matches.map(({ item, reason: { nearestItemId: nearest } }) => item.itemId + (nearest && ` (${nearest})`));
  console.log(`${what}: ${known}; ${listed(why)}`);
}

function ids(items: Item[]): string {
  return items.map(({ itemId }) => itemId).join(' ');
}

/** Words with commas. */
function listed(words: string[]): string {
  return words.join(', ') || 'nothing';
}

/** What an asynchronous iterable gives, in an array. */
async function all<T>(iterable: AsyncIterable<T>): Promise<T[]> {
  const values: T[] = [];
  for await (const value of iterable) {
    values.push(value);
  }
  return values;
}

await main();
