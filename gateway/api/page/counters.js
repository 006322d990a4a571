// Counters from scrape to scrape: by how much each has grown, through restarts of the processes that count.

const REMEMBERED_S = 300;

/** Remembers what every series stood at, and says what came since. */
export class Counters {
  #stood = new Map();
  #replicas = new Map();

  /**
   * The increases since the scrape before, by metric name: [{labels, value}], with those that did not grow: a bucket
   * that stayed empty is the lower bound of the one above it.
   *
   * A counter that fell began again at 0. One that appears in a process already known began at 0 too; all that a
   * process not known yet has counted is from before the first look, and is no increase.
   */
  since(samples, nowS) {
    const grown = new Map();
    const present = new Set();
    for (const [name, series] of samples) {
      const increases = series.map((sample) => {
        const replica = sample.labels.replica ?? "";
        present.add(replica);
        const value = this.#increase(sample, replica);
        this.#stood.set(sample.series, { value: sample.value, atS: nowS });
        return { labels: sample.labels, value };
      });
      grown.set(name, increases);
    }
    for (const replica of present) this.#replicas.set(replica, nowS);
    this.#forget(nowS - REMEMBERED_S);
    return grown;
  }

  #increase(sample, replica) {
    const stood = this.#stood.get(sample.series);
    if (stood !== undefined) return sample.value >= stood.value ? sample.value - stood.value : sample.value;
    return this.#replicas.has(replica) ? sample.value : 0;
  }

  /** Replicas come and go under new names: without this, a page left open for a month would remember them all. */
  #forget(beforeS) {
    for (const [series, { atS }] of this.#stood) if (atS < beforeS) this.#stood.delete(series);
    for (const [replica, atS] of this.#replicas) if (atS < beforeS) this.#replicas.delete(replica);
  }
}
