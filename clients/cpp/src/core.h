// What a client is made of, and how it makes calls that answer once.
#pragma once

#include <string>
#include <type_traits>

#include "attempts.h"
#include "transport.h"

namespace matchcut::detail {

/// The connection and the calls' defaults.
struct Core {
  /// std::invalid_argument if the token or the timeout is none that a call can have.
  Core(const std::string& target, ClientOptions given) : options(std::move(given)), transport(target, options) {
    checked(options.timeout);
  }

  /// The result of `once`, which makes one try within the bounds it is given.
  template <class Once>
  std::invoke_result_t<Once, const Bounds&> repeat(const Call& call, Repeatable repeatable, const Once& once) const {
    Attempts attempts(options.retry, repeatable, call.timeout.value_or(options.timeout));
    while (true) {
      std::optional<Seconds> pause;
      try {
        return once(Bounds{attempts.remaining(), call.stop});
      } catch (const Error& error) {
        pause = attempts.pause(error);
        if (!pause) throw;
      }
      wait(*pause, call.stop);
    }
  }

  /// One message out, one back.
  template <class Reply>
  Reply unary(const std::string& method, const Message& request, const Call& call,
              Repeatable repeatable = Repeatable::read) const {
    return repeat(call, repeatable, [&](const Bounds& bounds) {
      Reply reply;
      transport.unary(method, request, reply, bounds);
      return reply;
    });
  }

  ClientOptions options;
  Transport transport;
};

}  // namespace matchcut::detail
