// Where media comes from: a container's bytes, decoded frames, or pictures.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <iosfwd>
#include <optional>
#include <string>

#include "matchcut/v1/media.pb.h"

namespace matchcut {

/// Asked again and again for the next piece; nullopt is the end. What it throws cancels the call and passes
/// through.
template <class T>
using Pull = std::function<std::optional<T>()>;

/// Media to be put in or asked with. A path converts to it by itself: client.ingest("a", "a.mp4").
///
/// Files and bytes can be read twice: their calls are tried again where that is safe, and an ingest tells the
/// digest first, so that what is there already is not sent. Streams, pieces, frames and pictures are read
/// once, as they are needed. Copies share what they read.
class Media {
 public:
  /// A container file; std::filesystem::filesystem_error if there is none.
  Media(const std::filesystem::path& path);
  Media(const char* path) : Media(std::filesystem::path(path)) {}
  Media(const std::string& path) : Media(std::filesystem::path(path)) {}

  /// A container in memory.
  static Media bytes(std::string data);
  /// A container that is read from here to the end of the stream, which must outlive the call.
  static Media stream(std::istream& input);
  /// A container in pieces of any size.
  static Media pieces(Pull<std::string> next);
  /// Decoded frames, all of one size; rows packed, times growing.
  static Media frames(int width, int height, Pull<v1::Frame> next, v1::PixelFormat format = v1::PIXEL_FORMAT_RGB24);
  /// JPEG or PNG files; times growing.
  static Media pictures(Pull<v1::Picture> next);

  /// Fills a chunk with the next piece; false at the end.
  using Chunks = std::function<bool(v1::MediaChunk&)>;

  /// The media from its beginning; a second time only if it is replayable.
  Chunks open() const { return open_(); }
  /// What the header says of the form; `format` is the container's short name, empty to detect it.
  void describe(v1::MediaHeader& header, const std::string& format) const;
  /// Length in bytes; nullopt where it is not known, and for frames and pictures.
  std::optional<std::int64_t> size() const { return size_; }
  /// Whether it can be read again.
  bool replayable() const { return size_.has_value(); }
  /// SHA-256 of all bytes, 32 bytes; empty where reading them would use them up.
  std::string sha256() const;

 private:
  Media(std::function<Chunks()> open, v1::MediaHeader form, std::optional<std::int64_t> size = {});

  std::function<Chunks()> open_;
  v1::MediaHeader form_;
  std::optional<std::int64_t> size_;
};

}  // namespace matchcut
