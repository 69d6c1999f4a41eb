// Calls that answer once.

#include "check.h"
#include "server.h"

namespace {

using namespace check;

TEST(an_upload_has_a_header_chunks_and_an_end) {
  Server server;
  server.ingest = [](ServerContext& context, Uploads& reader, v1::IngestResponse& reply) {
    const auto& metadata = context.client_metadata();
    const auto token = metadata.find("authorization");
    CHECK(token != metadata.end() && token->second == "Bearer secret");
    v1::IngestRequest request;
    CHECK(reader.Read(&request) && request.header().item().item_id() == "a" && request.header().tenant() == "t");
    CHECK(request.header().content_sha256().size() == 32 && request.header().item().attributes().at("k") == "v");
    std::size_t bytes = 0;
    bool end = false;
    while (reader.Read(&request)) {
      CHECK(!end);
      bytes += request.chunk().data().size();
      end = request.has_end();
    }
    CHECK(bytes == 1'000'000 && end);
    reply.set_segment_count(7);
    return Status::OK;
  };
  const auto client = server.client({.tenant = "t", .token = "secret"});
  std::vector<std::int64_t> told;
  const auto reply = client.ingest("a", Media::bytes(std::string(1'000'000, 'x')),
                                   {.attributes = {{"k", "v"}}, .progress = [&](std::int64_t sent, auto total) {
                                      CHECK(total == 1'000'000);
                                      told.push_back(sent);
                                    }});
  CHECK(reply.segment_count() == 7 && told.size() == 4 && told.back() == 1'000'000);
}

TEST(a_token_that_no_header_may_have_is_refused_unsaid) {
  for (const std::string token : {"two\nlines", "trailing\n", "caf\xc3\xa9"}) {
    std::string told;
    try {
      const Client client("localhost:1", {.token = token});
    } catch (const std::invalid_argument& error) {
      told = error.what();
    }
    CHECK(!told.empty() && told.find(token) == std::string::npos);
  }
}

TEST(an_early_answer_ends_the_upload) {
  Server server;
  server.ingest = [](ServerContext&, Uploads& reader, v1::IngestResponse& reply) {
    v1::IngestRequest request;
    for (int turn = 0; turn < 3; ++turn) reader.Read(&request);
    reply.set_outcome(v1::INGEST_OUTCOME_UNCHANGED);
    return Status::OK;
  };
  std::atomic<int> made = 0;
  const auto reply = server.client().ingest("a", endless(made));
  CHECK(reply.outcome() == v1::INGEST_OUTCOME_UNCHANGED && made > 0);
}

TEST(an_early_error_ends_the_upload_which_is_not_sent_again) {
  Server server;
  std::atomic<int> calls = 0, made = 0;
  server.ingest = [&](ServerContext&, Uploads& reader, v1::IngestResponse&) {
    ++calls;
    v1::IngestRequest request;
    reader.Read(&request);
    return Status(StatusCode::UNAVAILABLE, "going away");
  };
  const auto error = check::thrown<Unavailable>([&] { server.client().ingest("a", endless(made)); });
  CHECK(error.message() == "going away" && calls == 1);
}

TEST(what_the_media_throws_cancels_the_upload_and_passes_through) {
  Server server;
  std::atomic<bool> ended = false, cancelled = false, done = false;
  server.ingest = [&](ServerContext& context, Uploads& reader, v1::IngestResponse&) {
    v1::IngestRequest request;
    while (reader.Read(&request)) ended = ended || request.has_end();
    cancelled = context.IsCancelled();
    done = true;
    return Status::OK;
  };
  const auto half = Media::pieces([begun = false]() mutable -> std::optional<std::string> {
    if (begun) throw std::domain_error("enough");
    begun = true;
    return "first";
  });
  const auto client = server.client();
  const auto error = check::thrown<std::domain_error>([&] { client.ingest("a", half); });
  CHECK(error.what() == std::string("enough"));
  while (!done) std::this_thread::yield();
  CHECK(cancelled && !ended);
  const auto failing = [](std::int64_t, std::optional<std::int64_t>) { throw std::domain_error("of progress"); };
  check::thrown<std::domain_error>([&] { client.ingest("a", Media::bytes("abc"), {.progress = failing}); });
}

TEST(an_upload_that_can_be_read_again_is_sent_again) {
  Server server;
  std::atomic<int> calls = 0;
  server.ingest = [&](ServerContext&, Uploads& reader, v1::IngestResponse& reply) {
    v1::IngestRequest request;
    while (reader.Read(&request)) {
    }
    reply.set_segment_count(++calls);
    return calls < 3 ? Status(StatusCode::UNAVAILABLE, "away") : Status::OK;
  };
  std::vector<std::int64_t> told;
  const auto progress = [&](std::int64_t sent, std::optional<std::int64_t>) { told.push_back(sent); };
  CHECK(server.client().ingest("a", Media::bytes("abc"), {.progress = progress}).segment_count() == 3);
  CHECK(told == std::vector<std::int64_t>{3});
}

TEST(reads_are_tried_again_and_removals_only_when_refused) {
  Server server;
  std::atomic<int> gets = 0, removals = 0;
  server.get = [&](ServerContext&, const v1::GetItemRequest&, v1::GetItemResponse&) {
    return ++gets < 3 ? (gets == 1 ? busy(1'000'000) : Status(StatusCode::UNAVAILABLE, "away")) : Status::OK;
  };
  server.remove = [&](ServerContext&, const v1::RemoveItemRequest&, v1::RemoveItemResponse& reply) {
    reply.set_removed(true);
    return ++removals == 1 ? busy(1'000'000) : removals == 2 ? Status::OK : Status(StatusCode::UNAVAILABLE, "away");
  };
  const auto client = server.client();
  client.get("a");
  CHECK(gets == 3);
  CHECK(client.remove("a") && removals == 2);
  check::thrown<Unavailable>([&] { client.remove("a"); });
  CHECK(removals == 3);
}

TEST(nobody_there_is_unavailable_after_the_tries) {
  const Client client("127.0.0.1:1", {.retry = {.attempts = 2, .initial = 1ms}});
  CHECK(check::thrown<Unavailable>([&] { client.get("a"); }).code() == "UNAVAILABLE");
}

TEST(a_call_ends_with_its_timeout_or_its_stop) {
  Server server;
  std::stop_source source;
  std::atomic<bool> stop = false;
  server.get = [&](ServerContext& context, const v1::GetItemRequest&, v1::GetItemResponse&) {
    if (stop) source.request_stop();
    while (!context.IsCancelled()) std::this_thread::sleep_for(1ms);
    return Status::OK;
  };
  const auto client = server.client();
  check::thrown<DeadlineExceeded>([&] { client.get("a", {}, {.timeout = 20ms}); });
  check::thrown<DeadlineExceeded>([&] { server.client({.timeout = 20ms}).get("a"); });
  stop = true;
  check::thrown<Cancelled>([&] { client.get("a", {}, {.stop = source.get_token()}); });
  check::thrown<Cancelled>([&] { client.get("a", {}, {.stop = source.get_token()}); });
}

TEST(a_stop_ends_an_upload) {
  Server server;
  std::stop_source source;
  server.ingest = [&](ServerContext&, Uploads& reader, v1::IngestResponse&) {
    v1::IngestRequest request;
    reader.Read(&request);
    source.request_stop();
    while (reader.Read(&request)) {
    }
    return Status::OK;
  };
  std::atomic<int> made = 0;
  check::thrown<Cancelled>([&] { server.client().ingest("a", endless(made), {}, {.stop = source.get_token()}); });
}

}  // namespace

int main() { return check::run(); }
