// From a status to what is thrown.
#pragma once

#include <string>

namespace matchcut::detail {

/// Throws the error for a failed call. `details` is the content of the trailer "grpc-status-details-bin".
[[noreturn]] void raise(int code, const std::string& message, const std::string& details);

}  // namespace matchcut::detail
