"""From shards to batches: order, cache, decoding, augmentation."""
