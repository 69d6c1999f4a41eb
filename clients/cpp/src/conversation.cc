#include "conversation.h"

namespace matchcut::detail {

Conversation::Conversation(std::shared_ptr<const Core> core, std::unique_ptr<Stream> stream, Feed feed)
    : core_(std::move(core)), stream_(std::move(stream)) {
  if (!feed) return;
  feeder_ = std::thread([this, &stream = *stream_, feed = std::move(feed)] {
    try {
      feed(stream);
      stream.end_writing();
    } catch (...) {
      failure_ = std::current_exception();
      stream.cancel();  // an end of the messages alone would pass for the end of the media
    }
  });
}

std::unique_ptr<Message> Conversation::next() {
  if (!stream_) return nullptr;
  try {
    if (auto reply = stream_->read()) return reply;
  } catch (const Error&) {
    close();
    if (failure_) std::rethrow_exception(failure_);
    throw;
  }
  close();
  return nullptr;
}

std::jthread Conversation::write(const Message& message) {
  if (stream_ && feeder_.joinable()) {
    return std::jthread([stream = stream_, &message] { stream->write(message); });
  }
  if (stream_) stream_->write(message);
  return {};
}

void Conversation::end_writing() {
  if (stream_) stream_->end_writing();
}

void Conversation::close() noexcept {
  if (stream_) stream_->cancel();
  if (feeder_.joinable()) feeder_.join();
  stream_.reset();
}

}  // namespace matchcut::detail
