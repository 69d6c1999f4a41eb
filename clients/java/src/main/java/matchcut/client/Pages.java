package matchcut.client;

import java.util.Iterator;
import java.util.List;
import java.util.NoSuchElementException;
import java.util.Spliterator;
import java.util.Spliterators;
import java.util.function.Function;
import java.util.stream.Stream;
import java.util.stream.StreamSupport;
import matchcut.v1.Item;
import matchcut.v1.ListItemsResponse;

/** The items of a listing; a page is asked for when its first item is. */
final class Pages implements Iterator<Item> {
    private final Function<String, ListItemsResponse> page;
    private Iterator<Item> items = List.<Item>of().iterator();
    private String token = ""; // of the next page; null after the last

    private Pages(Function<String, ListItemsResponse> page) {
        this.page = page;
    }

    /** A listing whose pages come by their tokens, "" for the first. */
    static Stream<Item> stream(Function<String, ListItemsResponse> page) {
        int traits = Spliterator.ORDERED | Spliterator.NONNULL;
        return StreamSupport.stream(Spliterators.spliteratorUnknownSize(new Pages(page), traits), false);
    }

    @Override
    public boolean hasNext() {
        while (!items.hasNext() && token != null) {
            ListItemsResponse fetched = page.apply(token);
            items = fetched.getItemsList().iterator();
            token = fetched.getNextPageToken().isEmpty() ? null : fetched.getNextPageToken();
        }
        return items.hasNext();
    }

    @Override
    public Item next() {
        if (!hasNext()) {
            throw new NoSuchElementException();
        }
        return items.next();
    }
}
