// Options as the contract's messages. Nothing here sends anything.
#pragma once

#include <string>

#include "matchcut/options.h"
#include "transport.h"

namespace matchcut::detail {

/// The contract's unit of time.
std::int64_t microseconds(Seconds time);

v1::Item item(const std::string& id, const IngestOptions& options);
v1::MediaHeader media_header(const Media& media, const MediaOptions& options);
v1::RankOptions rank(const RankOptions& options);
v1::TagFilter tag_filter(const Tags& tags);
v1::UserOptions user(const UserOptions& options);
/// The query as one message; reads a clip whole.
v1::Query query(const Query& query, const RankOptions& options);
/// Gives an event an id of its own, if it has none.
void name(v1::Event& event);

/// Sends media as chunks until it ends, no more are wanted, or `left(chunk)`, which is told of each that has
/// left, returns false. Returns whether all of it was sent.
template <class Request, class Left>
bool send_chunks(Stream& stream, const Media& media, const Left& left) {
  const auto next = media.open();
  Request request;
  while (next(*request.mutable_chunk())) {
    if (!stream.write(request) || !left(request.chunk())) return false;
  }
  return true;
}

}  // namespace matchcut::detail
