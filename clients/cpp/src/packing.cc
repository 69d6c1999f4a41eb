#include "packing.h"

#include <cmath>
#include <random>
#include <stdexcept>

namespace matchcut {

Query Query::items(const std::vector<std::string>& ids, bool include_themselves) {
  Query query;
  auto& items = *query.message.mutable_items();
  items.mutable_item_ids()->Assign(ids.begin(), ids.end());
  items.set_include_themselves(include_themselves);
  return query;
}

Query Query::vector(const Vector& values, const v1::Encoder& encoder) {
  Query query;
  auto& vector = *query.message.mutable_vector();
  vector.mutable_values()->Assign(values.begin(), values.end());
  *vector.mutable_encoder() = encoder;
  return query;
}

v1::TimeRange range(Seconds from, Seconds to) {
  v1::TimeRange range;
  range.set_start_us(detail::microseconds(from));
  range.set_end_us(detail::microseconds(to));
  return range;
}

v1::Segment segment(const Vector& vector, Seconds from, Seconds to) {
  v1::Segment segment;
  segment.mutable_vector()->Assign(vector.begin(), vector.end());
  *segment.mutable_range() = range(from, to);
  return segment;
}

v1::Event event(const std::string& user, const std::string& item, v1::EventKind kind, const EventOptions& options) {
  if (options.fraction && options.watched) {
    throw std::invalid_argument("an event has either fraction or watched, not both");
  }
  v1::Event event;
  event.set_user_id(user);
  event.set_item_id(item);
  event.set_kind(kind);
  if (options.time) {
    event.set_time_us(std::chrono::duration_cast<std::chrono::microseconds>(options.time->time_since_epoch()).count());
  }
  event.set_session_id(options.session);
  if (options.weight) event.set_weight(*options.weight);
  if (options.fraction) event.set_fraction(*options.fraction);
  if (options.watched) event.set_watched_us(detail::microseconds(*options.watched));
  event.set_recommendation_id(options.recommendation);
  event.set_event_id(options.id);
  return event;
}

namespace detail {

std::int64_t microseconds(Seconds time) { return std::llround(time.count() * 1e6); }

v1::Item item(const std::string& id, const IngestOptions& options) {
  v1::Item item;
  item.set_item_id(id);
  item.set_title(options.title);
  item.set_uri(options.uri);
  item.mutable_tags()->Assign(options.tags.begin(), options.tags.end());
  item.mutable_attributes()->insert(options.attributes.begin(), options.attributes.end());
  return item;
}

v1::MediaHeader media_header(const Media& media, const MediaOptions& options) {
  v1::MediaHeader header;
  media.describe(header, options.format);
  auto& sampling = *header.mutable_sampling();
  sampling.set_frames_per_second(options.rate);
  sampling.set_tolerance_us(microseconds(options.tolerance));
  sampling.set_shots(options.shots);
  auto& limits = *header.mutable_limits();
  limits.set_bytes(options.max_bytes);
  limits.set_frames(options.max_frames);
  limits.set_duration_us(microseconds(options.max_duration));
  header.mutable_segments()->Assign(options.segments.begin(), options.segments.end());
  return header;
}

v1::RankOptions rank(const RankOptions& options) {
  v1::RankOptions rank;
  rank.set_limit(options.limit);
  rank.mutable_exclude_item_ids()->Assign(options.exclude.begin(), options.exclude.end());
  *rank.mutable_tags() = tag_filter(options.tags);
  if (options.minimum_score) rank.set_minimum_score(*options.minimum_score);
  rank.set_frames_per_update(options.frames_per_update);
  return rank;
}

v1::TagFilter tag_filter(const Tags& tags) {
  v1::TagFilter filter;
  filter.mutable_all_of()->Assign(tags.all_of.begin(), tags.all_of.end());
  filter.mutable_any_of()->Assign(tags.any_of.begin(), tags.any_of.end());
  filter.mutable_none_of()->Assign(tags.none_of.begin(), tags.none_of.end());
  return filter;
}

v1::UserOptions user(const UserOptions& options) {
  v1::UserOptions user;
  if (options.include_seen) user.set_include_seen(*options.include_seen);
  if (options.mmr_lambda) user.set_mmr_lambda(*options.mmr_lambda);
  if (options.current_weight) user.set_current_weight(*options.current_weight);
  if (options.freshness) user.set_freshness(*options.freshness);
  if (options.freshness_half_life) user.set_freshness_half_life_us(microseconds(*options.freshness_half_life));
  if (options.popularity) user.set_popularity(*options.popularity);
  if (options.cap) user.set_cap(*options.cap);
  if (options.cap_attribute) user.set_cap_attribute(*options.cap_attribute);
  if (options.exploration) user.set_exploration(*options.exploration);
  return user;
}

v1::Query query(const Query& query, const RankOptions& options) {
  if (!query.media) return query.message;
  v1::Query message;
  auto& clip = *message.mutable_clip();
  *clip.mutable_media() = media_header(*query.media, options.media);
  clip.set_temporal(options.temporal);
  const auto next = query.media->open();
  for (v1::MediaChunk chunk; next(chunk);) *clip.add_chunks() = std::move(chunk);
  return message;
}

void name(v1::Event& event) {
  if (!event.event_id().empty()) return;
  std::random_device random;
  std::string id;
  for (int word = 0; word < 4; ++word) {
    for (unsigned bits = random(), digit = 0; digit < 8; ++digit, bits >>= 4) id += "0123456789abcdef"[bits & 15];
  }
  event.set_event_id(id);
}

}  // namespace detail
}  // namespace matchcut
