// What calls can be told beside their subject, for designated initializers: {.limit = 3}. Fields left out
// mean the server's defaults.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "matchcut/error.h"
#include "matchcut/media.h"
#include "matchcut/retry.h"
#include "matchcut/v1/catalog.pb.h"
#include "matchcut/v1/common.pb.h"
#include "matchcut/v1/events.pb.h"
#include "matchcut/v1/recommender.pb.h"

namespace matchcut {

/// A timeout that never comes.
inline constexpr Seconds forever = Seconds::max();

/// How to trust the server, and to be trusted; paths of PEM files.
struct Tls {
  std::filesystem::path authorities = {};  ///< empty: the system's
  std::filesystem::path certificate = {};  ///< this client's own chain, where the server asks for one
  std::filesystem::path key = {};          ///< its private key
};

/// Who is calling, and the calls' defaults.
struct ClientOptions {
  std::string tenant = {};      ///< whose catalogue; empty: the default tenant
  std::string token = {};       ///< bearer token sent with each call, in clear text unless tls is set
  std::optional<Tls> tls = {};  ///< nullopt: plaintext
  Seconds timeout = forever;    ///< above 0: that a call may take, retries included; live calls have none of this
  Retry retry = {};             ///< when to send a failed call again; {.attempts = 1}: never
};

/// The last argument of every call.
struct Call {
  std::optional<Seconds> timeout = {};  ///< above 0, in place of the client's, for all tries
  std::stop_token stop = {};            ///< cancels the call: it throws Cancelled
};

/// Told as bytes leave: how many in all, and of how many (nullopt: unknown). Runs in the caller's thread.
using Progress = std::function<void(std::int64_t sent, std::optional<std::int64_t> total)>;

/// A stretch of media time.
v1::TimeRange range(Seconds from, Seconds to);

/// How media is read.
struct MediaOptions {
  std::string format = {};                         ///< the container's short name; empty: detected
  double rate = 0;                                 ///< frames used per second of media
  Seconds tolerance{0};                            ///< by which a used frame may miss its time; more is faster
  v1::ShotMode shots = v1::SHOT_MODE_UNSPECIFIED;  ///< how segments are found
  std::vector<v1::TimeRange> segments = {};        ///< each made by range(); in place of shot detection
  std::int64_t max_bytes = 0;                      ///< where to stop reading
  std::int64_t max_frames = 0;                     ///< likewise, used frames
  Seconds max_duration{0};                         ///< likewise, media time
};

/// Of an ingest. From vectors, media and progress are not looked at.
struct IngestOptions {
  std::string title = {};                              ///< for people
  std::string uri = {};                                ///< where the media lives; never opened
  std::vector<std::string> tags = {};                  ///< words to filter by
  std::map<std::string, std::string> attributes = {};  ///< anything to get back
  MediaOptions media = MediaOptions();                 ///< how it is read
  Progress progress = {};                              ///< told as a container's bytes leave
  bool for_next_encoder = false;                       ///< kept aside until that takes over; the item has to be there
  v1::Encoder encoder = {};                            ///< only from vectors: which made them; empty: the server's
};

/// A view of a vector's values: of a std::vector, a std::array or a message's field, which must outlive it.
class Vector : public std::span<const float> {
 public:
  using span::span;
  Vector(const google::protobuf::RepeatedField<float>& field) : span(field.data(), field.size()) {}
};

/// A part of an item with its vector, for Client::ingest_vectors; both times 0: unknown.
v1::Segment segment(const Vector& vector, Seconds from = {}, Seconds to = {});

/// Of Client::get.
struct GetOptions {
  bool vectors = false;  ///< return the segments' vectors, too
};

/// Of Client::remove.
struct RemoveOptions {
  bool missing_ok = false;  ///< succeed although there is no such item
};

/// Of Client::switch_encoder.
struct SwitchOptions {
  bool force = false;    ///< although items have no vectors of the next encoder
  bool dry_run = false;  ///< only tell how it stands
};

/// Only items with each tag in all_of, one of any_of and none of none_of; empty asks nothing.
struct Tags {
  std::vector<std::string> all_of = {};
  std::vector<std::string> any_of = {};
  std::vector<std::string> none_of = {};
};

/// Of a listing.
struct ListOptions {
  Tags tags = Tags();
  int page_size = 0;                  ///< most items in one reply
  bool lacking_next_encoder = false;  ///< only items that have no vectors of the server's next encoder yet
};

/// Of rankings. frames_per_update, latest_only and resume are for live ones.
struct RankOptions {
  int limit = 0;                                     ///< how many items; 0: 10
  std::vector<std::string> exclude = {};             ///< ids of items that must not come back
  Tags tags = Tags();                                ///< only items that pass
  std::optional<double> minimum_score = {};          ///< only items that score at least this, a cosine
  MediaOptions media = MediaOptions();               ///< how a clip or live media is read
  v1::Temporal temporal = v1::TEMPORAL_UNSPECIFIED;  ///< how frames become what is compared
  int frames_per_update = 0;                         ///< rank again after this many more used frames
  bool latest_only = false;                          ///< drop frames and pictures that come too fast, the oldest first
  std::string resume = {};                           ///< RecommendResponse.resume, to go on where a call broke off
};

/// What the catalogue is compared with: Query::items({"a"}), Query::vector(values) or Query::clip("a.mp4").
struct Query {
  v1::Query message = {};           ///< of items or a vector
  std::optional<Media> media = {};  ///< of a clip

  /// Items of the catalogue; they are left out of the ranking unless include_themselves.
  static Query items(const std::vector<std::string>& ids, bool include_themselves = false);
  /// A vector, of the encoder that the server runs unless another is named.
  static Query vector(const Vector& values, const v1::Encoder& encoder = {});
  /// A whole clip.
  static Query clip(Media media) { return {.media = std::move(media)}; }
};

/// Of a user's list; the fields are those of v1::UserOptions, where they are explained.
struct UserOptions {
  RankOptions rank = RankOptions();     ///< how many, and what may be ranked
  std::optional<Query> current = {};    ///< what is of interest right now; not of live lists
  std::vector<v1::Event> history = {};  ///< used instead of what is kept of the user; not of live lists
  std::optional<bool> include_seen = {};
  std::optional<double> mmr_lambda = {};
  std::optional<double> current_weight = {};
  std::optional<double> freshness = {};
  std::optional<Seconds> freshness_half_life = {};
  std::optional<double> popularity = {};
  std::optional<int> cap = {};
  std::optional<std::string> cap_attribute = {};
  std::optional<double> exploration = {};
};

/// More of an event; see v1::Event.
struct EventOptions {
  std::optional<std::chrono::system_clock::time_point> time = {};  ///< nullopt: now, by the server's clock
  std::string session = {};
  std::optional<double> weight = {};
  std::optional<double> fraction = {};  ///< of a watch: the share of the item
  std::optional<Seconds> watched = {};  ///< of a watch: the time; not both
  std::string recommendation = {};      ///< recommendation_id of the list that showed it
  std::string id = {};                  ///< empty: the client makes a random one where time is not set
};

/// Something that a user did; std::invalid_argument if it has both fraction and watched.
v1::Event event(const std::string& user, const std::string& item, v1::EventKind kind, const EventOptions& options = {});

}  // namespace matchcut
