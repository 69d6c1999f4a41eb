// Puts two clips in and asks what goes with a third.

#include <matchcut/client.h>

#include <cstdio>
#include <cstdlib>
#include <string>

int main() {
  const char* server = std::getenv("MATCHCUT_SERVER");
  const matchcut::Client client(server ? server : "127.0.0.1:7411");
  for (const std::string name : {"bikes", "carphone"}) {
    client.ingest(name, "build/media/" + name + ".mp4");
  }
  const auto ranking = client.recommend(matchcut::Query::clip("build/media/carphone_distorted.mp4"));
  for (const auto& match : ranking.matches()) {
    std::printf("%s %.3f\n", match.item().item_id().c_str(), match.score());
  }
}
