// The client of a matchcut server.
//
//     matchcut::Client client("127.0.0.1:7411");
//     client.ingest("carphone", "clips/carphone.mp4", {.title = "On the phone", .tags = {"people"}});
//     for (const auto& match : client.recommend(matchcut::Query::clip("clip.mp4"), {.limit = 3}).matches())
//     ...
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "matchcut/live.h"
#include "matchcut/options.h"
#include "matchcut/sequence.h"

namespace matchcut {

namespace detail {
struct Core;
}

/// A tenant's items in the order of their ids, of Client::items; pages are asked for as they are needed.
class Items : public Sequence<Items, v1::Item> {
 public:
  /// Asks for the page that a token names.
  using Fetch = std::function<v1::ListItemsResponse(const std::string& token)>;

  explicit Items(Fetch fetch) : fetch_(std::move(fetch)) {}

  /// The next item; nullopt at the end.
  std::optional<v1::Item> next();

 private:
  Fetch fetch_;
  v1::ListItemsResponse page_;
  int at_ = 0;
  bool last_ = false;
};

/// A connection to a matchcut server; threads may share it, and copies share the connection, which closes
/// with the last of them and of their live calls.
///
/// Each method blocks until it has its result, and throws what error.h declares, or std::invalid_argument for a
/// timeout that is not above 0. What a caller's own media or
/// callback throws passes through as it is and cancels the call. Replies are the contract's messages,
/// explained in its .proto.
class Client {
 public:
  /// `target` is host:port, or any name that gRPC resolves. Nothing is sent yet.
  /// std::filesystem::filesystem_error if a file of options.tls cannot be read; std::invalid_argument if the
  /// token is not printable ASCII or the timeout is not above 0.
  explicit Client(const std::string& target = "localhost:7411", ClientOptions options = {});

  /// Puts one item in from media. Containers that can be read twice are hashed first, so an item that is
  /// there already costs no upload.
  v1::IngestResponse ingest(const std::string& id, const Media& media, const IngestOptions& options = {},
                            const Call& call = {}) const;
  /// Puts one item in from vectors, each made by segment().
  v1::IngestResponse ingest_vectors(const std::string& id, const std::vector<v1::Segment>& segments,
                                    const IngestOptions& options = {}, const Call& call = {}) const;
  /// Returns one item with its segments. NotFound if there is none.
  v1::GetItemResponse get(const std::string& id, const GetOptions& options = {}, const Call& call = {}) const;
  /// Returns some of the items; `token` is the next_page_token of the page before.
  v1::ListItemsResponse page(const ListOptions& options = {}, const std::string& token = {},
                             const Call& call = {}) const;
  /// Walks over the items; `call` is for each page.
  Items items(const ListOptions& options = {}, const Call& call = {}) const;
  /// Removes one item and returns true. NotFound if there is none; with missing_ok false is returned instead.
  bool remove(const std::string& id, const RemoveOptions& options = {}, const Call& call = {}) const;
  /// Lets the server's next encoder take over, for the items of all tenants.
  v1::SwitchEncoderResponse switch_encoder(const SwitchOptions& options = {}, const Call& call = {}) const;

  /// Ranks the catalogue once. A clip above 8 MiB or of unknown length goes through RecommendLive; the result
  /// is its last ranking.
  v1::RecommendResponse recommend(const Query& query, const RankOptions& options = {}, const Call& call = {}) const;
  /// Ranks again and again while media arrives. call.timeout is for the whole call; the client's does not
  /// count.
  Live live(Media media, const RankOptions& options = {}, const Call& call = {}) const;

  /// Records events, each made by event(), in calls of 500; `told` gets the sums so far after each. Where one
  /// fails, those before it are kept. All may be recorded again: what is there already changes nothing.
  v1::RecordEventsResponse record(const std::vector<v1::Event>& events, const Call& call = {},
                                  const std::function<void(const v1::RecordEventsResponse&)>& told = {}) const;
  /// Deletes all that the server keeps of a user. Counts of 0 tell that there was nothing.
  v1::ForgetUserResponse forget(const std::string& user, const Call& call = {}) const;
  /// How many users did what with these items, or with the `limit` items that have the most users.
  v1::CountEventsResponse count_events(const std::vector<std::string>& items = {}, int limit = 0,
                                       const Call& call = {}) const;
  /// What a user should see now. With options.history `user` may be empty.
  v1::RecommendForUserResponse recommend_for(const std::string& user, const UserOptions& options = {},
                                             const Call& call = {}) const;
  /// The same again and again: a list that follows what the user does and, if given, what live media shows.
  /// call.timeout is for the whole call; the client's does not count.
  LiveList recommend_live_for(const std::string& user, const UserOptions& options = {}, std::optional<Media> media = {},
                              const Call& call = {}) const;

  /// "SERVING" or "NOT_SERVING", for the server or for one service of it; NotFound if it has no such one.
  std::string health(const std::string& service = {}, const Call& call = {}) const;

 private:
  std::shared_ptr<const detail::Core> core_;
};

}  // namespace matchcut
