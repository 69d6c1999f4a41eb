// The client's rankings, and health.

#include "conversation.h"
#include "core.h"
#include "matchcut/client.h"
#include "matchcut_wire.pb.h"
#include "packing.h"

namespace matchcut {

namespace {

using detail::Repeatable;

constexpr std::int64_t kOneMessage = 8 * 1024 * 1024;  // bytes; a larger clip is better decoded while it arrives
constexpr int kNoUpdates = 2147483647;                 // frames per update, where only the last ranking is wanted

Live start(const std::shared_ptr<const detail::Core>& core, Media media, const RankOptions& options,
           const detail::Bounds& bounds) {
  v1::RecommendLiveRequest request;
  auto& header = *request.mutable_header();
  header.set_tenant(core->options.tenant);
  *header.mutable_media() = detail::media_header(media, options.media);
  *header.mutable_options() = detail::rank(options);
  header.set_latest_only(options.latest_only);
  header.set_temporal(options.temporal);
  header.set_resume(options.resume);
  auto stream =
      core->transport.open("/matchcut.v1.Recommender/RecommendLive", v1::RecommendResponse::default_instance(), bounds);
  stream->write(request);
  auto feed = [media = std::move(media)](detail::Stream& out) {
    detail::send_chunks<v1::RecommendLiveRequest>(out, media, [](const v1::MediaChunk&) { return true; });
  };
  return Live(std::make_unique<detail::Conversation>(core, std::move(stream), std::move(feed)));
}

v1::RecommendResponse last(Live live) {
  std::optional<v1::RecommendResponse> last;
  while (auto ranking = live.next()) last = std::move(ranking);
  if (!last) throw ServerError({.message = "The server ended the call without a reply.", .code = "INTERNAL"});
  return *std::move(last);
}

}  // namespace

v1::RecommendResponse Client::recommend(const Query& query, const RankOptions& options, const Call& call) const {
  const auto repeatable = !query.media || query.media->replayable() ? Repeatable::read : Repeatable::never;
  if (query.media && query.media->size().value_or(kOneMessage + 1) > kOneMessage) {
    auto once = options;
    once.frames_per_update = kNoUpdates;
    return core_->repeat(call, repeatable,
                         [&](const detail::Bounds& bounds) { return last(start(core_, *query.media, once, bounds)); });
  }
  v1::RecommendRequest request;
  request.set_tenant(core_->options.tenant);
  *request.mutable_query() = detail::query(query, options);
  *request.mutable_options() = detail::rank(options);
  return core_->unary<v1::RecommendResponse>("/matchcut.v1.Recommender/Recommend", request, call, repeatable);
}

Live Client::live(Media media, const RankOptions& options, const Call& call) const {
  return start(core_, std::move(media), options, {detail::checked(call.timeout.value_or(forever)), call.stop});
}

std::string Client::health(const std::string& service, const Call& call) const {
  wire::HealthCheckRequest request;
  request.set_service(service);
  const auto reply = core_->unary<wire::HealthCheckResponse>("/grpc.health.v1.Health/Check", request, call);
  return wire::HealthCheckResponse::ServingStatus_Name(reply.status());
}

}  // namespace matchcut
