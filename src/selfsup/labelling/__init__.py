"""From a few labels to a labelled data set: which samples to label, labels for the rest, and a page to give them."""
