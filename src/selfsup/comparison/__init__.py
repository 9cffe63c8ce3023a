"""The parts of `selfsup compare`: candidates, the plan, the readings, the verdict, the image."""
