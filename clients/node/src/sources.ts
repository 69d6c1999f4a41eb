/** Where a container's bytes come from: a path, bytes, or a stream of pieces that somebody makes. */

import { createHash } from 'node:crypto';
import { open, stat } from 'node:fs/promises';
import { Readable } from 'node:stream';

/** Bytes a message: few enough to start decoding early, enough that messages cost nothing. */
export const CHUNK = 256 * 1024;

/** Pieces from an ordinary or an asynchronous iterable, e.g. an array, a generator, a Node or a web stream. */
export type Pieces<T> = Iterable<T> | AsyncIterable<T>;

/** A media file: its path or file: URL, its bytes, or its bytes in pieces (which can be read only once). */
export type ContainerSource = string | URL | Uint8Array | Pieces<Uint8Array>;

/** Told as bytes leave; `total` is undefined where it is unknown, as with a stream. */
export type Progress = (sent: number, total: number | undefined) => void;

/** Bytes to be sent. */
export interface Source {
  /** Length in bytes; undefined where it is not known. */
  size: number | undefined;
  /** They can be read again, so a failed call may be repeated and the digest be known beforehand. */
  replayable: boolean;
  /** The pieces from the beginning, of at most CHUNK bytes; the signal ends the reading. */
  pieces(signal: AbortSignal): AsyncIterable<Uint8Array>;
}

/** Whatever a caller may give, as a Source. Rejects with the file system's error for a file that is not there. */
export async function container(source: ContainerSource): Promise<Source> {
  if (source instanceof Uint8Array) {
    return { size: source.byteLength, replayable: true, pieces: () => sliced([source]) };
  }
  if (typeof source === 'string' || source instanceof URL) {
    const { size } = await stat(source);
    return { size, replayable: true, pieces: (signal) => fileAt(source, signal) };
  }
  if (source === null || typeof source !== 'object' || !(Symbol.iterator in source || Symbol.asyncIterator in source)) {
    throw new TypeError('media is a path, a Uint8Array, or an iterable or stream of Uint8Arrays');
  }
  return { size: undefined, replayable: false, pieces: (signal) => sliced(until(signal, source)) };
}

/** SHA-256 of all bytes, 32 bytes; none where reading them would use them up. */
export async function digest(source: Source, signal: AbortSignal): Promise<Uint8Array> {
  if (!source.replayable) {
    return new Uint8Array();
  }
  const hash = createHash('sha256');
  for await (const piece of source.pieces(signal)) {
    hash.update(piece);
  }
  return hash.digest();
}

/** All bytes in pieces, for a message that takes them at once. */
export async function collect(source: Source, signal: AbortSignal): Promise<Uint8Array[]> {
  const pieces: Uint8Array[] = [];
  for await (const piece of source.pieces(signal)) {
    pieces.push(piece);
  }
  return pieces;
}

/** The same pieces. A Node stream that is waited for is destroyed by the signal; anything else is let go of. */
export async function* until<T>(signal: AbortSignal, pieces: Pieces<T>): AsyncGenerator<T> {
  const stop = (): void => void (pieces instanceof Readable && pieces.destroy());
  signal.addEventListener('abort', stop, { once: true });
  try {
    yield* pieces;
  } finally {
    signal.removeEventListener('abort', stop);
  }
}

async function* sliced(pieces: Pieces<Uint8Array>): AsyncGenerator<Uint8Array> {
  for await (const piece of pieces) {
    if (!(piece instanceof Uint8Array)) {
      throw new TypeError(`pieces of media are Uint8Arrays, not ${typeof piece}`);
    }
    for (let start = 0; start < piece.byteLength; start += CHUNK) {
      yield piece.subarray(start, start + CHUNK);
    }
  }
}

async function* fileAt(path: string | URL, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  const file = await open(path);
  try {
    for (;;) {
      signal.throwIfAborted();
      const { bytesRead, buffer } = await file.read(Buffer.allocUnsafeSlow(CHUNK), 0, CHUNK);
      if (bytesRead === 0) {
        return;
      }
      yield buffer.subarray(0, bytesRead);
    }
  } finally {
    await file.close();
  }
}

/** Tells how many bytes have been sent; where a call is sent again, only what goes beyond the try before. */
export class Meter {
  readonly #progress: Progress | undefined;
  readonly #total: number | undefined;
  #most = 0;
  #sent = 0;

  constructor(progress: Progress | undefined, total: number | undefined) {
    this.#progress = progress;
    this.#total = total;
  }

  /** A new try begins. */
  restart(): void {
    this.#sent = 0;
  }

  /** So many bytes more have left. */
  add(bytes: number): void {
    this.#sent += bytes;
    if (this.#sent > this.#most) {
      this.#most = this.#sent;
      this.#progress?.(this.#sent, this.#total);
    }
  }
}
