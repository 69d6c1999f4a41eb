import java.nio.file.Path;
import matchcut.client.Client;
import matchcut.client.Media;
import matchcut.v1.Match;

/** Puts two clips in and asks what goes with a third. */
class Quickstart {
    public static void main(String[] args) {
        String server = System.getenv().getOrDefault("MATCHCUT_SERVER", "127.0.0.1:7411");
        try (Client client = Client.connect(server)) {
            for (String name : new String[] {"bikes", "carphone"}) {
                client.ingest(name, Media.file(Path.of("build/media/" + name + ".mp4")));
            }
            Media clip = Media.file(Path.of("build/media/carphone_distorted.mp4"));
            for (Match match : client.recommend(clip).getMatchesList()) {
                System.out.printf("%s %.3f%n", match.getItem().getItemId(), match.getScore());
            }
        }
    }
}
