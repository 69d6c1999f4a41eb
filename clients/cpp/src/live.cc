#include "matchcut/live.h"

#include "conversation.h"
#include "packing.h"

namespace matchcut {

namespace {

constexpr std::size_t kRoom = 16;  // lists that are kept while an event's is awaited

ServerError ended() { return ServerError({.message = "The call has ended; no more lists come.", .code = "INTERNAL"}); }

}  // namespace

Live::Live(std::unique_ptr<detail::Conversation> conversation) : conversation_(std::move(conversation)) {}
Live::Live(Live&&) noexcept = default;
Live::~Live() = default;

std::optional<v1::RecommendResponse> Live::next() { return conversation_->read<v1::RecommendResponse>(); }

void Live::close() { conversation_->close(); }

LiveList::LiveList(std::unique_ptr<detail::Conversation> conversation, bool media)
    : conversation_(std::move(conversation)) {
  if (!media && !read()) throw ended();
}

LiveList::LiveList(LiveList&&) noexcept = default;
LiveList::~LiveList() = default;

v1::RecommendForUserResponse LiveList::event(const std::string& item, v1::EventKind kind, const EventOptions& options) {
  v1::RecommendForUserLiveRequest request;
  *request.mutable_event() = matchcut::event("", item, kind, options);
  detail::name(*request.mutable_event());
  const auto sending = conversation_->write(request);  // where it is not wanted any more, reading says why
  while (auto list = read()) {
    if (list->event_id() == request.event().event_id()) return *std::move(list);
    if (kept_.size() == kRoom) kept_.pop_front();
    kept_.push_back(*std::move(list));
  }
  throw ended();
}

std::optional<v1::RecommendForUserResponse> LiveList::next() {
  if (kept_.empty()) return read();
  std::optional list = std::move(kept_.front());
  kept_.pop_front();
  return list;
}

v1::RecommendForUserResponse LiveList::end() {
  conversation_->end_writing();
  while (read()) {
  }
  if (ranking_.revision() == 0) throw ended();
  return ranking_;
}

void LiveList::close() { conversation_->close(); }

std::optional<v1::RecommendForUserResponse> LiveList::read() {
  auto list = conversation_->read<v1::RecommendForUserResponse>();
  if (list) ranking_ = *list;
  return list;
}

}  // namespace matchcut
