#include "attempts.h"

#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <mutex>
#include <random>
#include <stdexcept>

namespace matchcut {

std::optional<Seconds> Retry::pause(int attempt, const Error& error, double draw) const {
  if (attempt >= attempts) return {};
  if (const auto after = error.retry_after()) {
    return *after <= maximum ? std::optional(*after * (1 + draw / 4)) : std::nullopt;
  }
  if (dynamic_cast<const Overloaded*>(&error))
    return {};  // a limit, such as a message's size; waiting does not lift it
  return std::min(maximum, initial * std::pow(multiplier, attempt - 1)) * (1 - draw / 2);
}

namespace detail {

Seconds checked(Seconds timeout) {
  if (!(timeout > Seconds(0))) {  // also where it is no number
    throw std::invalid_argument("a timeout is a time above 0, not " + std::to_string(timeout.count()) +
                                " s; forever is no bound");
  }
  return timeout;
}

Attempts::Attempts(const Retry& policy, Repeatable repeatable, Seconds timeout, Clock::time_point (*now)(),
                   double (*draw)())
    : policy_(policy), repeatable_(repeatable), now_(now), draw_(draw), timeout_(checked(timeout)), start_(now()) {}

Seconds Attempts::remaining() const {
  if (timeout_ == forever) return forever;
  return std::max(Seconds(0), timeout_ - Seconds(now_() - start_));
}

std::optional<Seconds> Attempts::pause(const Error& error) {
  ++made_;
  const bool refused = dynamic_cast<const Overloaded*>(&error);
  const bool away = dynamic_cast<const Unavailable*>(&error);
  if (!(refused && repeatable_ != Repeatable::never) && !(away && repeatable_ == Repeatable::read)) return {};
  const auto pause = policy_.pause(made_, error, draw_());
  return pause && *pause < remaining() ? pause : std::nullopt;
}

double Attempts::jitter() {
  thread_local std::minstd_rand engine{std::random_device{}()};
  return std::uniform_real_distribution<>()(engine);
}

void wait(Seconds pause, const std::stop_token& stop) {
  std::mutex mutex;
  std::condition_variable_any changed;
  std::unique_lock lock(mutex);
  const auto most = std::min<Seconds>(pause, std::chrono::years(10));  // more would overflow the clock
  changed.wait_for(lock, stop, most, [] { return false; });
  if (stop.stop_requested()) {
    throw Cancelled({.message = "The call was cancelled before its next try.", .code = "CANCELLED"});
  }
}

}  // namespace detail
}  // namespace matchcut
