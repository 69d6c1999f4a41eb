// A server in the same process, which answers as each test tells it to.
#pragma once

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <thread>

#include "matchcut/client.h"
#include "matchcut/v1/catalog.grpc.pb.h"
#include "matchcut/v1/events.grpc.pb.h"
#include "matchcut/v1/recommender.grpc.pb.h"
#include "matchcut_wire.pb.h"

namespace check {

using namespace matchcut;
using namespace std::chrono_literals;
using grpc::ServerContext, grpc::Status, grpc::StatusCode;

template <class Request, class Reply>
using Answer = std::function<Status(ServerContext&, const Request&, Reply&)>;
using Uploads = grpc::ServerReader<v1::IngestRequest>;
using Lives = grpc::ServerReaderWriter<v1::RecommendResponse, v1::RecommendLiveRequest>;
using Lists = grpc::ServerReaderWriter<v1::RecommendForUserResponse, v1::RecommendForUserLiveRequest>;

/// A server with what it is to answer.
struct Server final : v1::Catalog::Service, v1::Recommender::Service, v1::Events::Service {
  std::function<Status(ServerContext&, Uploads&, v1::IngestResponse&)> ingest;
  Answer<v1::GetItemRequest, v1::GetItemResponse> get;
  Answer<v1::RemoveItemRequest, v1::RemoveItemResponse> remove;
  Answer<v1::RecommendRequest, v1::RecommendResponse> recommend;
  Answer<v1::RecordEventsRequest, v1::RecordEventsResponse> record;
  std::function<Status(ServerContext&, Lives&)> live;
  std::function<Status(ServerContext&, Lists&)> list;

  Server() {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(static_cast<v1::Catalog::Service*>(this));
    builder.RegisterService(static_cast<v1::Recommender::Service*>(this));
    builder.RegisterService(static_cast<v1::Events::Service*>(this));
    builder.SetMaxReceiveMessageSize(64 << 20);
    server = builder.BuildAndStart();
  }
  ~Server() override { server->Shutdown(std::chrono::system_clock::now()); }

  Client client(ClientOptions options = {.retry = {.initial = 1ms}}) const {
    return Client("127.0.0.1:" + std::to_string(port), std::move(options));
  }

  Status Ingest(ServerContext* context, Uploads* reader, v1::IngestResponse* reply) override {
    return ingest(*context, *reader, *reply);
  }
  Status GetItem(ServerContext* context, const v1::GetItemRequest* request, v1::GetItemResponse* reply) override {
    return get(*context, *request, *reply);
  }
  Status RemoveItem(ServerContext* context, const v1::RemoveItemRequest* request,
                    v1::RemoveItemResponse* reply) override {
    return remove(*context, *request, *reply);
  }
  Status Recommend(ServerContext* context, const v1::RecommendRequest* request, v1::RecommendResponse* reply) override {
    return recommend(*context, *request, *reply);
  }
  Status RecordEvents(ServerContext* context, const v1::RecordEventsRequest* request,
                      v1::RecordEventsResponse* reply) override {
    return record(*context, *request, *reply);
  }
  Status RecommendLive(ServerContext* context, Lives* stream) override { return live(*context, *stream); }
  Status RecommendForUserLive(ServerContext* context, Lists* stream) override { return list(*context, *stream); }

  int port = 0;
  std::unique_ptr<grpc::Server> server;
};

/// A refusal that says when to come back.
inline Status busy(int nanos) {
  wire::RetryInfo retry;
  retry.mutable_retry_delay()->set_nanos(nanos);
  wire::Status status;
  auto& packed = *status.add_details();
  packed.set_type_url("type.googleapis.com/google.rpc.RetryInfo");
  packed.set_value(retry.SerializeAsString());
  return {StatusCode::RESOURCE_EXHAUSTED, "busy", status.SerializeAsString()};
}

/// Pieces without end, counted.
inline Media endless(std::atomic<int>& made) {
  return Media::pieces([&made]() -> std::optional<std::string> {
    ++made;
    return std::string(200'000, 'x');
  });
}

}  // namespace check
