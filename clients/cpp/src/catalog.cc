// The client's operations on the catalogue.

#include "core.h"
#include "matchcut/client.h"
#include "packing.h"
#include "upload.h"

namespace matchcut {

using detail::Repeatable;

Client::Client(const std::string& target, ClientOptions options)
    : core_(std::make_shared<const detail::Core>(target, std::move(options))) {}

v1::IngestResponse Client::ingest(const std::string& id, const Media& media, const IngestOptions& options,
                                  const Call& call) const {
  v1::IngestRequest request;
  auto& header = *request.mutable_header();
  header.set_tenant(core_->options.tenant);
  *header.mutable_item() = detail::item(id, options);
  *header.mutable_media() = detail::media_header(media, options.media);
  header.set_for_next_encoder(options.for_next_encoder);
  detail::Meter meter(options.progress, media.size());
  const auto repeatable = media.replayable() ? Repeatable::read : Repeatable::never;
  return core_->repeat(call, repeatable, [&](const detail::Bounds& bounds) {
    if (options.media.max_bytes == 0) header.set_content_sha256(media.sha256());  // of a part it would not be right
    return detail::upload(core_->transport, request, media, meter, bounds);
  });
}

v1::IngestResponse Client::ingest_vectors(const std::string& id, const std::vector<v1::Segment>& segments,
                                          const IngestOptions& options, const Call& call) const {
  v1::IngestVectorsRequest request;
  request.set_tenant(core_->options.tenant);
  *request.mutable_item() = detail::item(id, options);
  request.mutable_segments()->Assign(segments.begin(), segments.end());
  *request.mutable_encoder() = options.encoder;
  request.set_for_next_encoder(options.for_next_encoder);
  return core_->unary<v1::IngestResponse>("/matchcut.v1.Catalog/IngestVectors", request, call);
}

v1::GetItemResponse Client::get(const std::string& id, const GetOptions& options, const Call& call) const {
  v1::GetItemRequest request;
  request.set_tenant(core_->options.tenant);
  request.set_item_id(id);
  request.set_include_vectors(options.vectors);
  return core_->unary<v1::GetItemResponse>("/matchcut.v1.Catalog/GetItem", request, call);
}

v1::ListItemsResponse Client::page(const ListOptions& options, const std::string& token, const Call& call) const {
  v1::ListItemsRequest request;
  request.set_tenant(core_->options.tenant);
  request.set_page_size(options.page_size);
  request.set_page_token(token);
  *request.mutable_tags() = detail::tag_filter(options.tags);
  request.set_lacking_next_encoder(options.lacking_next_encoder);
  return core_->unary<v1::ListItemsResponse>("/matchcut.v1.Catalog/ListItems", request, call);
}

Items Client::items(const ListOptions& options, const Call& call) const {
  return Items([client = *this, options, call](const std::string& token) { return client.page(options, token, call); });
}

std::optional<v1::Item> Items::next() {
  while (at_ == page_.items_size()) {
    if (last_) return {};
    page_ = fetch_(page_.next_page_token());
    last_ = page_.next_page_token().empty();
    at_ = 0;
  }
  return std::move(*page_.mutable_items(at_++));
}

bool Client::remove(const std::string& id, const RemoveOptions& options, const Call& call) const {
  v1::RemoveItemRequest request;
  request.set_tenant(core_->options.tenant);
  request.set_item_id(id);
  request.set_allow_missing(options.missing_ok);
  constexpr auto kMethod = "/matchcut.v1.Catalog/RemoveItem";
  return core_->unary<v1::RemoveItemResponse>(kMethod, request, call, Repeatable::refused).removed();
}

v1::SwitchEncoderResponse Client::switch_encoder(const SwitchOptions& options, const Call& call) const {
  v1::SwitchEncoderRequest request;
  request.set_force(options.force);
  request.set_dry_run(options.dry_run);
  const auto repeatable = options.dry_run ? Repeatable::read : Repeatable::refused;
  return core_->unary<v1::SwitchEncoderResponse>("/matchcut.v1.Catalog/SwitchEncoder", request, call, repeatable);
}

}  // namespace matchcut
