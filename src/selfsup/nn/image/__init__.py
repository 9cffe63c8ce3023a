"""Parts of tasks on images: decoders, masks, patches, colour spaces and pairs of views."""
