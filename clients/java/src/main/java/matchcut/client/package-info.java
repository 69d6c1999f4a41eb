/**
 * The Java client of matchcut, a server that takes video in and gives ranked items out.
 *
 * <p>{@link matchcut.client.Client} is where to begin. Requests and results are the messages that are generated from
 * the contract, in the package {@code matchcut.v1}; times in them are microseconds, for which {@link
 * matchcut.client.Times} has conversions.
 */
package matchcut.client;
