"""The commands: one file each, which reads its options, calls the module that does the work, and returns the result."""
