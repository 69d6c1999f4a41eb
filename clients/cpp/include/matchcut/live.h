// Calls that go on: rankings that improve while media arrives, and a user's list that follows what the user
// does.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <string>

#include "matchcut/options.h"
#include "matchcut/sequence.h"

namespace matchcut {

namespace detail {
class Conversation;
}

/// Rankings of Client::live, for one thread: `for (const auto& ranking : client.live("a.mp4"))`.
///
/// The media is read in a thread of its own, which has ended when this is closed or walked to its end; what
/// the media throws comes out of next().
class Live : public Sequence<Live, v1::RecommendResponse> {
 public:
  explicit Live(std::unique_ptr<detail::Conversation> conversation);
  Live(Live&&) noexcept;
  ~Live();

  /// The next ranking; nullopt at the end.
  std::optional<v1::RecommendResponse> next();
  /// Cancels the call, unless it has ended. Waits for the media's next piece, if it is being made right now.
  void close();

 private:
  std::unique_ptr<detail::Conversation> conversation_;
};

/// A user's list that follows what the user does, of Client::recommend_live_for; for one thread.
///
/// event() tells what the user did; walking it gives the lists that answer no event. With live media those go
/// on until the media ends; it is read in a thread of its own as in Live.
class LiveList : public Sequence<LiveList, v1::RecommendForUserResponse> {
 public:
  LiveList(std::unique_ptr<detail::Conversation> conversation, bool media);
  LiveList(LiveList&&) noexcept;
  ~LiveList();

  /// The newest list. Before the first, for which live media has to come, it is empty.
  const v1::RecommendForUserResponse& ranking() const { return ranking_; }
  /// Tells what the user did and returns the list that answers it, by when the event is durable. Of lists
  /// that media makes meanwhile the newest 16 are kept for next().
  v1::RecommendForUserResponse event(const std::string& item, v1::EventKind kind, const EventOptions& options = {});
  /// The next list that answers no event(); nullopt at the end.
  std::optional<v1::RecommendForUserResponse> next();
  /// Ends the call and returns the last list; those before it that were not taken are left out.
  v1::RecommendForUserResponse end();
  /// Cancels the call, unless it has ended. Waits for the media's next piece, if it is being made right now.
  void close();

 private:
  std::optional<v1::RecommendForUserResponse> read();

  std::unique_ptr<detail::Conversation> conversation_;
  std::deque<v1::RecommendForUserResponse> kept_;
  v1::RecommendForUserResponse ranking_;
};

}  // namespace matchcut
