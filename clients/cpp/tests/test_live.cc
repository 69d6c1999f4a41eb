// Calls that go on, and events.

#include "check.h"
#include "server.h"

namespace {

using namespace check;

TEST(a_large_clip_goes_live_and_a_small_one_in_one_message) {
  Server server;
  server.recommend = [](ServerContext&, const v1::RecommendRequest& request, v1::RecommendResponse& reply) {
    reply.set_revision(request.query().clip().chunks_size());
    return Status::OK;
  };
  server.live = [](ServerContext&, Lives& stream) {
    v1::RecommendLiveRequest request;
    stream.Read(&request);
    CHECK(request.header().options().frames_per_update() == 2147483647);
    v1::RecommendResponse reply;
    for (int revision = 100; stream.Read(&request); ++revision) {
      reply.set_revision(revision);
      stream.Write(reply);
    }
    reply.set_final(true);
    stream.Write(reply);
    return Status::OK;
  };
  const auto client = server.client();
  CHECK(client.recommend(Query::clip(Media::bytes(std::string(1 << 20, 'x')))).revision() == 4);
  CHECK(client.recommend(Query::clip(Media::bytes(std::string((8 << 20) + 1, 'x')))).final());
  const auto pieces =
      Media::pieces([at = 0]() mutable { return at++ ? std::nullopt : std::optional<std::string>("x"); });
  CHECK(client.recommend(Query::clip(pieces)).final());
}

TEST(live_rankings_come_one_by_one_and_closing_cancels) {
  Server server;
  std::atomic<bool> cancelled = false;
  server.live = [&](ServerContext& context, Lives& stream) {
    v1::RecommendLiveRequest request;
    v1::RecommendResponse reply;
    while (stream.Read(&request)) {
      reply.set_revision(reply.revision() + 1);
      stream.Write(reply);
    }
    cancelled = context.IsCancelled();
    return Status::OK;
  };
  const auto client = server.client();
  std::vector<std::int64_t> revisions;
  for (const auto& ranking : client.live(Media::bytes("abc"))) revisions.push_back(ranking.revision());
  CHECK((revisions == std::vector<std::int64_t>{1, 2}) && !cancelled);
  std::atomic<int> made = 0;
  auto live = client.live(endless(made));
  CHECK(live.next()->revision() == 1);
  live.close();
  CHECK(!live.next());
  while (!cancelled) std::this_thread::yield();
}

TEST(what_live_media_throws_comes_out_of_next) {
  Server server;
  server.live = [&](ServerContext&, Lives& stream) {
    v1::RecommendLiveRequest request;
    while (stream.Read(&request)) {
    }
    return Status::OK;
  };
  auto live =
      server.client().live(Media::pieces([]() -> std::optional<std::string> { throw std::domain_error("no camera"); }));
  CHECK(check::thrown<std::domain_error>([&] { live.next(); }).what() == std::string("no camera"));
  server.live = [&](ServerContext&, Lives&) { return Status(StatusCode::INVALID_ARGUMENT, "no"); };
  std::atomic<int> made = 0;
  auto refused = server.client().live(endless(made));
  check::thrown<InvalidInput>([&] { refused.next(); });
}

TEST(events_go_out_in_batches_each_with_an_id) {
  Server server;
  std::vector<int> sizes;
  server.record = [&](ServerContext&, const v1::RecordEventsRequest& request, v1::RecordEventsResponse& reply) {
    sizes.push_back(request.events_size());
    CHECK(request.events(0).event_id().size() == 32);
    reply.set_recorded(request.events_size());
    return sizes.size() == 1 ? Status(StatusCode::UNAVAILABLE, "away") : Status::OK;
  };
  const std::vector events(1001, event("ann", "a", v1::EVENT_KIND_LIKE));
  std::vector<std::int64_t> told;
  const auto sum = server.client().record(events, {}, [&](const auto& so_far) { told.push_back(so_far.recorded()); });
  CHECK((sizes == std::vector{500, 500, 500, 1}) && sum.recorded() == 1001);
  CHECK((told == std::vector<std::int64_t>{500, 1000, 1001}));
}

TEST(a_live_list_tells_the_answer_to_an_event_from_others) {
  Server server;
  server.list = [](ServerContext&, Lists& stream) {
    v1::RecommendForUserLiveRequest request;
    v1::RecommendForUserResponse reply;
    const auto write = [&](const std::string& event_id) {
      reply.set_revision(reply.revision() + 1);
      reply.set_event_id(event_id);
      stream.Write(reply);
    };
    stream.Read(&request);
    CHECK(request.header().user_id() == "ann");
    write("");
    while (stream.Read(&request)) {
      write("");
      write(request.event().event_id());
    }
    write("");
    return Status::OK;
  };
  const auto client = server.client();
  auto live = client.recommend_live_for("ann");
  CHECK(live.ranking().revision() == 1);
  CHECK(live.event("a", v1::EVENT_KIND_LIKE).revision() == 3);
  CHECK(live.event("b", v1::EVENT_KIND_LIKE, {.id = "mine"}).event_id() == "mine");
  CHECK(live.next()->revision() == 2 && live.next()->revision() == 4);
  CHECK(live.end().revision() == 6 && !live.next());
  check::thrown<ServerError>([&] { live.event("c", v1::EVENT_KIND_LIKE); });
  server.list = [](ServerContext&, Lists&) { return Status(StatusCode::PERMISSION_DENIED, "no users"); };
  CHECK(check::thrown<NotAllowed>([&] { client.recommend_live_for("ann"); }).message() == "no users");
}

TEST(live_media_of_a_list_stops_at_its_end) {
  Server server;
  server.list = [](ServerContext&, Lists& stream) {
    v1::RecommendForUserLiveRequest request;
    v1::RecommendForUserResponse reply;
    while (stream.Read(&request)) {
      reply.set_revision(reply.revision() + 1);
      reply.set_event_id(request.event().event_id());
      if (!request.has_chunk() || reply.revision() % 8 == 0) stream.Write(reply);
    }
    reply.set_final(true);
    stream.Write(reply);
    return Status::OK;
  };
  std::atomic<int> made = 0;
  auto live = server.client().recommend_live_for("ann", {}, endless(made));
  CHECK(!live.event("a", v1::EVENT_KIND_LIKE).event_id().empty());
  CHECK(live.end().final());
}

TEST(an_event_gets_through_although_lists_were_not_read) {
  Server server;
  server.list = [](ServerContext&, Lists& stream) {
    v1::RecommendForUserLiveRequest request;
    v1::RecommendForUserResponse reply;
    reply.add_matches()->mutable_item()->set_title(std::string(1 << 20, 'x'));  // more than the connection holds
    while (stream.Read(&request)) {
      reply.set_event_id(request.event().event_id());
      if (!request.has_header()) stream.Write(reply);
    }
    return Status::OK;
  };
  std::atomic<int> made = 0;
  auto live = server.client().recommend_live_for("ann", {}, endless(made));
  while (made < 2) std::this_thread::yield();
  std::this_thread::sleep_for(50ms);  // most likely the server waits by now, and so does the media
  CHECK(live.event("a", v1::EVENT_KIND_LIKE, {.id = "mine"}).event_id() == "mine");
}

TEST(threads_share_a_client) {
  Server server;
  server.get = [](ServerContext&, const v1::GetItemRequest& request, v1::GetItemResponse& reply) {
    reply.mutable_item()->set_item_id(request.item_id());
    return Status::OK;
  };
  const auto client = server.client();
  std::atomic<int> right = 0;
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&, id = std::to_string(thread)] {
      for (int turn = 0; turn < 50; ++turn) right += client.get(id).item().item_id() == id;
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(right == 200);
}

}  // namespace

int main() { return check::run(); }
