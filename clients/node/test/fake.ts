/** A server of a few handlers, and what errors look like on the wire. */

import * as grpc from '@grpc/grpc-js';
import { Client, type ConnectOptions } from 'matchcut';
import { details as rpc, services } from '#internal/contract';

/** A call as its handler sees it, loosely typed. */
export interface Call {
  request: any;
  metadata: grpc.Metadata;
  on(event: string, listener: (...args: any[]) => void): this;
  write(message: object): void;
  end(): void;
  emit(event: string, ...args: unknown[]): boolean;
}

export type Answer = (error: unknown, reply?: object) => void;
export type Handlers = Record<string, (call: Call, answer: Answer) => void>;

/** Serves `handlers`, by the names of the rpcs, and gives `use` a client; both are gone afterwards. */
export async function serve(
  handlers: Handlers,
  use: (client: Client, target: string) => Promise<void>,
  options: ConnectOptions = {},
): Promise<void> {
  const server = new grpc.Server();
  for (const service of Object.values(services)) {
    const names = Object.keys(service).filter((name) => name in handlers);
    server.addService(service, Object.fromEntries(names.map((name) => [name, handlers[name]])) as never);
  }
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', grpc.ServerCredentials.createInsecure(), (error, port) =>
      error ? reject(error) : resolve(port),
    );
  });
  const target = `127.0.0.1:${port}`;
  const client = new Client(target, { retry: { initialMs: 1 }, ...options });
  try {
    await use(client, target);
  } finally {
    client.close();
    server.forceShutdown();
  }
}

/** A failure with the standard details. */
export function failure(
  code: grpc.status,
  message: string,
  { reason, field, retrySeconds }: { reason?: string; field?: string; retrySeconds?: number } = {},
): grpc.StatusObject & Error {
  const packed: { type_url: string; value: Buffer }[] = [];
  const pack = (name: string, value: Buffer): void => {
    packed.push({ type_url: `type.googleapis.com/${name}`, value });
  };
  if (reason) {
    pack('google.rpc.ErrorInfo', rpc.ErrorInfo.serialize({ reason, domain: 'matchcut' }) as Buffer);
  }
  if (field) {
    pack('google.rpc.BadRequest', rpc.BadRequest.serialize({ fieldViolations: [{ field }] }) as Buffer);
  }
  if (retrySeconds !== undefined) {
    const retryDelay = { seconds: Math.floor(retrySeconds), nanos: Math.round((retrySeconds % 1) * 1e9) };
    pack('google.rpc.RetryInfo', rpc.RetryInfo.serialize({ retryDelay }) as Buffer);
  }
  const metadata = new grpc.Metadata();
  metadata.set('grpc-status-details-bin', rpc.Status.serialize({ code, message, details: packed }) as Buffer);
  return Object.assign(new Error(message), { code, details: message, metadata });
}

/** Resolves once something happened. */
export function event(): { happened: Promise<void>; happen: () => void } {
  let happen = (): void => undefined;
  const happened = new Promise<void>((resolve) => (happen = resolve));
  return { happened, happen };
}
