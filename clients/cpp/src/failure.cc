#include "failure.h"

#include <algorithm>
#include <array>

#include "matchcut/error.h"
#include "matchcut_wire.pb.h"

namespace matchcut::detail {

namespace {

/// Parses a detail if it is of this type; google.rpc's types are known by the ends of their names.
template <class Detail>
bool unpack(const google::protobuf::Any& packed, const std::string& name, Detail& detail) {
  return packed.type_url() == "type.googleapis.com/google.rpc." + name && detail.ParseFromString(packed.value());
}

/// Adds what the details say; those that are garbled or unknown are left out.
void add(Error::Facts& facts, const std::string& details) {
  wire::Status status;
  if (!status.ParseFromString(details)) return;
  for (const auto& packed : status.details()) {
    wire::ErrorInfo info;
    wire::BadRequest request;
    wire::RetryInfo retry;
    if (unpack(packed, "ErrorInfo", info)) {
      facts.reason = info.reason();
    } else if (unpack(packed, "BadRequest", request) && request.field_violations_size() > 0) {
      facts.field = request.field_violations(0).field();
    } else if (unpack(packed, "RetryInfo", retry)) {
      const auto& delay = retry.retry_delay();
      const auto wish = static_cast<double>(delay.seconds()) + delay.nanos() / 1e9;
      facts.retry_after = Seconds(std::max(0.0, wish));  // in floating point, which no wish overflows
    }
  }
}

}  // namespace

void raise(int code, const std::string& message, const std::string& details) {
  static constexpr std::array kNames = {
      "OK",        "CANCELLED",      "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
      "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
      "ABORTED",   "OUT_OF_RANGE",   "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
      "DATA_LOSS", "UNAUTHENTICATED"};
  const bool known = code >= 0 && code < static_cast<int>(kNames.size());
  Error::Facts facts{.message = message, .code = known ? kNames[code] : "UNKNOWN"};
  if (message.empty()) facts.message = "The call failed with status " + facts.code + " and no message.";
  add(facts, details);
  switch (code) {
    case 1:
      throw Cancelled(facts);
    case 3:
    case 11:
      throw InvalidInput(facts);
    case 4:
      throw DeadlineExceeded(facts);
    case 5:
      throw NotFound(facts);
    case 7:
      throw NotAllowed(facts);
    case 8:
      throw Overloaded(facts);
    case 9:
      throw FailedPrecondition(facts);
    case 14:
      throw Unavailable(facts);
    case 16:
      throw Unauthenticated(facts);
    default:
      throw ServerError(facts);
  }
}

}  // namespace matchcut::detail
