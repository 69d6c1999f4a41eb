// A tour of matchcut in C++. Every client has this program, and each prints the same lines; see
// clients/README.md.
//
//     build/clients/cpp/tour build/media             the tour
//     build/clients/cpp/tour build/media restart     waits for a line, then asks a server that may be away
//
// It finds the server as the command line does, but for the tenant, which is "tour" unless MATCHCUT_TENANT names another:
// MATCHCUT_SERVER, MATCHCUT_TLS_CA, MATCHCUT_CLIENT_TOKEN_FILE.

#include <matchcut/client.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <sstream>
#include <string>
#include <vector>

namespace {

using namespace std::chrono_literals;
using matchcut::Client;
using matchcut::Media;
using matchcut::Query;
using Path = std::filesystem::path;
namespace v1 = matchcut::v1;

const auto kHourAgo = std::chrono::system_clock::now() - 1h;
constexpr int kSide = 64;  // of the frames that are made here

std::string content(const Path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// A number with so many decimals.
std::string fixed(double value, int decimals) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", decimals, value);
  return text;
}

std::string joined(const auto& words, const std::string& between = " ") {
  std::string line;
  for (const std::string& word : words) line += (line.empty() ? "" : between) + word;
  return line;
}

/// Words with commas.
std::string listed(const std::vector<std::string>& words) { return words.empty() ? "nothing" : joined(words, ", "); }

/// One line for a ranking.
void show(const std::string& what, const v1::RecommendResponse& ranking) {
  std::vector<std::string> words;
  for (const auto& match : ranking.matches()) {
    words.push_back(match.item().item_id() + " " + fixed(match.score(), 3));
  }
  std::cout << what << ": " << listed(words) << '\n';
}

/// One line for a user's list.
void show(const std::string& what, const v1::RecommendForUserResponse& ranking) {
  std::vector<std::string> words;
  for (const auto& match : ranking.matches()) {
    const auto& nearest = match.reason().nearest_item_id();
    words.push_back(match.item().item_id() + (nearest.empty() ? "" : " (" + nearest + ")"));
  }
  const auto known = ranking.cold() ? "cold" : std::to_string(ranking.events()) + " events";
  std::cout << what << ": " << known << "; " << listed(words) << '\n';
}

/// What an ingest did, in words.
std::string outcome(const v1::IngestResponse& told) {
  const auto name = v1::IngestOutcome_Name(told.outcome()).substr(std::string("INGEST_OUTCOME_").size());
  std::ostringstream words;
  words << name << ", " << told.segment_count() << " segments, " << fixed(told.item().duration_us() / 1e6, 2) << " s";
  if (const auto& report = told.report(); told.has_report()) {
    words << ", " << report.codec() << ' ' << report.width() << " x " << report.height();
  }
  return words.str();
}

/// Frames of 64 x 64 pixels, RGB: two colours that move, two frames a second; the first four again and again
/// if so wanted.
matchcut::Pull<v1::Frame> frames(int count, bool endless = false) {
  return [=, at = 0]() mutable -> std::optional<v1::Frame> {
    if (at == count && !endless) return {};
    const int look = at % count;
    std::string pixels;
    for (int y = 0; y < kSide; ++y) {
      for (int x = 0; x < kSide; ++x) {
        for (const int value : {x * 4 + look * 16, y * 4, x * y + look * 8}) pixels += static_cast<char>(value % 256);
      }
    }
    v1::Frame frame;
    frame.set_pixels(std::move(pixels));
    frame.set_time_us(at++ * 500'000);
    return frame;
  };
}

/// Items go in, with progress.
void fill(const Client& client, const Path& media) {
  const std::vector<std::pair<std::string, std::vector<std::string>>> clips = {
      {"a", {"people"}}, {"bikes", {"traffic", "outdoors"}}, {"carphone", {"people", "traffic"}}};
  for (const auto& [name, tags] : clips) {
    std::int64_t done = 0, of = 0;
    bool grew = true;
    const auto told = client.ingest(name, media / (name + ".mp4"),
                                    {.title = "The clip " + name,
                                     .tags = tags,
                                     .attributes = {{"file", name + ".mp4"}},
                                     .progress = [&](std::int64_t sent, std::optional<std::int64_t> total) {
                                       grew = grew && sent > done;
                                       done = sent;
                                       of = total.value_or(0);
                                     }});
    std::cout << name << ": sent " << done << " of " << of << " bytes, " << (grew ? "growing" : "not growing") << '\n';
    std::cout << name << ": " << outcome(told) << '\n';
  }
  const auto again = client.ingest("bikes", media / "bikes.mp4", {.title = "Bikes", .tags = clips[1].second});
  std::cout << "bikes again: " << outcome(again) << ", titled " << again.item().title() << '\n';
}

/// The ids of items, in one line.
std::string ids(matchcut::Items items) {
  std::vector<std::string> ids;
  for (const auto& item : items) ids.push_back(item.item_id());
  return joined(ids);
}

/// What is in the catalogue, and an item from a vector of another's.
void look(const Client& client) {
  const auto stored = client.get("carphone", {.vectors = true});
  const auto& item = stored.item();
  std::cout << "carphone: " << item.title() << ", tags " << joined(item.tags()) << ", file "
            << item.attributes().at("file") << '\n';
  const auto& first = stored.segments(0);
  std::cout << "carphone: first segment " << fixed(first.range().start_us() / 1e6, 2) << " to "
            << fixed(first.range().end_us() / 1e6, 2) << " s, " << first.vector_size() << " numbers\n";
  const auto twin = client.ingest_vectors("twin", {matchcut::segment(first.vector(), 0s, 1s)}, {.title = "A vector"});
  std::cout << "twin: " << outcome(twin) << '\n';
  std::cout << "items: " << ids(client.items({.page_size = 2})) << '\n';
  std::cout << "traffic, not people: " << ids(client.items({.tags = {.all_of = {"traffic"}, .none_of = {"people"}}}))
            << '\n';
}

/// The catalogue is ranked against items, a vector and a clip.
void ask(const Client& client, const Path& media) {
  show("like bikes", client.recommend(Query::items({"bikes"})));
  const auto stored = client.get("carphone", {.vectors = true});
  show("like a vector", client.recommend(Query::vector(stored.segments(0).vector()), {.limit = 2}));
  const auto clip = Query::clip(media / "carphone_distorted.mp4");
  show("like a clip", client.recommend(clip, {.exclude = {"twin"}}));
  show("like a clip, people only", client.recommend(clip, {.tags = {.any_of = {"people"}}}));
}

/// Live media, and rankings that improve.
void watch(const Client& client, const Path& media) {
  std::vector<std::string> revisions;
  for (const auto& ranking : client.live(media / "bikes.mp4", {.limit = 2, .frames_per_update = 4})) {
    revisions.push_back(std::to_string(ranking.revision()));
  }
  std::cout << "live container: " << joined(revisions) << '\n';
  for (const auto& ranking :
       client.live(Media::frames(kSide, kSide, frames(9)), {.limit = 2, .frames_per_update = 4})) {
    show("live frames " + std::to_string(ranking.revision()) + (ranking.final() ? ", the last" : ""), ranking);
  }
  auto pictures = [&, second = 0]() mutable -> std::optional<v1::Picture> {
    if (second == 2) return {};
    v1::Picture picture;
    picture.set_data(content(media / (second == 0 ? "lion.jpg" : "tower.jpg")));
    picture.set_time_us(second++ * 1'000'000);
    return picture;
  };
  v1::RecommendResponse last;
  for (auto& ranking : client.live(Media::pictures(pictures))) last = std::move(ranking);
  show("live pictures", last);
}

/// What a user did, and what that user should see.
void follow(const Client& client) {
  show("nobody knows ann", client.recommend_for("ann"));
  const std::vector<v1::Event> events = {
      matchcut::event("ann", "bikes", v1::EVENT_KIND_LIKE, {.time = kHourAgo, .id = "1"}),
      matchcut::event("ann", "a", v1::EVENT_KIND_WATCH, {.time = kHourAgo + 1min, .fraction = 0.25, .id = "2"}),
      matchcut::event("ann", "not-there-yet", v1::EVENT_KIND_CLICK, {.time = kHourAgo + 2min, .id = "3"})};
  for (const std::string turn : {"first", "second"}) {
    const auto told = client.record(events);
    std::cout << turn << " time: " << told.recorded() << " new, " << told.duplicates() << " known, "
              << told.unknown_items() << " of unknown items\n";
  }
  show("for ann", client.recommend_for("ann", {.include_seen = true}));
  show("for ann, unseen", client.recommend_for("ann"));
  const auto liked = matchcut::event("", "carphone", v1::EVENT_KIND_LIKE, {.time = kHourAgo + 3min});
  show("for a history", client.recommend_for("", {.history = {liked}}));
  auto live = client.recommend_live_for("ann", {.include_seen = true});
  show("live for ann", live.ranking());
  show("ann saves carphone", live.event("carphone", v1::EVENT_KIND_SAVE, {.time = kHourAgo + 3min, .id = "4"}));
  show("the end", live.end());
  const auto receipt = client.forget("ann");
  std::cout << "ann forgotten: " << receipt.events() << " events; again: " << client.forget("ann").events() << '\n';
}

/// Prints the error of a call.
void missed(const std::string& what, const std::function<void()>& call, bool words = true) {
  try {
    call();
    std::cout << what << ": no error\n";
  } catch (const matchcut::Error& error) {
    std::cout << what << ": " << error.code();
    if (words) {
      std::cout << ' ' << error.reason() << ' ' << (error.field().empty() ? "-" : error.field()) << ' '
                << error.message();
    }
    std::cout << '\n';
  }
}

/// What goes wrong comes as exceptions, with the server's words.
void fail(const Client& client, const Path& media) {
  const std::vector<float> vector = {1.0, 2.0};
  std::string text;
  for (int line = 0; line < 100; ++line) text += "This is no video at all. ";
  missed("an item that is not there", [&] { client.get("nobody"); });
  missed("a vector too short", [&] { client.ingest_vectors("short", {matchcut::segment(vector)}); });
  missed("no video", [&] { client.ingest("text", Media::bytes(text)); });
  missed("too many", [&] { client.recommend(Query::items({"bikes"}), {.limit = 1001}); });
  missed("no time", [&] { client.recommend(Query::clip(media / "bikes.mp4"), {}, {.timeout = 1ms}); }, false);
}

/// Calls that are given up leave nothing behind.
void stop(const Client& client, const Path& media) {
  auto rankings = client.live(Media::frames(kSide, kSide, frames(4, true)), {.frames_per_update = 1});
  std::cout << "stopped after ranking " << rankings.next().value().revision() << '\n';
  rankings.close();

  struct Enough {};
  auto half = [&, begun = false]() mutable -> std::optional<std::string> {
    if (begun) throw Enough();
    begun = true;
    return content(media / "bikes.mp4").substr(0, 200'000);
  };
  try {
    client.ingest("half", Media::pieces(half));
  } catch (const Enough&) {
    std::cout << "an upload given up\n";
  }
  try {
    client.get("half");
  } catch (const matchcut::NotFound&) {
    std::cout << "half: not there\n";
  }
}

/// Takes out what a tour puts in.
void tidy(const Client& client) {
  for (const char* name : {"a", "bikes", "carphone", "twin"}) client.remove(name, {.missing_ok = true});
}

/// Everything once.
void tour(const Client& client, const Path& media) {
  const auto health = client.health();
  std::cout << "health: " << health << '\n';
  tidy(client);
  fill(client, media);
  look(client);
  ask(client, media);
  watch(client, media);
  follow(client);
  fail(client, media);
  stop(client, media);
  tidy(client);
  std::cout << "left: " << client.page().items_size() << " items\n";
}

/// Puts an item in, waits for a line on standard input, and asks for it: of a server that is being restarted.
void restart(const Client& client, const Path& media) {
  client.ingest("bikes", media / "bikes.mp4");
  std::cout << "ready" << std::endl;
  std::string line;
  std::getline(std::cin, line);
  show("after a restart", client.recommend(Query::items({"bikes"}, true)));
  client.remove("bikes");
}

std::string environment(const char* name, const std::string& otherwise = "") {
  const char* value = std::getenv(name);
  return value && *value ? value : otherwise;
}

/// A client that tries again for a good while, so that a server may be restarted.
Client connect() {
  const std::string tenant = environment("MATCHCUT_TENANT");
  matchcut::ClientOptions options{.tenant = tenant.empty() ? "tour" : tenant,
                                  .timeout = 60s,
                                  .retry = {.attempts = 30, .initial = 200ms, .maximum = 1s}};
  if (const auto path = environment("MATCHCUT_TLS_CA"); !path.empty()) options.tls = {.authorities = path};
  if (const auto path = environment("MATCHCUT_CLIENT_TOKEN_FILE"); !path.empty()) {
    std::ifstream(path) >> options.token;
  }
  return Client(environment("MATCHCUT_SERVER", "127.0.0.1:7411"), options);
}

}  // namespace

int main(int count, char** words) try {
  if (count < 2) {
    std::cerr << "usage: tour FOLDER [restart]\n";
    return 2;
  }
  const Path media = words[1];
  const auto client = connect();
  if (count > 2 && std::string(words[2]) == "restart") {
    restart(client, media);
  } else {
    tour(client, media);
  }
} catch (const matchcut::Error& error) {
  std::cerr << error.code() << ": " << error.message() << '\n';
  return 1;
}
