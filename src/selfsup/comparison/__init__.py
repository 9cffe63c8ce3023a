"""The parts of `selfsup compare`: candidates, the plan, the scores, the verdict, the image."""
