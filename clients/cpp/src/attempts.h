// The tries of one call.
#pragma once

#include <chrono>
#include <optional>
#include <stop_token>

#include "matchcut/options.h"

namespace matchcut::detail {

/// After which errors a call may be sent again.
enum class Repeatable {
  never,    ///< none
  refused,  ///< it was certainly not begun: for what must not be done twice
  read,     ///< also the server was away: for what is done once when done twice
};

/// The timeout as it is; std::invalid_argument if it is not above 0.
Seconds checked(Seconds timeout);

/// Counts the tries of one call, which share its timeout.
class Attempts {
 public:
  using Clock = std::chrono::steady_clock;

  /// std::invalid_argument if the timeout is not above 0.
  Attempts(const Retry& policy, Repeatable repeatable, Seconds timeout, Clock::time_point (*now)() = Clock::now,
           double (*draw)() = jitter);

  /// Time left for the next try.
  Seconds remaining() const;
  /// Counts a failed try; the wait before the next one, or nullopt: throw the error.
  std::optional<Seconds> pause(const Error& error);

 private:
  static double jitter();

  Retry policy_;
  Repeatable repeatable_;
  Clock::time_point (*now_)();
  double (*draw_)();
  Seconds timeout_;
  Clock::time_point start_;
  int made_ = 0;
};

/// Waits; throws Cancelled when asked to stop meanwhile.
void wait(Seconds pause, const std::stop_token& stop);

}  // namespace matchcut::detail
