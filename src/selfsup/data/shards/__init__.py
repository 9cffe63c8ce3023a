"""Images in shards, here or in an object store: tars with a side index, Parquet files, Lance datasets.

Each is a `Store` (`selfsup.data.image.files`): where the bytes of image number i come from. Decoding, values,
channels, labels and all else is that of `Files`.
"""
