"""The commands: one file each, which reads its options, calls what does the work, and returns what is shown."""
