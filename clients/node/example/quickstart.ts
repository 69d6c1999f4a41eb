/** Puts two clips in and asks what goes with a third. */

import { Client } from 'matchcut';

const client = new Client(process.env.MATCHCUT_SERVER ?? '127.0.0.1:7411');
for (const name of ['bikes', 'carphone']) {
  await client.ingest(name, `build/media/${name}.mp4`);
}
const { matches } = await client.recommend({ clip: 'build/media/carphone_distorted.mp4' });
for (const { item, score } of matches) {
  console.log(`${item.itemId} ${score.toFixed(3)}`);
}
client.close();
