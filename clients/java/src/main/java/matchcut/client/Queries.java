package matchcut.client;

import java.util.Arrays;
import java.util.List;
import matchcut.v1.ItemsQuery;
import matchcut.v1.Query;
import matchcut.v1.VectorQuery;

/** What the catalogue is compared with, where it is simple; for more there is {@link Query#newBuilder}. */
public final class Queries {
    private Queries() {}

    /** Items of the catalogue, which are left out of the ranking themselves. */
    public static Query items(String... itemIds) {
        ItemsQuery items =
                ItemsQuery.newBuilder().addAllItemIds(Arrays.asList(itemIds)).build();
        return Query.newBuilder().setItems(items).build();
    }

    /** A vector of the encoder that the server runs. */
    public static Query vector(List<Float> values) {
        return Query.newBuilder()
                .setVector(VectorQuery.newBuilder().addAllValues(values))
                .build();
    }
}
