// A call under way in both directions, whose media is sent by a thread of its own.
#pragma once

#include <exception>
#include <functional>
#include <memory>
#include <thread>

#include "core.h"

namespace matchcut::detail {

/// Keeps the connection open while it lasts. For one thread, beside its own.
class Conversation {
 public:
  /// Sends things into the call until there are no more; runs in the thread. What it throws comes out of
  /// read().
  using Feed = std::function<void(Stream&)>;

  Conversation(std::shared_ptr<const Core> core, std::unique_ptr<Stream> stream, Feed feed);
  ~Conversation() { close(); }

  /// The next reply; nullopt after the last, and once it is closed.
  template <class Reply>
  std::optional<Reply> read() {
    auto reply = next();
    return reply ? std::optional(std::move(static_cast<Reply&>(*reply))) : std::nullopt;
  }

  /// Sends a message beside what the thread sends. Where there is such a thread, another one does it, for replies have
  /// to be read meanwhile: a server that cannot reply takes no media, and the message is behind that. Join it.
  std::jthread write(const Message& message);
  /// Ends the sending side; the thread's next piece is not sent any more.
  void end_writing();
  /// Cancels the call, unless it has ended, and waits for the thread.
  void close() noexcept;

 private:
  std::unique_ptr<Message> next();

  std::shared_ptr<const Core> core_;
  std::shared_ptr<Stream> stream_;  // null once the call is over
  std::exception_ptr failure_;      // of the thread; looked at once it has ended
  std::thread feeder_;
};

}  // namespace matchcut::detail
