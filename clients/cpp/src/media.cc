#include "matchcut/media.h"

#include <openssl/evp.h>

#include <fstream>
#include <istream>
#include <memory>
#include <stdexcept>
#include <string_view>
#include <utility>

namespace matchcut {

namespace {

constexpr std::size_t kChunk = 256 * 1024;  // few enough bytes to decode early, enough that messages cost nothing

/// Reads a stream in chunks; what makes it end before its end is an error.
Media::Chunks reading(std::shared_ptr<std::istream> input) {
  return [input = std::move(input)](v1::MediaChunk& chunk) {
    std::string& data = *chunk.mutable_data();
    data.resize(kChunk);
    input->read(data.data(), static_cast<std::streamsize>(kChunk));
    data.resize(static_cast<std::size_t>(input->gcount()));
    if (input->bad()) throw std::ios_base::failure("cannot read the media");
    return !data.empty();
  };
}

/// Cuts pieces into chunks that the contract allows.
Media::Chunks cutting(Pull<std::string> next) {
  return [next = std::move(next), piece = std::string(), at = std::size_t{0}](v1::MediaChunk& chunk) mutable {
    while (at == piece.size()) {
      auto more = next();
      if (!more) return false;
      piece = std::move(*more);
      at = 0;
    }
    chunk.set_data(std::string_view(piece).substr(at, kChunk).data(), std::min(kChunk, piece.size() - at));
    at += chunk.data().size();
    return true;
  };
}

v1::MediaHeader container() {
  v1::MediaHeader form;
  form.mutable_container();
  return form;
}

}  // namespace

Media::Media(std::function<Chunks()> open, v1::MediaHeader form, std::optional<std::int64_t> size)
    : open_(std::move(open)), form_(std::move(form)), size_(size) {}

Media::Media(const std::filesystem::path& path)
    : Media(
          [path] {
            auto file = std::make_shared<std::ifstream>(path, std::ios::binary);
            if (!*file) {
              throw std::filesystem::filesystem_error("cannot open", path, std::make_error_code(std::errc::io_error));
            }
            return reading(std::move(file));
          },
          container(), static_cast<std::int64_t>(std::filesystem::file_size(path))) {}

Media Media::bytes(std::string data) {
  const auto size = static_cast<std::int64_t>(data.size());
  auto shared = std::make_shared<const std::string>(std::move(data));
  return {[shared] {
            return [shared, at = std::size_t{0}](v1::MediaChunk& chunk) mutable {
              if (at == shared->size()) return false;
              chunk.set_data(shared->data() + at, std::min(kChunk, shared->size() - at));
              at += chunk.data().size();
              return true;
            };
          },
          container(), size};
}

Media Media::stream(std::istream& input) {
  return {[&input] { return reading({std::shared_ptr<void>(), &input}); }, container()};
}

Media Media::pieces(Pull<std::string> next) {
  return {[next = std::move(next)] { return cutting(next); }, container()};
}

Media Media::frames(int width, int height, Pull<v1::Frame> next, v1::PixelFormat format) {
  v1::MediaHeader form;
  form.mutable_frames()->set_width(width);
  form.mutable_frames()->set_height(height);
  form.mutable_frames()->set_pixel_format(format);
  return {[next = std::move(next)] {
            return [next](v1::MediaChunk& chunk) {
              auto frame = next();
              if (frame) *chunk.mutable_frame() = std::move(*frame);
              return frame.has_value();
            };
          },
          form};
}

Media Media::pictures(Pull<v1::Picture> next) {
  v1::MediaHeader form;
  form.mutable_pictures();
  return {[next = std::move(next)] {
            return [next](v1::MediaChunk& chunk) {
              auto picture = next();
              if (picture) *chunk.mutable_picture() = std::move(*picture);
              return picture.has_value();
            };
          },
          form};
}

void Media::describe(v1::MediaHeader& header, const std::string& format) const {
  header.MergeFrom(form_);
  if (header.has_container()) header.mutable_container()->set_format(format);
}

std::string Media::sha256() const {
  if (!replayable()) return {};
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> hash(EVP_MD_CTX_new(), EVP_MD_CTX_free);
  bool ok = hash && EVP_DigestInit_ex(hash.get(), EVP_sha256(), nullptr);
  const auto next = open();
  for (v1::MediaChunk chunk; ok && next(chunk);) {
    ok = EVP_DigestUpdate(hash.get(), chunk.data().data(), chunk.data().size());
  }
  std::string digest(32, '\0');
  if (!ok || !EVP_DigestFinal_ex(hash.get(), reinterpret_cast<unsigned char*>(digest.data()), nullptr)) {
    throw std::runtime_error("OpenSSL has no SHA-256");
  }
  return digest;
}

}  // namespace matchcut
