// When a call that failed is sent again.
#pragma once

#include <chrono>
#include <optional>

#include "matchcut/error.h"

namespace matchcut {

/// Exponential backoff with jitter, for calls that are safe to send again.
///
/// Sent again are reads, and ingests whose media can be read twice (a path, bytes, vectors), when the server
/// is unavailable or says when to come back. A removal is sent again only when the server refused to start
/// it.
struct Retry {
  int attempts = 4;         ///< tries in all; 1 means none again
  Seconds initial{0.1};     ///< wait before the second try
  Seconds maximum{10};      ///< most between two; a server that asks for more is not waited for
  double multiplier = 2.0;  ///< growth of the pause from try to try

  /// How long to wait after the failed try number `attempt` (from 1); nullopt: give up.
  ///
  /// `draw` gives the jitter, in [0, 1): a backoff shrinks by up to half, a server's wish grows by up to a
  /// quarter, so that callers who were turned away together do not come back together.
  std::optional<Seconds> pause(int attempt, const Error& error, double draw) const;
};

}  // namespace matchcut
