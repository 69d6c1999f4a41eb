// gRPC, with messages of any type. Only transport.cc includes its headers, which take long to compile.
#pragma once

#include <google/protobuf/message_lite.h>

#include <memory>
#include <stop_token>
#include <string>

#include "matchcut/options.h"

namespace matchcut::detail {

using Message = google::protobuf::MessageLite;

/// How one try of a call is bounded.
struct Bounds {
  /// Bounds that begin to count now.
  Bounds(Seconds timeout, std::stop_token stop);

  std::optional<std::chrono::system_clock::time_point> deadline;
  std::stop_token stop;
};

/// A call with messages in both directions. One thread may read while others write.
class Stream {
 public:
  /// Cancels the call, unless it has ended.
  virtual ~Stream() = default;
  /// Sends a message and returns when the transport has taken it; false once no more are wanted.
  virtual bool write(const Message& message) = 0;
  /// Ends the sending side; further messages are not wanted.
  virtual void end_writing() = 0;
  /// Whether a reply waits to be read.
  virtual bool answered() = 0;
  /// The next reply, of the type that the call was opened with; nullptr after the last. Throws Error.
  virtual std::unique_ptr<Message> read() = 0;
  /// Cancels the call, from any thread.
  virtual void cancel() = 0;
};

/// A channel to a server; threads may share it.
class Transport {
 public:
  Transport(const std::string& target, const ClientOptions& options);
  ~Transport();

  /// One message out, one back. `method` is a path such as "/matchcut.v1.Catalog/GetItem". Throws Error.
  void unary(const std::string& method, const Message& request, Message& reply, const Bounds& bounds) const;
  /// Begins a call whose replies are of the type of `reply`, which must outlive it.
  std::unique_ptr<Stream> open(const std::string& method, const Message& reply, const Bounds& bounds) const;

 private:
  struct Channel;
  std::shared_ptr<Channel> channel_;
};

}  // namespace matchcut::detail
