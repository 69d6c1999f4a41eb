// One try of an ingest from media.
#pragma once

#include "matchcut/options.h"
#include "transport.h"

namespace matchcut::detail {

/// Tells how many bytes have been sent; where a call is sent again, only what goes beyond the try before.
class Meter {
 public:
  Meter(Progress progress, std::optional<std::int64_t> total) : progress_(std::move(progress)), total_(total) {}

  /// A new try begins.
  void restart() { sent_ = 0; }
  /// So many more bytes have left.
  void add(std::size_t bytes);

 private:
  Progress progress_;
  std::optional<std::int64_t> total_;
  std::int64_t most_ = 0;
  std::int64_t sent_ = 0;
};

/// Sends the header and the media, then its end; a reply or an error that comes before is taken at once.
v1::IngestResponse upload(const Transport& transport, const v1::IngestRequest& header, const Media& media, Meter& meter,
                          const Bounds& bounds);

}  // namespace matchcut::detail
