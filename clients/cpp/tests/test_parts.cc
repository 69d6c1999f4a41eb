// The parts that need no server.

#include <fstream>
#include <limits>
#include <sstream>

#include "attempts.h"
#include "check.h"
#include "failure.h"
#include "matchcut/client.h"
#include "matchcut_wire.pb.h"
#include "packing.h"
#include "upload.h"

namespace {

using namespace matchcut;
using namespace std::chrono_literals;

Unavailable away() { return Unavailable({.message = "away", .code = "UNAVAILABLE"}); }

Overloaded full(std::optional<Seconds> after = {}) {
  return Overloaded({.message = "full", .code = "RESOURCE_EXHAUSTED", .retry_after = after});
}

bool near(std::optional<Seconds> value, double seconds) { return value && std::abs(value->count() - seconds) < 1e-9; }

std::vector<std::string> chunks(const Media& media) {
  std::vector<std::string> all;
  const auto next = media.open();
  for (v1::MediaChunk chunk; next(chunk);) all.push_back(chunk.data());
  return all;
}

/// A status with details, as servers put it into the trailer.
std::string trailer(const std::vector<std::pair<std::string, std::string>>& details) {
  wire::Status status;
  for (const auto& [name, value] : details) {
    auto& packed = *status.add_details();
    packed.set_type_url("type.googleapis.com/google.rpc." + name);
    packed.set_value(value);
  }
  return status.SerializeAsString();
}

std::chrono::steady_clock::time_point now_is;

TEST(a_backoff_grows_up_to_its_maximum_and_shrinks_by_the_jitter) {
  const Retry retry;
  CHECK(near(retry.pause(1, away(), 0), 0.1));
  CHECK(near(retry.pause(2, away(), 0), 0.2));
  CHECK(near(retry.pause(3, away(), 0.5), 0.3));
  CHECK(!retry.pause(4, away(), 0));
  CHECK(near(Retry{.attempts = 99}.pause(50, away(), 0), 10));
}

TEST(a_wish_of_the_server_is_obeyed_up_to_the_maximum) {
  const Retry retry;
  CHECK(near(retry.pause(1, full(2s), 0), 2));
  CHECK(near(retry.pause(1, full(2s), 1), 2.5));
  CHECK(!retry.pause(1, full(11s), 0));
  CHECK(!retry.pause(1, full(), 0));
}

TEST(what_may_be_sent_again_depends_on_the_call) {
  using detail::Attempts, detail::Repeatable;
  const NotFound missing({.message = "none", .code = "NOT_FOUND"});
  CHECK(Attempts({}, Repeatable::read, forever).pause(away()));
  CHECK(Attempts({}, Repeatable::read, forever).pause(full(0s)));
  CHECK(!Attempts({}, Repeatable::read, forever).pause(missing));
  CHECK(!Attempts({}, Repeatable::refused, forever).pause(away()));
  CHECK(Attempts({}, Repeatable::refused, forever).pause(full(0s)));
  CHECK(!Attempts({}, Repeatable::never, forever).pause(full(0s)));
}

TEST(tries_share_one_timeout) {
  const auto now = [] { return now_is; };
  const auto no_jitter = [] { return 0.0; };
  detail::Attempts attempts({.attempts = 9, .initial = 1s}, detail::Repeatable::read, 4s, now, no_jitter);
  CHECK(near(attempts.pause(away()), 1));
  now_is += 1s;
  CHECK(near(attempts.remaining(), 3));
  CHECK(near(attempts.pause(away()), 2));
  now_is += 2s;
  CHECK(!attempts.pause(away()));
  now_is += 9s;
  CHECK(near(attempts.remaining(), 0));
}

TEST(a_timeout_is_above_0) {
  for (const double none : {0.0, -1.0, -1e300, std::numeric_limits<double>::quiet_NaN()}) {
    const Seconds timeout(none);
    check::thrown<std::invalid_argument>([&] { detail::Attempts({}, detail::Repeatable::read, timeout); });
    check::thrown<std::invalid_argument>([&] { Client("localhost:1", {.timeout = timeout}); });
    const Client client("localhost:1", {.retry = {.attempts = 1}});
    check::thrown<std::invalid_argument>([&] { client.get("a", {}, {.timeout = timeout}); });
    check::thrown<std::invalid_argument>([&] { client.live(Media::bytes("m"), {}, {.timeout = timeout}); });
    check::thrown<std::invalid_argument>([&] { client.recommend_live_for("u", {}, {}, {.timeout = timeout}); });
  }
}

TEST(a_timeout_may_be_beyond_all_measure) {
  for (const double long_time : {1e11, 1e300, std::numeric_limits<double>::infinity()}) {
    CHECK(detail::Attempts({}, detail::Repeatable::read, Seconds(long_time)).pause(away()));
    CHECK(!detail::Bounds(Seconds(long_time), {}).deadline);
  }
}

TEST(a_stop_ends_a_pause) {
  std::stop_source source;
  source.request_stop();
  CHECK(check::thrown<Cancelled>([&] { detail::wait(1h, source.get_token()); }).code() == "CANCELLED");
}

TEST(details_of_an_error_are_read) {
  wire::ErrorInfo info;
  info.set_reason("BUSY");
  wire::BadRequest request;
  request.add_field_violations()->set_field("item.item_id");
  wire::RetryInfo retry;
  retry.mutable_retry_delay()->set_seconds(1);
  retry.mutable_retry_delay()->set_nanos(500'000'000);
  const auto details = trailer({{"ErrorInfo", info.SerializeAsString()},
                                {"BadRequest", request.SerializeAsString()},
                                {"RetryInfo", retry.SerializeAsString()},
                                {"Help", "of another kind"}});
  const auto error = check::thrown<Overloaded>([&] { detail::raise(8, "busy", details); });
  CHECK(error.code() == "RESOURCE_EXHAUSTED");
  CHECK(error.message() == "busy" && error.what() == std::string("busy"));
  CHECK(error.reason() == "BUSY");
  CHECK(error.field() == "item.item_id");
  CHECK(near(error.retry_after(), 1.5));
}

TEST(a_wish_beyond_all_measure_is_read_and_a_negative_one_is_0) {
  constexpr auto most = std::numeric_limits<std::int64_t>::max();
  const auto wish = [](std::int64_t seconds, std::int32_t nanos) {
    wire::RetryInfo retry;
    retry.mutable_retry_delay()->set_seconds(seconds);
    retry.mutable_retry_delay()->set_nanos(nanos);
    const auto details = trailer({{"RetryInfo", retry.SerializeAsString()}});
    return check::thrown<Overloaded>([&] { detail::raise(8, "busy", details); }).retry_after();
  };
  CHECK(wish(10'000'000'000, 0) == Seconds(1e10));  // 317 years: more than nanoseconds in 64 bits hold
  CHECK(wish(most, 999'999'999) > Seconds(9e18));
  CHECK(wish(-1, 0) == Seconds(0));
  CHECK(wish(0, -1) == Seconds(0));
  CHECK(wish(-most, -999'999'999) == Seconds(0));
}

TEST(garbled_details_and_strange_codes_do_no_harm) {
  const auto error = check::thrown<NotFound>([] { detail::raise(5, "", "\xff\xff no protobuf"); });
  CHECK(error.message() == "The call failed with status NOT_FOUND and no message.");
  CHECK(error.reason().empty() && error.field().empty() && !error.retry_after());
  CHECK(check::thrown<Error>([] { detail::raise(5, "none", trailer({{"ErrorInfo", "\xff"}})); }).reason().empty());
  CHECK(check::thrown<ServerError>([] { detail::raise(99, "strange", ""); }).code() == "UNKNOWN");
  CHECK(check::thrown<ServerError>([] { detail::raise(-1, "strange", ""); }).code() == "UNKNOWN");
}

TEST(each_code_has_its_class) {
  check::thrown<Cancelled>([] { detail::raise(1, "m", ""); });
  check::thrown<InvalidInput>([] { detail::raise(3, "m", ""); });
  check::thrown<DeadlineExceeded>([] { detail::raise(4, "m", ""); });
  check::thrown<NotAllowed>([] { detail::raise(7, "m", ""); });
  check::thrown<FailedPrecondition>([] { detail::raise(9, "m", ""); });
  check::thrown<InvalidInput>([] { detail::raise(11, "m", ""); });
  check::thrown<ServerError>([] { detail::raise(13, "m", ""); });
  check::thrown<Unavailable>([] { detail::raise(14, "m", ""); });
  check::thrown<Unauthenticated>([] { detail::raise(16, "m", ""); });
}

TEST(bytes_come_in_chunks_and_again) {
  std::string data(600'000, 'x');
  data.back() = 'y';
  const auto media = Media::bytes(data);
  for (int turn = 0; turn < 2; ++turn) {
    const auto all = chunks(media);
    CHECK(all.size() == 3 && all[0].size() == 262'144);
    CHECK(all[0] + all[1] + all[2] == data);
  }
  CHECK(media.replayable() && media.size() == 600'000);
  CHECK(chunks(Media::bytes("")).empty());
}

TEST(pieces_of_any_size_are_cut_and_not_joined) {
  const std::vector<std::string> given = {"a", "", std::string(262'145, 'b'), std::string(262'144, 'c')};
  const auto media = Media::pieces([&, at = 0u]() mutable -> std::optional<std::string> {
    return at < given.size() ? std::optional(given[at++]) : std::nullopt;
  });
  const auto all = chunks(media);
  CHECK(all.size() == 4);
  CHECK(all[0] == "a" && all[1].size() == 262'144 && all[2] == "b" && all[3] == given[3]);
  CHECK(!media.replayable() && media.sha256().empty());
}

TEST(streams_are_read_to_their_end) {
  std::istringstream input(std::string(300'000, 'z'));
  const auto all = chunks(Media::stream(input));
  CHECK(all.size() == 2 && all[1].size() == 300'000 - 262'144);
}

TEST(a_file_is_read_and_hashed_and_one_that_is_not_there_is_an_error) {
  const auto path = std::filesystem::temp_directory_path() / "matchcut-test-parts";
  std::ofstream(path) << "abc";
  const Media media(path);
  CHECK(chunks(media) == std::vector<std::string>{"abc"});
  const auto digest = media.sha256();  // the well-known one of "abc"
  CHECK(digest.size() == 32 && digest.substr(0, 4) == "\xba\x78\x16\xbf" && digest == Media::bytes("abc").sha256());
  std::filesystem::remove(path);
  check::thrown<std::filesystem::filesystem_error>([&] { Media{path}; });
  check::thrown<std::filesystem::filesystem_error>([&] { media.sha256(); });
}

TEST(progress_tells_only_what_goes_beyond_the_try_before) {
  std::vector<std::int64_t> told;
  detail::Meter meter(
      [&](std::int64_t sent, std::optional<std::int64_t> total) {
        told.push_back(sent);
        CHECK(total == 9);
      },
      9);
  meter.add(3);
  meter.add(3);
  meter.restart();
  meter.add(3);
  meter.add(4);
  CHECK((told == std::vector<std::int64_t>{3, 6, 7}));
}

TEST(pages_are_asked_for_as_they_are_needed) {
  std::vector<std::string> asked;
  Items items([&](const std::string& token) {
    asked.push_back(token);
    v1::ListItemsResponse page;
    if (token == "2") return page;  // a page may be empty
    page.add_items()->set_item_id("a" + token);
    page.add_items()->set_item_id("b" + token);
    page.set_next_page_token(token.empty() ? "2" : "");
    return page;
  });
  CHECK(items.next()->item_id() == "a" && asked.size() == 1);
  CHECK(items.next()->item_id() == "b" && asked.size() == 1);
  CHECK(!items.next() && !items.next());
  CHECK((asked == std::vector<std::string>{"", "2"}));
}

TEST(events_say_once_how_much_was_watched) {
  check::thrown<std::invalid_argument>(
      [] { event("ann", "a", v1::EVENT_KIND_WATCH, {.fraction = 0.5, .watched = 3s}); });
  const auto made =
      event("ann", "a", v1::EVENT_KIND_WATCH, {.time = std::chrono::system_clock::time_point(1500ms), .watched = 3s});
  CHECK(made.time_us() == 1'500'000 && made.watched_us() == 3'000'000 && made.event_id().empty());
}

TEST(an_event_without_a_name_gets_one) {
  v1::Event first, second;
  detail::name(first);
  detail::name(second);
  CHECK(first.event_id().size() == 32 && first.event_id() != second.event_id());
  first.set_event_id("mine");
  detail::name(first);
  CHECK(first.event_id() == "mine");
}

TEST(options_become_messages) {
  const auto rank = detail::rank({.limit = 3, .tags = {.any_of = {"x"}}, .minimum_score = 0.0});
  CHECK(rank.limit() == 3 && rank.tags().any_of(0) == "x" && rank.has_minimum_score());
  CHECK(!detail::rank({}).has_minimum_score());
  const auto user = detail::user({.include_seen = false, .freshness_half_life = 1min});
  CHECK(user.has_include_seen() && user.freshness_half_life_us() == 60'000'000 && !user.has_cap());
  const auto header = detail::media_header(Media::bytes(""), {.format = "mpegts", .segments = {range(1s, 2s)}});
  CHECK(header.container().format() == "mpegts" && header.segments(0).end_us() == 2'000'000);
  const std::vector<float> values = {1, 2};
  CHECK(detail::query(Query::vector(values), {}).vector().values_size() == 2);
  CHECK(detail::query(Query::clip(Media::bytes("abc")), {}).clip().chunks(0).data() == "abc");
}

}  // namespace

int main() { return check::run(); }
