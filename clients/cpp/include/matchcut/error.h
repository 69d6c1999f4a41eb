// What a call may throw, by the server's status.
//
// Error
// ├── InvalidInput        INVALID_ARGUMENT, OUT_OF_RANGE: a field is missing, malformed or out of range
// ├── NotFound            NOT_FOUND: no such item
// ├── FailedPrecondition  FAILED_PRECONDITION: e.g. vectors of another encoder
// ├── Overloaded          RESOURCE_EXHAUSTED: no place free, retry_after() says when to come back; or the
// server's GPU │                       has too little memory for it (reason DEVICE_MEMORY_FULL) ├──
// DeadlineExceeded    DEADLINE_EXCEEDED: the timeout is over ├── Cancelled           CANCELLED: the call was
// cancelled, e.g. by its stop token ├── Unavailable         UNAVAILABLE: the server cannot be reached, is
// shutting down, or has lost its GPU and has to be │                       started again (reason DEVICE_LOST)
// ├── Unauthenticated     UNAUTHENTICATED: the token or certificate is missing or not accepted
// ├── NotAllowed          PERMISSION_DENIED: the server was started with an option that forbids it
// └── ServerError         any other: a fault of the server
#pragma once

#include <chrono>
#include <optional>
#include <stdexcept>
#include <string>

namespace matchcut {

/// A length of time; every std::chrono duration converts to it.
using Seconds = std::chrono::duration<double>;

/// Anything that the server, or the way to it, answers instead of a reply. what() is the message.
class Error : public std::runtime_error {
 public:
  /// What is known of an error.
  struct Facts {
    std::string message = {};                 ///< one sentence for people that says what to do
    std::string code = {};                    ///< the gRPC status' name, e.g. "NOT_FOUND"
    std::string reason = {};                  ///< stable word in capitals, e.g. "ITEM_NOT_FOUND"; empty: none given
    std::string field = {};                   ///< path of the request field at fault; empty: none
    std::optional<Seconds> retry_after = {};  ///< wait before the next try; nullopt: the server gave none
  };

  explicit Error(Facts facts) : std::runtime_error(facts.message), facts_(std::move(facts)) {}

  /// The server's message.
  const std::string& message() const noexcept { return facts_.message; }
  /// The gRPC status' name, e.g. "NOT_FOUND".
  const std::string& code() const noexcept { return facts_.code; }
  /// Stable word in capitals, for programs; empty where the server gave none.
  const std::string& reason() const noexcept { return facts_.reason; }
  /// Path of the request field at fault, e.g. "item.item_id"; empty where none is.
  const std::string& field() const noexcept { return facts_.field; }
  /// How long to wait before the next try; nullopt where the server did not say.
  std::optional<Seconds> retry_after() const noexcept { return facts_.retry_after; }

 private:
  Facts facts_;
};

/// A field is missing, malformed or out of range; field() says which where the server knows.
class InvalidInput : public Error {
  using Error::Error;
};

/// There is no such item.
class NotFound : public Error {
  using Error::Error;
};

/// The request does not fit the server's state, e.g. vectors of another encoder.
class FailedPrecondition : public Error {
  using Error::Error;
};

/// All places are taken, or a limit is reached; retry_after() says when to come back.
/// With the reason "DEVICE_MEMORY_FULL" it did not fit into the memory of the server's GPU: ask for less at
/// once.
class Overloaded : public Error {
  using Error::Error;
};

/// The call took longer than its timeout.
class DeadlineExceeded : public Error {
  using Error::Error;
};

/// The call was cancelled, by its stop token or by the server.
class Cancelled : public Error {
  using Error::Error;
};

/// The server cannot be reached, or is shutting down.
/// With the reason "DEVICE_LOST" its GPU is lost, and it has to be started again before another try helps.
class Unavailable : public Error {
  using Error::Error;
};

/// The token or certificate is missing, or not accepted.
class Unauthenticated : public Error {
  using Error::Error;
};

/// The server was started with an option that forbids it, e.g. --users off (reason USERS_OFF).
class NotAllowed : public Error {
  using Error::Error;
};

/// Any other status: a fault of the server.
class ServerError : public Error {
  using Error::Error;
};

}  // namespace matchcut
