/** The services, read from the .proto files: where their methods are, and how messages become bytes. */

import { fileURLToPath } from 'node:url';

import { loadPackageDefinition } from '@grpc/grpc-js';
import { loadSync, type MessageTypeDefinition } from '@grpc/proto-loader';

import type { ProtoGrpcType as CatalogFile } from './generated/catalog.js';
import type { ProtoGrpcType as EventsFile } from './generated/events.js';
import type { ProtoGrpcType as HealthFile } from './generated/health.js';
import type { ProtoGrpcType as RecommenderFile } from './generated/recommender.js';
import type { BadRequest, BadRequestInput } from './generated/google/rpc/BadRequest.js';
import type { ErrorInfo, ErrorInfoInput } from './generated/google/rpc/ErrorInfo.js';
import type { RetryInfo, RetryInfoInput } from './generated/google/rpc/RetryInfo.js';
import type { Status, StatusInput } from './generated/google/rpc/Status.js';
import type { IngestRequestInput } from './generated/matchcut/v1/IngestRequest.js';
import type { Ingested, Page, Ranking, StoredItem, UserRanking } from './results.js';

/** A method whose requests are made from `Request` and whose replies are read as `Reply`. */
export interface Method<Request, Reply> {
  path: string;
  requestSerialize: (request: Request) => Buffer;
  responseDeserialize: (bytes: Buffer) => Reply;
}

/** The standard error details, as far as this client knows them. */
interface Details {
  Status: MessageTypeDefinition<StatusInput, Status>;
  ErrorInfo: MessageTypeDefinition<ErrorInfoInput, ErrorInfo>;
  BadRequest: MessageTypeDefinition<BadRequestInput, BadRequest>;
  RetryInfo: MessageTypeDefinition<RetryInfoInput, RetryInfo>;
}

const FILES = ['catalog', 'events', 'recommender'].map((name) => `matchcut/v1/${name}.proto`);

// The same choices are made where build.sh has the types generated.
const loaded = loadPackageDefinition(
  loadSync([...FILES, 'grpc/health/v1/health.proto', 'google/rpc/details.proto'], {
    includeDirs: [fileURLToPath(new URL('../proto', import.meta.url))],
    longs: Number,
    enums: String,
    defaults: true,
    oneofs: true,
  }),
) as unknown as CatalogFile & EventsFile & HealthFile & RecommenderFile & { google: { rpc: Details } };

/** How error details are read. */
export const details = loaded.google.rpc;

/** The services as grpc-js defines them, for a server of one's own, e.g. in tests. */
export const services = {
  catalog: loaded.matchcut.v1.Catalog.service,
  recommender: loaded.matchcut.v1.Recommender.service,
  events: loaded.matchcut.v1.Events.service,
  health: loaded.grpc.health.v1.Health.service,
};

const { catalog, recommender, events, health } = services;

type RequestOf<M> = M extends { requestSerialize: (request: infer Request) => Buffer } ? Request : never;

/** The methods that the client calls. The replies' types say what the server always sets. */
export const methods = {
  ingest: catalog.Ingest as Method<IngestRequestInput, Ingested>,
  ingestVectors: catalog.IngestVectors as Method<RequestOf<typeof catalog.IngestVectors>, Ingested>,
  getItem: catalog.GetItem as Method<RequestOf<typeof catalog.GetItem>, StoredItem>,
  listItems: catalog.ListItems as Method<RequestOf<typeof catalog.ListItems>, Page>,
  removeItem: catalog.RemoveItem,
  switchEncoder: catalog.SwitchEncoder,
  recommend: recommender.Recommend as Method<RequestOf<typeof recommender.Recommend>, Ranking>,
  recommendLive: recommender.RecommendLive as Method<RequestOf<typeof recommender.RecommendLive>, Ranking>,
  recommendForUser: recommender.RecommendForUser as Method<RequestOf<typeof recommender.RecommendForUser>, UserRanking>,
  recommendForUserLive: recommender.RecommendForUserLive as Method<
    RequestOf<typeof recommender.RecommendForUserLive>,
    UserRanking
  >,
  recordEvents: events.RecordEvents,
  forgetUser: events.ForgetUser,
  countEvents: events.CountEvents,
  check: health.Check,
};
