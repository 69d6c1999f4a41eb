#include "upload.h"

#include "packing.h"

namespace matchcut::detail {

void Meter::add(std::size_t bytes) {
  sent_ += static_cast<std::int64_t>(bytes);
  if (progress_ && sent_ > most_) {
    most_ = sent_;
    progress_(sent_, total_);
  }
}

v1::IngestResponse upload(const Transport& transport, const v1::IngestRequest& header, const Media& media, Meter& meter,
                          const Bounds& bounds) {
  meter.restart();
  const auto stream = transport.open("/matchcut.v1.Catalog/Ingest", v1::IngestResponse::default_instance(), bounds);
  const auto left = [&](const v1::MediaChunk& chunk) {
    meter.add(chunk.data().size());
    return !stream->answered();
  };
  if (stream->write(header) && send_chunks<v1::IngestRequest>(*stream, media, left)) {
    v1::IngestRequest end;
    end.mutable_end();
    stream->write(end);
    stream->end_writing();
  }
  const auto reply = stream->read();
  if (!reply) throw ServerError({.message = "The server ended the call without a reply.", .code = "INTERNAL"});
  if (stream->read()) throw ServerError({.message = "The server replied twice.", .code = "INTERNAL"});
  return std::move(static_cast<v1::IngestResponse&>(*reply));
}

}  // namespace matchcut::detail
