// The client's operations on events and users.

#include <algorithm>

#include "conversation.h"
#include "core.h"
#include "matchcut/client.h"
#include "packing.h"

namespace matchcut {

namespace {

constexpr std::size_t kBatch = 500;  // events a call

void add(v1::RecordEventsResponse& sum, const v1::RecordEventsResponse& more) {
  sum.set_recorded(sum.recorded() + more.recorded());
  sum.set_duplicates(sum.duplicates() + more.duplicates());
  sum.set_unknown_items(sum.unknown_items() + more.unknown_items());
  sum.set_expired(sum.expired() + more.expired());
}

}  // namespace

v1::RecordEventsResponse Client::record(const std::vector<v1::Event>& events, const Call& call,
                                        const std::function<void(const v1::RecordEventsResponse&)>& told) const {
  v1::RecordEventsResponse sum;
  for (std::size_t begin = 0; begin < events.size(); begin += kBatch) {
    v1::RecordEventsRequest request;
    request.set_tenant(core_->options.tenant);
    for (std::size_t at = begin; at < std::min(begin + kBatch, events.size()); ++at) {
      auto& event = *request.add_events();
      event = events[at];
      if (event.time_us() == 0) detail::name(event);  // the server's would be of the time at which a try reaches it
    }
    add(sum, core_->unary<v1::RecordEventsResponse>("/matchcut.v1.Events/RecordEvents", request, call));
    if (told) told(sum);
  }
  return sum;
}

v1::ForgetUserResponse Client::forget(const std::string& user, const Call& call) const {
  v1::ForgetUserRequest request;
  request.set_tenant(core_->options.tenant);
  request.set_user_id(user);
  constexpr auto kMethod = "/matchcut.v1.Events/ForgetUser";
  return core_->unary<v1::ForgetUserResponse>(kMethod, request, call, detail::Repeatable::refused);
}

v1::CountEventsResponse Client::count_events(const std::vector<std::string>& items, int limit, const Call& call) const {
  v1::CountEventsRequest request;
  request.set_tenant(core_->options.tenant);
  request.mutable_item_ids()->Assign(items.begin(), items.end());
  request.set_limit(limit);
  return core_->unary<v1::CountEventsResponse>("/matchcut.v1.Events/CountEvents", request, call);
}

v1::RecommendForUserResponse Client::recommend_for(const std::string& user, const UserOptions& options,
                                                   const Call& call) const {
  v1::RecommendForUserRequest request;
  request.set_tenant(core_->options.tenant);
  request.set_user_id(user);
  *request.mutable_options() = detail::rank(options.rank);
  *request.mutable_user_options() = detail::user(options);
  if (options.current) *request.mutable_current() = detail::query(*options.current, options.rank);
  for (const auto& event : options.history) {
    *request.add_history() = event;
    if (event.time_us() == 0) detail::name(*request.mutable_history()->rbegin());
  }
  const bool once = options.current && options.current->media && !options.current->media->replayable();
  const auto repeatable = once ? detail::Repeatable::never : detail::Repeatable::read;
  constexpr auto kMethod = "/matchcut.v1.Recommender/RecommendForUser";
  return core_->unary<v1::RecommendForUserResponse>(kMethod, request, call, repeatable);
}

LiveList Client::recommend_live_for(const std::string& user, const UserOptions& options, std::optional<Media> media,
                                    const Call& call) const {
  v1::RecommendForUserLiveRequest request;
  auto& header = *request.mutable_header();
  header.set_tenant(core_->options.tenant);
  header.set_user_id(user);
  *header.mutable_options() = detail::rank(options.rank);
  *header.mutable_user_options() = detail::user(options);
  if (media) *header.mutable_media() = detail::media_header(*media, options.rank.media);
  auto stream = core_->transport.open("/matchcut.v1.Recommender/RecommendForUserLive",
                                      v1::RecommendForUserResponse::default_instance(),
                                      {detail::checked(call.timeout.value_or(forever)), call.stop});
  stream->write(request);  // here, so that events come after it
  detail::Conversation::Feed feed;
  const bool looks = media.has_value();
  if (looks) {
    feed = [media = *std::move(media)](detail::Stream& out) {
      detail::send_chunks<v1::RecommendForUserLiveRequest>(out, media, [](const v1::MediaChunk&) { return true; });
    };
  }
  return {std::make_unique<detail::Conversation>(core_, std::move(stream), feed), looks};
}

}  // namespace matchcut
